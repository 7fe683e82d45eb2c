"""The run of a script that nobody submitted: it prints what it would have recorded."""

from __future__ import annotations

import logging
from typing import Any, Optional

__all__ = ["_OfflineRun"]

_log = logging.getLogger("azureml.run")


class _OfflineRun:
    """What ``Run.get_context()`` gives outside a run.

    It has fewer members than a ``Run``, and ``log`` has no ``step``: a script that needs more
    must be able to find out here.
    """

    def __init__(
        self, parent_logger: Any = None, run_id: Optional[str] = None, **kwargs: Any
    ) -> None:
        self._run_id = f"OfflineRun_{_unique()}" if run_id is None else run_id

    @property
    def id(self) -> str:
        return self._run_id

    def add_properties(self, properties: Any) -> None:
        print(f"Attempted to add properties {properties}")

    def set_tags(self, tags: Any) -> None:
        print(f"Attempted to set tags {tags}")

    def tag(self, name: str, value: Any = None) -> None:
        print(f"Attempted to add tag {name} with value {value}")

    def complete(self) -> None:
        _log.debug("an offline run has no state to complete")

    def fail(self, error_details: Any = None, error_code: Any = None) -> None:
        print(f"Run failed with error code {error_code}:\n{error_details}")

    def cancel(self) -> None:
        _log.debug("an offline run cannot be canceled")

    def flush(self) -> None:
        print(f"Attempted to flush run with id {self.id}")

    def log(self, name: str, value: Any, description: str = "") -> None:
        self._emit("scalar", name, value)

    def log_list(self, name: str, value: Any, description: str = "") -> None:
        self._emit("list", name, value)

    def log_row(self, name: str, description: Optional[str] = None, **kwargs: Any) -> None:
        self._emit("row", name, kwargs)

    def log_table(self, name: str, value: Any, description: str = "") -> None:
        self._emit("table", name, value)

    def log_image(
        self, name: str, path: Optional[str] = None, plot: Any = None, description: str = ""
    ) -> None:
        self._emit("image", name, plot or path)

    def log_residuals(self, name: str, value: Any, description: Optional[str] = None) -> None:
        self._emit("residual", name, value)

    def log_predictions(self, name: str, value: Any, description: Optional[str] = None) -> None:
        self._emit("predictions", name, value)

    def log_accuracy_table(self, name: str, value: Any, description: Optional[str] = None) -> None:
        self._emit("accuracy_table", name, value)

    def log_confusion_matrix(
        self, name: str, value: Any, description: Optional[str] = None
    ) -> None:
        self._emit("confusion_matrix", name, value)

    def upload_file(self, name: str, path_or_stream: Any, datastore_name: Any = None) -> None:
        print(f"Attempted to track file {name} at {path_or_stream}")

    def upload_files(
        self,
        name: Any,
        paths: Any,
        return_artifacts: bool = False,
        timeout_seconds: Optional[int] = None,
        datastore_name: Any = None,
    ) -> None:
        print(f"Attempted to track files {name} at {paths} with timeout {timeout_seconds}s")

    def upload_folder(self, name: str, path: str, datastore_name: Any = None) -> None:
        print(f"Attempted to track folder {name} at {path}")

    def child_run(
        self, name: Optional[str] = None, run_id: Optional[str] = None, outputs: Any = None
    ) -> _OfflineRun:
        child = _unique() if name is None else name
        return _OfflineRun(run_id=f"{self.id}.{child}" if run_id is None else run_id)

    def __enter__(self) -> _OfflineRun:
        print(f"[START] Run {self.id} context")
        return self

    def __exit__(self, *_: object) -> None:
        print(f"[STOP] Run {self.id} context")

    def _emit(self, kind: str, name: str, value: Any) -> None:
        print(f"Attempted to log {kind} metric {name}:\n{value}")


def _unique() -> str:
    import uuid  # a submitted run loads this module and never needs it

    return str(uuid.uuid4())
