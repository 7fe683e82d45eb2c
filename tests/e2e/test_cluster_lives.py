"""Clusters whose nodes live longer than a run: warm nodes, queues, scale, what is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.engine import pools
from simgrid_ml.errors import ConflictError, NotFoundError
from simgrid_ml.record.follow import wait_state
from simgrid_ml.record.run import RunLock, RunRecord, RunState
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.spec.value import from_plain, to_plain
from simgrid_ml.testing.leaks import nothing_left, traces
from simgrid_ml.testing.pools import stop_pools
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs, cause, log, story

WAITS = """
    import os, sys, time
    from mpi4py import MPI
    print("up", flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.02)
"""

Put = Callable[..., dict[str, Any]]


@pytest.fixture
def workspace(tmp_path: Path, environment: EnvironmentSpec) -> Iterator[Runs]:
    """As everywhere; its pools end before the look at what is left."""
    with nothing_left(str(tmp_path)):
        runs = Runs(str(tmp_path), environment)
        yield runs
        for record in runs.store.list():
            record.request_cancel()
            runs.ended(record)
        stop_pools(str(tmp_path))


@pytest.fixture
def put(workspace: Runs) -> Put:
    """Stores a cluster; gives its fields, for ``submit(cluster=...)``."""

    def store(**fields: Any) -> dict[str, Any]:
        spec = from_plain({"name": "four", "max_nodes": 4, **fields}, ClusterSpec, "cluster")
        workspace.store.put_cluster(spec.name, to_plain(spec))
        pools.cluster_changed(workspace.store, spec.name)
        return {name: getattr(spec, name) for name in ClusterSpec.__struct_fields__}

    return store


def status(workspace: Runs, name: str = "four") -> dict[str, Any]:
    return pools.status(workspace.store, name) or {"nodes": [], "waiting": [], "preempted": []}


def states(workspace: Runs, name: str = "four") -> list[str]:
    return [node["state"] for node in status(workspace, name)["nodes"]]


def running(record: RunRecord) -> RunRecord:
    reached = wait_state(record, 30, until=lambda s: s is RunState.RUNNING or s.is_terminal)
    assert reached is RunState.RUNNING, story(record)
    return record


def queued(record: RunRecord, position: int = 1) -> RunRecord:
    def is_waiting() -> bool:
        places = [e["position"] for e in record.events() if e["event"] == "waiting"]
        return places[-1:] == [position]

    wait_until(is_waiting, f"{record.id} waits at place {position}")
    return record


def began(record: RunRecord) -> float:
    return float(next(move["t"] for move in record.states() if move["state"] == "Running"))


# -- warm nodes ----------------------------------------------------------------------------


def test_nodes_stay_warm_between_runs(workspace: Runs, put: Put) -> None:
    cluster = put()
    where = "import os; from mpi4py import MPI; print(os.stat('/proc/self/ns/pid').st_ino)"
    first = workspace.completed(where, mpi=(2, 1), cluster=cluster)
    assert states(workspace) == ["idle", "idle"]
    second = workspace.completed(where, mpi=(2, 1), cluster=cluster)
    assert [log(first, rank) for rank in (0, 1)] == [log(second, rank) for rank in (0, 1)]


def test_a_warm_node_is_as_good_as_new(workspace: Runs, put: Put) -> None:
    cluster = put(max_nodes=1)
    workspace.completed(
        """
        import os, subprocess, tempfile
        open("/dev/shm/left", "w").write("x")
        os.makedirs(tempfile.gettempdir() + "/a/b")
        open(tempfile.gettempdir() + "/a/b/left", "w").write("x")
        subprocess.run(["ipcmk", "-M", "4096"], check=True)
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        """,
        cluster=cluster,
    )
    found = workspace.completed(
        """
        import os, tempfile
        print(os.listdir("/dev/shm"), os.listdir(tempfile.gettempdir()))
        print(len(open("/proc/sysvipc/shm").readlines()) - 1)
        print(sum(b"sleep" in open(f"/proc/{pid}/cmdline", "rb").read()
                  for pid in os.listdir("/proc") if pid.isdigit()))
        """,
        cluster=cluster,
    )
    with open(found.artifact("azureml-logs/70_driver_log.txt").path) as stream:
        assert stream.read().splitlines()[:3] == ["['tmp'] []", "0", "0"]


def test_a_cluster_that_is_not_stored_keeps_nothing(workspace: Runs) -> None:
    workspace.completed("print(1)", cluster={"name": "four"})
    assert not os.path.exists(workspace.store.folder("pools"))


def test_nodes_of_another_size_of_shared_memory_are_replaced(workspace: Runs, put: Put) -> None:
    cluster = put(max_nodes=1)
    size = "import os; s = os.statvfs('/dev/shm'); print(s.f_blocks * s.f_frsize)"
    for wanted in (2**20, 2**22):
        record = workspace.completed(size, cluster=cluster, shm_size_bytes=wanted)
        with open(record.artifact("azureml-logs/70_driver_log.txt").path) as stream:
            assert stream.readline() == f"{wanted}\n"
    assert states(workspace) == ["idle"]


# -- the queue -----------------------------------------------------------------------------


def test_a_run_waits_in_state_queued_until_nodes_are_free(
    workspace: Runs, put: Put, tmp_path: Path
) -> None:
    cluster = put(max_nodes=2)
    go = tmp_path / "go"
    first = running(workspace.submit(WAITS, str(go), mpi=(2, 1), cluster=cluster))
    second = queued(workspace.submit("print(2)", mpi=(1, 1), cluster=cluster))
    assert second.state is RunState.QUEUED
    assert [(w["run"], w["nodes"]) for w in status(workspace)["waiting"]] == [(second.id, 1)]
    go.touch()
    for record in (first, second):
        assert workspace.ended(record).state is RunState.COMPLETED, story(record)
    moves = [move["state"] for move in second.states()]
    assert moves == ["NotStarted", "Preparing", "Queued", "Running", "Finalizing", "Completed"]


def test_runs_share_the_cluster_side_by_side(workspace: Runs, put: Put, tmp_path: Path) -> None:
    cluster = put()
    go = tmp_path / "go"
    both = [workspace.submit(WAITS, str(go), mpi=(2, 1), cluster=cluster) for _ in range(2)]
    for record in both:
        running(record)
    names = [record.document("placement.json")["nodes"] for record in both]
    assert sorted([*names[0], *names[1]]) == ["node0", "node1", "node2", "node3"]
    assert states(workspace) == ["running"] * 4
    go.touch()
    for record in both:
        assert workspace.ended(record).state is RunState.COMPLETED, story(record)
    assert states(workspace) == ["idle"] * 4


def test_two_drivers_take_turns(workspace: Runs, put: Put, tmp_path: Path) -> None:
    cluster = put(max_nodes=3)
    go, others_go = tmp_path / "go", tmp_path / "others-go"
    first = running(workspace.submit(WAITS, str(go), mpi=(1, 1), cluster=cluster))
    second = running(workspace.submit(WAITS, str(others_go), mpi=(2, 1), cluster=cluster))
    mine = queued(workspace.submit("print(3)", mpi=(2, 1), cluster=cluster))
    program = f"""
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.spec.value import from_plain
from simgrid_ml.testing.runs import Runs
runs = Runs({str(tmp_path / "other")!r}, from_plain({to_plain(workspace.environment)!r},
            EnvironmentSpec, "environment"))
runs.store = type(runs.store)({workspace.store.root!r})
from simgrid_ml.spec.cluster import stored_cluster
spec = stored_cluster(runs.store.clusters(), "four")
cluster = {{name: getattr(spec, name) for name in spec.__struct_fields__}}
print(runs.submit("print(3)", mpi=(2, 1), cluster=cluster).id)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = queued(workspace.store.open(done.stdout.strip()))
    queued(mine, position=2)  # its driver uses nodes already, the other none
    others_go.touch()
    for record in (second, theirs, mine):
        assert workspace.ended(record).state is RunState.COMPLETED, story(record)
    assert began(theirs) < began(mine)
    go.touch()
    assert workspace.ended(first).state is RunState.COMPLETED, story(first)


def test_a_run_that_waits_can_be_cancelled(workspace: Runs, put: Put, tmp_path: Path) -> None:
    cluster = put(max_nodes=1)
    go = tmp_path / "go"
    first = running(workspace.submit(WAITS, str(go), mpi=(1, 1), cluster=cluster))
    second = queued(workspace.submit("print(2)", mpi=(1, 1), cluster=cluster))
    second.request_cancel()
    assert workspace.ended(second).state is RunState.CANCELED
    assert status(workspace)["waiting"] == []
    go.touch()
    assert workspace.ended(first).state is RunState.COMPLETED


def test_a_run_that_no_longer_fits_fails_with_the_cause(
    workspace: Runs, put: Put, tmp_path: Path
) -> None:
    cluster = put(max_nodes=2)
    go = tmp_path / "go"
    first = running(workspace.submit(WAITS, str(go), mpi=(1, 1), cluster=cluster))
    second = queued(workspace.submit("print(2)", mpi=(2, 1), cluster=cluster))
    put(max_nodes=1)
    assert workspace.ended(second).state is RunState.FAILED
    assert cause(second) == "the run waits for 2 nodes, but cluster 'four' now has at most 1"
    go.touch()
    assert workspace.ended(first).state is RunState.COMPLETED, story(first)


def test_two_clusters_live_side_by_side(workspace: Runs, put: Put, tmp_path: Path) -> None:
    go = tmp_path / "go"
    clusters = [put(name=name, max_nodes=2) for name in ("one", "two")]
    both = [workspace.submit(WAITS, str(go), mpi=(2, 1), cluster=cluster) for cluster in clusters]
    for record in both:
        running(record)
    assert [states(workspace, name) for name in ("one", "two")] == [["running"] * 2] * 2
    go.touch()
    for record in both:
        assert workspace.ended(record).state is RunState.COMPLETED, story(record)


# -- scale ---------------------------------------------------------------------------------


def test_nodes_that_nobody_uses_end_and_the_pool_with_them(workspace: Runs, put: Put) -> None:
    cluster = put(idle_seconds_before_scaledown=0)
    record = workspace.completed("print(1)", mpi=(2, 1), cluster=cluster)
    wait_until(lambda: pools.status(workspace.store, "four") is None, "the pool has ended")
    folder = pools.pool_folder(workspace.store, "four")
    wait_until(lambda: not RunLock.is_held(folder), "its lock is free")
    assert sorted(os.listdir(folder)) == ["lock", "pool.log"], story(record)


def test_the_minimum_is_there_before_any_run_and_stays(workspace: Runs, put: Put) -> None:
    cluster = put(min_nodes=2, idle_seconds_before_scaledown=0)
    wait_until(lambda: states(workspace) == ["idle"] * 2, "the minimum is up")
    workspace.completed("print(1)", mpi=(3, 1), cluster=cluster)
    wait_until(lambda: states(workspace) == ["idle"] * 2, "the third node has ended")


def test_a_changed_cluster_takes_effect_at_once(workspace: Runs, put: Put) -> None:
    put(min_nodes=1)
    wait_until(lambda: states(workspace) == ["idle"], "the minimum is up")
    put(min_nodes=3)
    wait_until(lambda: states(workspace) == ["idle"] * 3, "the new minimum is up")
    put(min_nodes=0, idle_seconds_before_scaledown=0)
    wait_until(lambda: pools.status(workspace.store, "four") is None, "the pool has ended")


def test_a_deleted_cluster_keeps_no_idle_node_and_its_runs_go_on(
    workspace: Runs, put: Put, tmp_path: Path
) -> None:
    cluster = put(min_nodes=2)
    go = tmp_path / "go"
    record = running(workspace.submit(WAITS, str(go), mpi=(1, 1), cluster=cluster))
    workspace.store.delete_cluster("four")
    pools.cluster_changed(workspace.store, "four")
    wait_until(lambda: states(workspace) == ["running"], "the idle node has ended")
    go.touch()
    assert workspace.ended(record).state is RunState.COMPLETED, story(record)
    wait_until(lambda: pools.status(workspace.store, "four") is None, "the pool has ended")


def test_stop_ends_idle_nodes_and_the_next_run_brings_new_ones(workspace: Runs, put: Put) -> None:
    cluster = put(min_nodes=1)
    workspace.completed("print(1)", mpi=(2, 1), cluster=cluster)
    said = pools.stop(pools.pool_folder(workspace.store, "four"))
    assert said == {"ended": 2, "runs": []}
    assert traces(workspace.folder) == []
    workspace.completed("print(1)", mpi=(2, 1), cluster=cluster)


def test_only_nodes_of_low_priority_can_be_preempted(workspace: Runs, put: Put) -> None:
    put(min_nodes=1)
    with pytest.raises(ConflictError, match="dedicated"):
        pools.preempt(workspace.store, "four", "node0")
    put(name="low", vm_priority="lowpriority")
    with pytest.raises(NotFoundError, match="no node 'node7' now"):
        pools.preempt(workspace.store, "low", "node7")
    with pytest.raises(ValueError, match="lowpriority"):
        ClusterSpec(name="x", preemptions=({"after_s": 1, "node": "node0"},))  # type: ignore[arg-type]
