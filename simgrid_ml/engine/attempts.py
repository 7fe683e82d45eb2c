"""A job that begins again because its nodes were pre-empted: what is kept of the attempt before.

Its logs, ``./outputs`` and ``./logs`` stay artifacts, below ``attempts/N/``, so that the names
they had are free for the next attempt. What the engine wrote for itself goes to ``attempts/N`` of
the run directory. Metrics and tags stay, as in the service: there, too, an attempt adds to them.
"""

from __future__ import annotations

import os
import shutil

from simgrid_ml import wire
from simgrid_ml.launch import dialect
from simgrid_ml.record.run import RunRecord

__all__ = ["MAX_ATTEMPTS", "put_aside"]

MAX_ATTEMPTS = 10

_OURS = (
    *(wire.PLACEMENT, wire.LAUNCH, wire.LAUNCH_TASKS, wire.TASKS, wire.FIDELITY),
    *(wire.GPUS, wire.GPU_LEDGERS, wire.GPU_MEMORY),
)


def put_aside(record: RunRecord, attempt: int) -> None:
    """Leave the run directory as if attempt number ``attempt`` had not begun, but for the above."""
    own = record.file(wire.ATTEMPTS, str(attempt))
    kept = record.file(wire.ARTIFACTS, wire.ATTEMPTS, str(attempt))
    os.makedirs(kept, exist_ok=True)
    _move_artifacts(record, kept)
    os.makedirs(own, exist_ok=True)  # from now on who follows the logs awaits new ones
    for name in _OURS:
        _move(record.file(name), os.path.join(own, name))
    for work in record.work_directories():
        node = os.path.basename(work)[len(wire.WORK) + 1 :]
        for name in (wire.OUTPUTS, wire.LOGS):
            if os.path.isdir(os.path.join(work, name)) and os.listdir(os.path.join(work, name)):
                target = os.path.join(kept, node, name)
                if os.path.exists(target):  # the run's own uploads to ./outputs
                    target = os.path.join(kept, "work", node, name)
                _move(os.path.join(work, name), target)
        shutil.rmtree(work)
    for name in (wire.PYTHONPATH, wire.TMP):
        shutil.rmtree(record.file(name), ignore_errors=True)


def _move_artifacts(record: RunRecord, kept: str) -> None:
    for name in os.listdir(record.file(wire.ARTIFACTS)):
        if name != wire.ATTEMPTS:
            _move(record.file(wire.ARTIFACTS, name), os.path.join(kept, name))
    _move(os.path.join(kept, dialect.BUILD_LOG), record.file(wire.ARTIFACTS, dialect.BUILD_LOG))


def _move(source: str, target: str) -> None:
    if os.path.lexists(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)
