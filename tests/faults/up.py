"""A run that is up and waits to be hurt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simgrid_ml.record.run import RunRecord
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs, log, story

__all__ = ["let_go", "running"]

WAITS = """
    import os, time
    from mpi4py import MPI
    with open(f"outputs/rank-{MPI.COMM_WORLD.rank}.txt", "w") as stream:
        stream.write("written before")
    print("up", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.02)
    MPI.COMM_WORLD.Barrier()
"""


def running(
    workspace: Runs, cluster: Mapping[str, Any], mpi: tuple[int, int] = (2, 1)
) -> RunRecord:
    """A run all of whose ranks are up; they end once ``let_go`` is called."""
    record = workspace.submit(WAITS, mpi=mpi, cluster=cluster)

    def all_up() -> bool:
        assert not record.state.is_terminal, story(record)
        try:
            return all("up\n" in log(record, rank) for rank in range(mpi[0] * mpi[1]))
        except Exception:  # no such artifact yet
            return False

    wait_until(all_up, "every rank has printed")
    return record


def let_go(record: RunRecord) -> None:
    Path(record.file("work", "go")).touch()
