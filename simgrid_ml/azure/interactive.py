"""Runs without a supervisor: the process that made one carries it, and holds its lock.

So a killed notebook leaves a run that is ``NotResponding``, and not one that runs for ever.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, Optional

from simgrid_ml.azure.errors import UserErrorException, to_azure
from simgrid_ml.errors import ConflictError, SimgridError
from simgrid_ml.record.run import MOVES, RunLock, RunRecord, RunState
from simgrid_ml.record.store import RunStore

__all__ = ["create", "end", "is_carried_here", "move"]

_held: Dict[str, RunLock] = {}  # by run directory
_log = logging.getLogger("azureml.run")


def create(
    store: RunStore,
    experiment: str,
    spec: Dict[str, Any],
    run_id: Optional[str] = None,
    parent: Optional[str] = None,
) -> RunRecord:
    """A new run in state NotStarted, carried by this process.

    Args:
        store, experiment, spec: as for ``RunStore.create``.
        run_id: its id; of a child without one: ``<parent>_<n>``.
        parent: id of the run it is a child of.

    Raises:
        UserErrorException: ``run_id`` exists, or cannot be one.
    """
    number = 0
    while True:
        wanted = run_id or (f"{parent}_{number}" if parent else None)
        try:
            record, lock = store.create_held(experiment, spec, wanted)
            break
        except ConflictError as error:
            if run_id is not None or parent is None:
                raise UserErrorException(error.cause) from error
            number += 1  # another rank has created a child
        except SimgridError as error:
            raise to_azure(error) from error
    _held[record.path] = lock
    return record


def is_carried_here(record: RunRecord) -> bool:
    return record.path in _held


def move(record: RunRecord, state: RunState, **said: Any) -> None:
    """Move the run if it is carried here, or by nobody, and may go there."""
    lock = None
    if not is_carried_here(record):
        lock = RunLock.take(record.path)
        if lock is None:
            _log.warning("run %s is carried by another process; its status stays", record.id)
            return
    try:
        present = RunState((record.states() or [{"state": "NotStarted"}])[-1]["state"])
        if state not in MOVES[present]:
            if present is not state:
                _log.warning("run %s is %s already", record.id, present.value)
            return
        if state.is_terminal:
            record.seal()  # first: whoever sees the last state finds the record whole
        record.advance(state, **said)
    finally:
        if lock is not None:
            lock.close()


def end(record: RunRecord, state: RunState, **said: Any) -> None:
    """Move to the final ``state``, Canceled if that was asked for, and let go of the record."""
    if record.cancel_requested and state is not RunState.CANCELED:
        state, said = RunState.CANCELED, {"note": "cancelled by request"}
    move(record, state, **said)
    lock = _held.pop(record.path, None)
    if lock is not None:
        lock.close()
