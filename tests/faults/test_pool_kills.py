"""SIGKILL around warm nodes: the pool, a supervisor, an agent, with and without a run."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from simgrid_ml.cli.clean import find_leftovers
from simgrid_ml.engine import pools
from simgrid_ml.record.follow import wait_state
from simgrid_ml.record.run import RunLock, RunRecord, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.testing.leaks import traces
from simgrid_ml.testing.pools import put_cluster
from simgrid_ml.testing.processes import RunProcesses, host_processes, wait_until
from simgrid_ml.testing.runs import Runs, cause, evidence, log, story

WAITS = """
    import os, sys, time
    from mpi4py import MPI
    print("up", flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.02)
"""


RUN = "SIMGRID_ML_RUN_DIR"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def pool_pid(runs: Runs) -> int:
    said = pools.status(runs.store, "four")
    assert said is not None
    return int(said["pid"])


def states(runs: Runs) -> list[str]:
    said = pools.status(runs.store, "four") or {"nodes": []}
    return [node["state"] for node in said["nodes"]]


def up(record: RunRecord) -> RunRecord:
    def is_up() -> bool:
        try:
            return all("up\n" in log(record, rank) for rank in (0, 1))
        except Exception:
            return False

    wait_until(is_up, "every rank has printed")
    return record


def warm_agents(runs: Runs) -> list[int]:
    """The processes of the pool's nodes that outlive runs: children of the nursery."""
    folder = pools.pool_folder(runs.store, "four")
    ours = {p.pid: p for p in host_processes() if folder in " ".join(p.argv) and p.runs("agent.py")}
    return [p.pid for p in ours.values() if p.parent in ours and ours[p.parent].parent not in ours]


def stand_in(record: RunRecord, node: str) -> int:
    """The process that serves the run on a warm node."""
    found = {process.pid: process for process in host_processes()}
    mine = [p for p in found.values() if p.node == node and p.environment.get(RUN) == record.path]
    return next(p.parent for p in mine if found[p.parent].runs("agent.py"))


def test_a_killed_pool_is_the_first_cause_and_takes_its_nodes_along(
    pooled: Runs, tmp_path: Path
) -> None:
    cluster = put_cluster(pooled)
    record = up(pooled.submit(WAITS, str(tmp_path / "go"), mpi=(2, 1), cluster=cluster))
    kill(pool_pid(pooled))
    assert pooled.ended(record).state is RunState.FAILED, story(record)
    assert cause(record).startswith("the process that keeps the nodes of cluster 'four' went away")
    wait_until(lambda: traces(pooled.folder) == [], "nothing is left")
    again = pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    assert again.document("placement.json")["nodes"] == ["node0", "node1"]


def test_a_killed_pool_with_idle_nodes_leaves_nothing(pooled: Runs) -> None:
    cluster = put_cluster(pooled)
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    kill(pool_pid(pooled))
    wait_until(lambda: traces(pooled.folder) == [], "nothing is left")
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)


def test_a_run_that_waits_survives_a_killed_pool(pooled: Runs, tmp_path: Path) -> None:
    cluster = put_cluster(pooled, max_nodes=2)
    first = up(pooled.submit(WAITS, str(tmp_path / "go"), mpi=(2, 1), cluster=cluster))
    second = pooled.submit("print(1)", mpi=(1, 1), cluster=cluster)
    wait_until(lambda: any(e["event"] == "waiting" for e in second.events()), "it waits")
    kill(pool_pid(pooled))
    assert pooled.ended(first).state is RunState.FAILED, story(first)
    assert "four" in cause(first)
    assert pooled.ended(second).state is RunState.COMPLETED, story(second)


@pytest.mark.parametrize("state", ["Queued", "Running"])
def test_a_killed_supervisor_leaves_the_queue_or_gives_its_nodes_back(
    pooled: Runs, tmp_path: Path, state: str
) -> None:
    cluster = put_cluster(pooled, max_nodes=2)
    go = tmp_path / "go"
    first = up(pooled.submit(WAITS, str(go), mpi=(2, 1), cluster=cluster))
    second = pooled.submit("print(1)", mpi=(2, 1), cluster=cluster)
    wait_until(lambda: any(e["event"] == "waiting" for e in second.events()), "it waits")
    victim, other = (first, second) if state == "Running" else (second, first)
    kill(RunProcesses(victim).supervisor())
    if state == "Queued":
        go.touch()
    assert pooled.ended(other).state is RunState.COMPLETED, story(other)
    assert wait_state(victim, 10, until=lambda s: s is RunState.NOT_RESPONDING).value
    victim.request_cancel()
    wait_until(lambda: states(pooled) == ["idle"] * 2, "all nodes are idle")


def test_a_killed_warm_agent_fails_its_run_and_is_replaced(pooled: Runs, tmp_path: Path) -> None:
    cluster = put_cluster(pooled)
    record = up(pooled.submit(WAITS, str(tmp_path / "go"), mpi=(2, 1), cluster=cluster))
    kill(warm_agents(pooled)[1])
    assert pooled.ended(record).state is RunState.FAILED, story(record)
    assert "went away while its tasks were running" in cause(record)
    again = pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    assert again.document("placement.json")["nodes"] == ["node0", "node1"]


def test_a_warm_node_that_is_paused_is_named_as_soon_as_the_pool_misses_it(pooled: Runs) -> None:
    cluster = put_cluster(pooled)
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    os.kill(warm_agents(pooled)[0], signal.SIGSTOP)
    record = pooled.failed("print(1)", mpi=(2, 1), cluster=cluster)
    assert re.match(r"node[01] has not answered for 10 s: it is paused", cause(record))
    again = pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    assert again.document("placement.json")["nodes"] == ["node0", "node1"]


def test_the_stand_in_of_an_agent_is_killed_and_the_node_lives_on(
    pooled: Runs, tmp_path: Path
) -> None:
    cluster = put_cluster(pooled)
    record = up(pooled.submit(WAITS, str(tmp_path / "go"), mpi=(2, 1), cluster=cluster))
    kill(stand_in(record, "node1"))
    assert pooled.ended(record).state is RunState.FAILED, story(record)
    assert "node1 went away" in cause(record)
    assert states(pooled) == ["idle"] * 2
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)


def test_a_killed_idle_agent_is_replaced_when_it_is_needed(pooled: Runs) -> None:
    cluster = put_cluster(pooled)
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    kill(warm_agents(pooled)[0])
    wait_until(lambda: states(pooled) == ["idle"], "one is gone")
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    assert states(pooled) == ["idle"] * 2


@pytest.mark.parametrize("isolation", ["hostname", "none"])
def test_warm_nodes_without_own_processes_are_renewed_as_well(
    pooled: Runs, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", isolation)
    cluster = put_cluster(pooled)
    stray = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "stray"],
                         start_new_session=True)
    """
    record = pooled.completed(stray, mpi=(2, 1), cluster=cluster)
    assert [p for p in RunProcesses(record).all() if "stray" in p.argv] == []
    assert states(pooled) == ["idle"] * 2
    kill(pool_pid(pooled))
    wait_until(lambda: traces(pooled.folder) == [], "nothing is left")


def test_nodes_that_cannot_start_fail_the_run_with_their_last_words(
    pooled: Runs, odd_backends: Path
) -> None:
    cluster = put_cluster(pooled, backend="broken")
    record = pooled.failed("print(1)", mpi=(2, 1), cluster=cluster)
    assert cause(record) == "the agents of node0, node1 ended before they had reported"
    assert "boom: no agent today" in evidence(record), story(record)


def test_clean_spares_warm_nodes_and_finds_what_a_killed_pool_left(
    pooled: Runs, own_home: Path
) -> None:
    pooled.store = RunStore.of_workspace()
    cluster = put_cluster(pooled)
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    assert find_leftovers() == []
    kill(pool_pid(pooled))
    wait_until(lambda: not RunLock.is_held(pools.pool_folder(pooled.store, "four")), "it is dead")
    wait_until(lambda: {one.kind for one in find_leftovers()} == {"file"}, "its nodes have ended")
    assert [one.name for one in find_leftovers()] == ["1", "control.sock"]
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    assert find_leftovers() == []
