"""``RunDetails`` and the switches of telemetry: what notebooks import and a terminal can do."""

from __future__ import annotations

from typing import Any

__all__ = ["RunDetails", "set_diagnostics_collection"]


class RunDetails:
    """``RunDetails(run).show()`` prints where the run stands; call it again for news."""

    def __init__(self, run_instance: Any) -> None:
        self._run = run_instance

    def show(self, render_lib: Any = None, widget_settings: Any = None) -> None:
        found = self._run.get_details()
        rows = [
            ("Run", self._run.id),
            ("Experiment", self._run.experiment.name),
            ("Status", found["status"]),
            ("Target", found["target"]),
            ("Started", found.get("startTimeUtc", "")),
            ("Ended", found.get("endTimeUtc", "")),
            *sorted((f"Metric {name}", _short(v)) for name, v in self._run.get_metrics().items()),
            *(("Log", name) for name in found["logFiles"]),
        ]
        width = max(len(title) for title, _ in rows)
        for title, value in rows:
            print(f"{title:<{width}}  {value}")

    def get_widget_data(self, widget_settings: Any = None) -> dict[str, Any]:
        details: dict[str, Any] = self._run.get_details()
        return details


def set_diagnostics_collection(send_diagnostics: bool = True, verbosity: Any = None) -> None:
    """Accepted; nothing is ever sent anywhere."""


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"{len(value)} values, last {value[-1]}"
    return str(value)
