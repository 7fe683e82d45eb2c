"""Cancellation in every state, and the time limit: the run ends as asked, with all it started."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.testing.processes import host_processes, wait_until
from simgrid_ml.testing.runs import Runs, log, story


def moves(record: RunRecord) -> list[str]:
    return [move["state"] for move in record.states()]


@pytest.mark.parametrize("state", ["Preparing", "Queued", "Running"])
def test_a_run_is_cancelled_in_any_state_before_its_end(
    workspace: Runs, held: Callable[[str], RunRecord], state: str
) -> None:
    record = held(state)
    record.request_cancel()
    assert workspace.ended(record, 15).state is RunState.CANCELED, story(record)
    assert moves(record)[-3:] == [state, "CancelRequested", "Canceled"]
    assert record.error() is None


def test_a_cancel_while_the_results_are_collected_comes_too_late(
    workspace: Runs, held: Callable[[str], RunRecord]
) -> None:
    record = held("Finalizing")
    record.request_cancel()
    assert workspace.ended(record).state is RunState.COMPLETED, story(record)
    assert record.artifact("outputs/big").bytes == 1 << 29


def test_a_run_that_was_cancelled_before_it_began_never_runs(workspace: Runs) -> None:
    record = workspace.submit("open('outputs/ran', 'w')", mpi=(2, 1))
    record.request_cancel()
    assert workspace.ended(record).state is RunState.CANCELED, story(record)
    assert "Running" not in moves(record)


def test_cancelling_twice_or_after_the_end_changes_nothing(workspace: Runs) -> None:
    record = workspace.completed("print('done')")
    before = record.states()
    record.request_cancel()
    record.request_cancel()
    assert record.states() == before
    assert not record.cancel_requested


def test_what_a_cancelled_run_wrote_is_kept(
    workspace: Runs, held: Callable[[str], RunRecord]
) -> None:
    record = held("Running")
    wait_until(lambda: all(_up(record, rank) for rank in (0, 1)), "both ranks are up")
    record.request_cancel()
    workspace.ended(record)
    for rank in (0, 1):
        assert log(record, rank) == "up\n"
        kept = record.artifact(f"outputs/rank-{rank}.txt").path
        assert Path(kept).read_text() == "written before"


def _up(record: RunRecord, rank: int) -> bool:
    return Path(record.file("work", "outputs", f"rank-{rank}.txt")).exists() and bool(
        Path(record.file("work", "outputs", f"rank-{rank}.txt")).read_text()
    )


@pytest.mark.parametrize("mpi", [(2, 1), None])
def test_the_time_limit_cancels_a_run(workspace: Runs, mpi: tuple[int, int] | None) -> None:
    record = workspace.run("import time; time.sleep(600)", mpi=mpi, max_run_s=0.7)
    assert record.state is RunState.CANCELED, story(record)
    assert record.states()[-1]["note"] == "max_run_duration_seconds of 0.7 s exceeded"
    assert moves(record)[-3:] == ["Running", "CancelRequested", "Canceled"]


def test_a_time_limit_that_is_not_reached_changes_nothing(workspace: Runs) -> None:
    assert workspace.completed("print(1)", max_run_s=300.0).state is RunState.COMPLETED


def test_the_supervisor_takes_sigterm_for_a_wish_to_cancel(
    workspace: Runs, held: Callable[[str], RunRecord]
) -> None:
    import os
    import signal

    from simgrid_ml.testing.processes import RunProcesses

    record = held("Running")
    os.kill(RunProcesses(record).supervisor(), signal.SIGTERM)
    assert workspace.ended(record).state is RunState.CANCELED, story(record)


def test_a_run_whose_directory_was_deleted_ends(workspace: Runs) -> None:
    record = workspace.submit("import time; time.sleep(600)", nodes=2)
    wait_until(lambda: record.state is RunState.RUNNING, "it runs", 30.0)
    wait_until(lambda: removed(record.path), "its directory is gone", 30.0)
    wait_until(lambda: not host_processes_of(record.path), "its processes are gone", 30.0)


def removed(path: str) -> bool:
    """Whether all of it could be removed; files may still be made in it meanwhile."""
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.exists(path)


def host_processes_of(run_dir: str) -> list[int]:
    return [p.pid for p in host_processes() if run_dir in p.environment.values()]
