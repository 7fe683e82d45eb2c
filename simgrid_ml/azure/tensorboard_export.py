"""``export_to_tensorboard``: what runs logged, as curves that TensorBoard shows."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from simgrid_ml.azure.errors import UserErrorException
from simgrid_ml.azure.experiment import Experiment
from simgrid_ml.azure.tensorboard_events import EventFile
from simgrid_ml.record.run import RunRecord

__all__ = ["MetricEvents", "export_to_tensorboard"]

_log = logging.getLogger("azureml.tensorboard.export")


def export_to_tensorboard(
    run_data: Any, logsdir: str, logger: logging.Logger | None = None, recursive: bool = True
) -> None:
    """Write the metrics of runs as event files, a folder ``logsdir/<run id>`` for each.

    A point stands at the step it was logged with, else at its number in its series. Lists count
    item by item; a column of rows or tables is a curve ``<name>/<column>``. Text is left out. An
    export into the same folder replaces the one before.

    The SDK needs TensorFlow for this; here nothing is needed.

    Args:
        run_data: a ``Run``, a list of them, or an ``Experiment``, which means all its runs.
        logsdir: is made where it does not exist.
        logger: told at DEBUG what is left out.
        recursive: the runs' children as well.

    Raises:
        UserErrorException: the list is empty.
    """
    if isinstance(run_data, list) and not run_data:
        raise UserErrorException("export failed: run_data cannot be empty list")
    if isinstance(run_data, Experiment):
        runs = list(run_data.get_runs())
    else:
        runs = list(run_data) if isinstance(run_data, list) else [run_data]
    if recursive:
        runs += [child for run in runs for child in run.get_children(recursive=True)]
    for run in runs:
        folder = os.path.join(logsdir, run.id)
        with closing(MetricEvents(run._record, folder, logger or _log)) as events:
            events.update()


class MetricEvents:
    """The metrics of a run as an event file in ``folder``, for a run that ended or that goes on."""

    def __init__(self, record: RunRecord, folder: str, logger: logging.Logger = _log) -> None:
        self._record = record
        self._logger = logger
        self._read: Counter[str] = Counter()  # lines, by who wrote them
        self._points: Counter[str] = Counter()  # by curve
        os.makedirs(folder, exist_ok=True)
        # The name begins with the same time whenever it is written, so a second export replaces.
        began_s = int(record.spec().get("created") or 0)
        path = os.path.join(folder, f"events.out.tfevents.{began_s:010d}.simgrid-ml")
        self._file = EventFile(path)

    def update(self) -> None:
        """Append what was logged since the last call."""
        seen: Counter[str] = Counter()
        for line in self._record.metrics():
            writer = str(line.get("writer"))
            seen[writer] += 1
            if seen[writer] > self._read[writer]:
                self._append(line)
        self._read = seen
        self._file.flush()

    def _append(self, line: Mapping[str, Any]) -> None:
        step = line.get("step")
        for tag, value in _values(line):
            if not isinstance(value, (int, float)):
                self._logger.debug("%s of %s is no number: %r", tag, self._record.id, value)
                continue
            at = self._points[tag]
            if isinstance(step, (int, float)) and math.isfinite(step):
                at = int(step)
            self._file.scalar(tag, value, at, float(line.get("t") or 0.0))
            self._points[tag] += 1

    def close(self) -> None:
        self._file.close()


def _values(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Curve and value of every point in a line of a metrics journal; images are addresses, text."""
    name, value = str(line.get("name")), line.get("value")
    columns = value if isinstance(value, dict) else {"": value}
    for column, cells in columns.items():
        tag = f"{name}/{column}" if column else name
        yield from ((tag, cell) for cell in (cells if isinstance(cells, list) else [cells]))
