"""SIGKILL for every process of a run, at every stage: the run ends and takes all along."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.testing.processes import RunProcesses, wait_until
from simgrid_ml.testing.runs import Runs, cause, log, story, until_written

WAITS = """
    import os, time
    from mpi4py import MPI
    with open(f"outputs/rank-{MPI.COMM_WORLD.rank}.txt", "w") as stream:
        stream.write("written before")
    print("up", flush=True)
    while True:
        time.sleep(0.02)
"""

SOON_S = 10.0
"""When nothing of a run may be left once its supervisor is gone, on a host that has other work."""


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def running(workspace: Runs, nodes: int = 2, per_node: int = 2) -> tuple[RunRecord, RunProcesses]:
    record = workspace.submit(WAITS, mpi=(nodes, per_node))
    until_written(record, "up\n", range(nodes * per_node))
    return record, RunProcesses(record)


def assert_kept(record: RunRecord, ranks: int = 4) -> None:
    """Nothing that was written before is lost."""
    assert record.state is RunState.FAILED, story(record)
    kept = [Path(record.artifact(f"outputs/rank-{rank}.txt").path) for rank in range(ranks)]
    assert [path.read_text() for path in kept] == ["written before"] * ranks
    assert all(log(record, rank).startswith("up\n") for rank in range(ranks))


@pytest.mark.parametrize("state", ["Preparing", "Queued", "Running", "Finalizing"])
def test_a_killed_supervisor_is_noticed_and_leaves_nothing(
    held: Callable[[str], RunRecord], state: str
) -> None:
    record = held(state)
    kill(RunProcesses(record).supervisor())
    wait_until(lambda: record.state is RunState.NOT_RESPONDING, "it does not respond", SOON_S)
    wait_until(lambda: not RunProcesses(record).all(), "its processes are gone", SOON_S)
    record.request_cancel()
    assert record.state is RunState.CANCELED, story(record)


@pytest.mark.parametrize("node", ["node0", "node1"])
@pytest.mark.parametrize("isolation", ["full", "none"])
def test_a_killed_agent_ends_the_run_and_the_node_is_named(
    workspace: Runs, monkeypatch: pytest.MonkeyPatch, node: str, isolation: str
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", isolation)
    record, processes = running(workspace)
    kill(processes.agent(node))
    workspace.ended(record)
    assert_kept(record)
    assert cause(record).startswith(f"{node} went away"), story(record)


@pytest.mark.parametrize("isolation", ["full", "none"])
def test_a_killed_nursery_ends_the_run(
    workspace: Runs, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", isolation)
    record, processes = running(workspace)
    kill(processes.nursery())
    workspace.ended(record)
    assert_kept(record)
    assert "went away" in cause(record), story(record)


@pytest.mark.parametrize("rank", [0, 3])
def test_a_killed_rank_is_named(workspace: Runs, rank: int) -> None:
    record, processes = running(workspace)
    kill(processes.task(f"rank-{rank}"))
    workspace.ended(record)
    assert_kept(record)
    assert cause(record).startswith(f"rank {rank} on node{rank // 2} was ended by SIGKILL")


@pytest.mark.parametrize("rank", [1, 2])
def test_a_killed_rank_wrapper_is_named_by_its_rank(workspace: Runs, rank: int) -> None:
    record, processes = running(workspace)
    kill(processes.watcher(f"rank-{rank}"))
    workspace.ended(record)
    assert_kept(record)
    assert cause(record).startswith(f"rank {rank} on node{rank // 2}"), story(record)


def test_a_killed_mpirun_is_named(workspace: Runs) -> None:
    record, processes = running(workspace)
    kill(processes.mpirun())
    workspace.ended(record)
    assert_kept(record)
    assert cause(record).startswith("mpirun was ended by SIGKILL"), story(record)


def test_a_killed_daemon_of_open_mpi_is_named_by_its_node(workspace: Runs) -> None:
    record, processes = running(workspace)
    kill(processes.daemon("node1"))
    workspace.ended(record)
    assert_kept(record)
    assert "daemon on node1 was ended by SIGKILL" in cause(record), story(record)


@pytest.mark.parametrize("victim", ["task", "watcher"])
def test_a_killed_plain_process_is_named(workspace: Runs, victim: str) -> None:
    record = workspace.submit("import time; print('up', flush=True); time.sleep(600)", nodes=2)
    until_written(record, "up\n", range(2))
    kill(getattr(RunProcesses(record), victim)("rank-1"))
    workspace.ended(record)
    assert record.state is RunState.FAILED
    assert re.match(
        "(the process that watched )?rank 1 on node1 was ended by SIGKILL", cause(record)
    )


@pytest.mark.parametrize("victim", ["nursery", "agent", "mpirun", "daemon", "watcher", "task"])
def test_what_is_killed_as_soon_as_it_appears_fails_the_run(workspace: Runs, victim: str) -> None:
    record = workspace.submit(WAITS, mpi=(2, 2))
    of = {"agent": "node1", "daemon": "node1", "watcher": "rank-3", "task": "rank-3"}
    kill(getattr(RunProcesses(record), victim)(*filter(None, [of.get(victim)])))
    workspace.ended(record)
    assert record.state is RunState.FAILED, story(record)
    assert cause(record), story(record)


@pytest.mark.parametrize("after_s", [0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3])
def test_a_supervisor_killed_at_any_moment_leaves_nothing(workspace: Runs, after_s: float) -> None:
    record = workspace.submit("from mpi4py import MPI; MPI.COMM_WORLD.Barrier()", mpi=(2, 2))
    supervisor = RunProcesses(record).supervisor()
    time.sleep(after_s)  # a moment by chance, not to wait for anything
    kill(supervisor)
    wait_until(lambda: not record.is_supervised(), "nobody holds the lock", SOON_S)
    wait_until(lambda: not RunProcesses(record).all(), "its processes are gone", SOON_S)
    record.request_cancel()
    assert record.state.is_terminal, story(record)
