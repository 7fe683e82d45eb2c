"""Clusters whose nodes live longer than a run: warm nodes, queues, scale, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.backends.docker import our_containers
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.engine import pools
from simgrid_ml.errors import ConflictError, NotFoundError, SpecError
from simgrid_ml.record.follow import wait_state
from simgrid_ml.record.run import RunLock, RunRecord, RunState
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.links import Links
from simgrid_ml.spec.value import to_plain
from simgrid_ml.testing.leaks import traces
from simgrid_ml.testing.pools import put_cluster
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs, cause, log, story

WAITS = """
    import os, sys, time
    from mpi4py import MPI
    print("up", flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.02)
"""


def status(pooled: Runs, name: str = "four") -> dict[str, Any]:
    return pools.status(pooled.store, name) or {"nodes": [], "waiting": [], "preempted": []}


def states(pooled: Runs, name: str = "four") -> list[str]:
    return [node["state"] for node in status(pooled, name)["nodes"]]


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


def test_nodes_stay_warm_between_runs(pooled: Runs) -> None:
    cluster = put_cluster(pooled)
    where = "import os; from mpi4py import MPI; print(os.stat('/proc/self/ns/pid').st_ino)"
    first = pooled.completed(where, mpi=(2, 1), cluster=cluster)
    assert states(pooled) == ["idle", "idle"]
    second = pooled.completed(where, mpi=(2, 1), cluster=cluster)
    assert [log(first, rank) for rank in (0, 1)] == [log(second, rank) for rank in (0, 1)]


def test_a_warm_node_is_as_good_as_new(pooled: Runs) -> None:
    cluster = put_cluster(pooled, max_nodes=1)
    pooled.completed(
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
    found = pooled.completed(
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


@pytest.mark.parametrize("backend", ["process", "docker"])
def test_warm_nodes_serve_runs_and_new_ones_join_them(
    pooled: Runs, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "docker":
        request.getfixturevalue("docker_engine")
    cluster = put_cluster(pooled, backend=backend)
    leaves = """
        import os, tempfile
        from mpi4py import MPI
        MPI.COMM_WORLD.Barrier()
        print(os.stat("/proc/self/ns/pid").st_ino)
        print(os.path.exists("/dev/shm/left"), os.path.exists(tempfile.gettempdir() + "/left"))
        open("/dev/shm/left", "w").close()
        open(tempfile.gettempdir() + "/left", "w").close()
    """
    first = pooled.completed(leaves, mpi=(2, 1), cluster=cluster)
    files = sorted(artifact.name for artifact in first.artifacts())
    second = pooled.completed(leaves, mpi=(3, 1), cluster=cluster)
    seen = [log(record, rank).splitlines()[:2] for record in (first, second) for rank in (0, 1)]
    assert [where for where, _ in seen[:2]] == [where for where, _ in seen[2:]]
    assert {left for _, left in seen} == {"False False"}
    assert states(pooled) == ["idle"] * 3
    assert sorted(artifact.name for artifact in first.artifacts()) == files


@pytest.mark.usefixtures("docker_engine")
def test_containers_stay_warm_and_are_gone_with_their_pool(
    pooled: Runs, docker_engine: Engine
) -> None:
    cluster = put_cluster(pooled, backend="docker", vm_priority="lowpriority")
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    said = pools.status(pooled.store, "four")
    assert said is not None

    def ours() -> list[str]:
        return [each for _, each, folder in our_containers(docker_engine) if inside in folder]

    inside = pools.pool_folder(pooled.store, "four")
    assert len(ours()) == 2
    assert pools.preempt(pooled.store, "four", "node1") is None
    wait_until(lambda: len(ours()) == 1, "its container is gone")
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    os.kill(said["pid"], signal.SIGKILL)
    wait_until(lambda: ours() == [], "all are gone")


def test_a_cluster_that_is_not_stored_keeps_nothing(pooled: Runs) -> None:
    pooled.completed("print(1)", cluster={"name": "four"})
    assert not os.path.exists(pooled.store.folder("pools"))


def test_nodes_of_another_size_of_shared_memory_are_replaced(pooled: Runs) -> None:
    cluster = put_cluster(pooled, max_nodes=1)
    size = "import os; s = os.statvfs('/dev/shm'); print(s.f_blocks * s.f_frsize)"
    for wanted in (2**20, 2**22):
        record = pooled.completed(size, cluster=cluster, shm_size_bytes=wanted)
        with open(record.artifact("azureml-logs/70_driver_log.txt").path) as stream:
            assert stream.readline() == f"{wanted}\n"
    assert states(pooled) == ["idle"]


# -- the queue -----------------------------------------------------------------------------


def test_a_run_waits_in_state_queued_until_nodes_are_free(pooled: Runs, tmp_path: Path) -> None:
    cluster = put_cluster(pooled, max_nodes=2)
    go = tmp_path / "go"
    first = running(pooled.submit(WAITS, str(go), mpi=(2, 1), cluster=cluster))
    second = queued(pooled.submit("print(2)", mpi=(1, 1), cluster=cluster))
    assert second.state is RunState.QUEUED
    assert [(w["run"], w["nodes"]) for w in status(pooled)["waiting"]] == [(second.id, 1)]
    go.touch()
    for record in (first, second):
        assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    moves = [move["state"] for move in second.states()]
    assert moves == ["NotStarted", "Preparing", "Queued", "Running", "Finalizing", "Completed"]


def test_runs_share_the_cluster_side_by_side(pooled: Runs, tmp_path: Path) -> None:
    cluster = put_cluster(pooled)
    go = tmp_path / "go"
    both = [pooled.submit(WAITS, str(go), mpi=(2, 1), cluster=cluster) for _ in range(2)]
    for record in both:
        running(record)
    names = [record.document("placement.json")["nodes"] for record in both]
    assert sorted([*names[0], *names[1]]) == ["node0", "node1", "node2", "node3"]
    assert states(pooled) == ["running"] * 4
    go.touch()
    for record in both:
        assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    assert states(pooled) == ["idle"] * 4


def test_the_second_run_on_a_cluster_in_use_has_its_first_rank_on_its_first_node(
    pooled: Runs, tmp_path: Path
) -> None:
    cluster = put_cluster(pooled)
    go = tmp_path / "go"
    first = running(pooled.submit(WAITS, str(go), mpi=(2, 1), cluster=cluster))
    second = pooled.completed(
        """
        import os
        from mpi4py import MPI
        print(os.uname().nodename, os.environ["AZ_BATCH_HOST_LIST"])
        """,
        mpi=(2, 1),
        cluster=cluster,
    )
    info = second.document("placement.json")["node_info"]
    hosts = ",".join(info[node]["address"] for node in ("node2", "node3"))
    assert [log(second, rank) for rank in (0, 1)] == [f"node2 {hosts}\n", f"node3 {hosts}\n"]
    go.touch()
    assert pooled.ended(first).state is RunState.COMPLETED, story(first)


def test_two_drivers_take_turns(pooled: Runs, tmp_path: Path) -> None:
    cluster = put_cluster(pooled, max_nodes=3)
    go, others_go = tmp_path / "go", tmp_path / "others-go"
    first = running(pooled.submit(WAITS, str(go), mpi=(1, 1), cluster=cluster))
    second = running(pooled.submit(WAITS, str(others_go), mpi=(2, 1), cluster=cluster))
    mine = queued(pooled.submit("print(3)", mpi=(2, 1), cluster=cluster))
    later = queued(pooled.submit("print(3)", mpi=(2, 1), cluster=cluster), position=2)
    program = f"""
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.spec.value import from_plain
from simgrid_ml.testing.runs import Runs
runs = Runs({str(tmp_path / "other")!r}, from_plain({to_plain(pooled.environment)!r},
            EnvironmentSpec, "environment"))
runs.store = type(runs.store)({pooled.store.root!r})
from simgrid_ml.spec.cluster import stored_cluster
spec = stored_cluster(runs.store.clusters(), "four")
cluster = {{name: getattr(spec, name) for name in spec.__struct_fields__}}
print(runs.submit("print(3)", mpi=(2, 1), cluster=cluster).id)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = queued(pooled.store.open(done.stdout.strip()), position=2)
    queued(mine)  # who is next stays next
    queued(later, position=3)  # its driver uses nodes already, the other none
    others_go.touch()
    for record in (second, mine, theirs, later):
        assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    assert began(mine) < began(theirs) < began(later)
    go.touch()
    assert pooled.ended(first).state is RunState.COMPLETED, story(first)


def test_a_run_that_waits_can_be_cancelled(pooled: Runs, tmp_path: Path) -> None:
    cluster = put_cluster(pooled, max_nodes=1)
    go = tmp_path / "go"
    first = running(pooled.submit(WAITS, str(go), mpi=(1, 1), cluster=cluster))
    second = queued(pooled.submit("print(2)", mpi=(1, 1), cluster=cluster))
    second.request_cancel()
    assert pooled.ended(second).state is RunState.CANCELED
    assert status(pooled)["waiting"] == []
    go.touch()
    assert pooled.ended(first).state is RunState.COMPLETED


def test_a_run_that_no_longer_fits_fails_with_the_cause(pooled: Runs, tmp_path: Path) -> None:
    cluster = put_cluster(pooled, max_nodes=2)
    go = tmp_path / "go"
    first = running(pooled.submit(WAITS, str(go), mpi=(1, 1), cluster=cluster))
    second = queued(pooled.submit("print(2)", mpi=(2, 1), cluster=cluster))
    put_cluster(pooled, max_nodes=1)
    assert pooled.ended(second).state is RunState.FAILED
    assert cause(second) == "the run waits for 2 nodes, but cluster 'four' now has at most 1"
    go.touch()
    assert pooled.ended(first).state is RunState.COMPLETED, story(first)


def test_two_clusters_live_side_by_side(pooled: Runs, tmp_path: Path) -> None:
    go = tmp_path / "go"
    clusters = [put_cluster(pooled, name=name, max_nodes=2) for name in ("one", "two")]
    both = [pooled.submit(WAITS, str(go), mpi=(2, 1), cluster=cluster) for cluster in clusters]
    for record in both:
        running(record)
    assert [states(pooled, name) for name in ("one", "two")] == [["running"] * 2] * 2
    go.touch()
    for record in both:
        assert pooled.ended(record).state is RunState.COMPLETED, story(record)


@pytest.mark.usefixtures("shaped_links")
@pytest.mark.parametrize("backend", ["process", "docker"])
def test_runs_with_shaped_links_take_turns_on_nodes_of_their_own(
    pooled: Runs, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "docker":
        request.getfixturevalue("docker_engine")
    shaped = {"default": {"rate_bytes_per_s": 1e7, "delay_s": 0.001}}
    cluster = put_cluster(
        pooled, backend=backend, max_nodes=2, links=shaped, vm_priority="lowpriority"
    )
    go = "$SIMGRID_ML_RUN_DIR/go"  # containers see this folder
    first = running(pooled.submit(WAITS, go, mpi=(2, 1), cluster=cluster))
    assert states(pooled) == ["running"] * 2
    second = queued(pooled.submit("print(2)", mpi=(2, 1), cluster=cluster))
    assert pools.preempt(pooled.store, "four", "node1") == first.id
    Path(first.file("go")).touch()
    for record in (first, second):
        assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    assert [move["state"] for move in first.states()].count("Running") == 2
    assert first.document("placement.json")["network"] is not None
    wait_until(lambda: pools.status(pooled.store, "four") is None, "nothing stays warm")


def test_a_minimum_of_nodes_with_shaped_links_is_refused(pooled: Runs) -> None:
    with pytest.raises(SpecError, match="kept warm"):
        pools.check_minimum(ClusterSpec(name="four", min_nodes=1, links=Links()))


# -- scale ---------------------------------------------------------------------------------


def test_nodes_that_nobody_uses_end_and_the_pool_with_them(pooled: Runs) -> None:
    cluster = put_cluster(pooled, idle_seconds_before_scaledown=0)
    record = pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    wait_until(lambda: pools.status(pooled.store, "four") is None, "the pool has ended")
    folder = pools.pool_folder(pooled.store, "four")
    wait_until(lambda: not RunLock.is_held(folder), "its lock is free")
    assert sorted(os.listdir(folder)) == ["lock", "pool.log"], story(record)


def test_the_minimum_is_there_before_any_run_and_stays(pooled: Runs) -> None:
    cluster = put_cluster(pooled, min_nodes=2, idle_seconds_before_scaledown=0)
    wait_until(lambda: states(pooled) == ["idle"] * 2, "the minimum is up")
    pooled.completed("print(1)", mpi=(3, 1), cluster=cluster)
    wait_until(lambda: states(pooled) == ["idle"] * 2, "the third node has ended")


@pytest.mark.usefixtures("docker_engine")
def test_containers_of_the_minimum_serve_the_first_run(pooled: Runs) -> None:
    cluster = put_cluster(pooled, backend="docker", min_nodes=2, max_nodes=4)
    wait_until(lambda: states(pooled) == ["idle"] * 2, "the minimum is up")
    record = pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    assert record.document("placement.json")["nodes"] == ["node0", "node1"], story(record)
    assert states(pooled) == ["idle"] * 2


def test_the_minimum_comes_back_after_a_stop_when_it_is_asked_for(
    pooled: Runs, tmp_path: Path
) -> None:
    cluster = put_cluster(pooled)
    go = tmp_path / "go"
    record = running(pooled.submit(WAITS, str(go), mpi=(1, 1), cluster=cluster))
    assert pools.stop(pools.pool_folder(pooled.store, "four"))["runs"] == [record.id]
    put_cluster(pooled, min_nodes=2)
    wait_until(lambda: states(pooled) == ["running", "idle"], "the minimum is up")
    go.touch()
    assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    assert states(pooled) == ["idle"] * 2


def test_a_changed_cluster_takes_effect_at_once(pooled: Runs) -> None:
    put_cluster(pooled, min_nodes=1)
    wait_until(lambda: states(pooled) == ["idle"], "the minimum is up")
    put_cluster(pooled, min_nodes=3)
    wait_until(lambda: states(pooled) == ["idle"] * 3, "the new minimum is up")
    put_cluster(pooled, min_nodes=0, idle_seconds_before_scaledown=0)
    wait_until(lambda: pools.status(pooled.store, "four") is None, "the pool has ended")


def test_a_deleted_cluster_keeps_no_idle_node_and_its_runs_go_on(
    pooled: Runs, tmp_path: Path
) -> None:
    cluster = put_cluster(pooled, min_nodes=2)
    go = tmp_path / "go"
    record = running(pooled.submit(WAITS, str(go), mpi=(1, 1), cluster=cluster))
    pooled.store.delete_cluster("four")
    pools.cluster_changed(pooled.store, "four")
    wait_until(lambda: states(pooled) == ["running"], "the idle node has ended")
    go.touch()
    assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    wait_until(lambda: pools.status(pooled.store, "four") is None, "the pool has ended")


def test_stop_ends_idle_nodes_and_the_next_run_brings_new_ones(pooled: Runs) -> None:
    cluster = put_cluster(pooled, min_nodes=1)
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    said = pools.stop(pools.pool_folder(pooled.store, "four"))
    assert said == {"ended": 2, "runs": []}
    assert traces(pooled.folder) == []
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)


def test_stop_of_all_nodes_fails_also_who_waits_for_some(pooled: Runs, tmp_path: Path) -> None:
    cluster = put_cluster(pooled, max_nodes=1)
    first = running(pooled.submit(WAITS, str(tmp_path / "go"), mpi=(1, 1), cluster=cluster))
    second = queued(pooled.submit("print(1)", mpi=(1, 1), cluster=cluster))
    pools.stop(pools.pool_folder(pooled.store, "four"), runs_too=True)
    for record in (first, second):
        assert pooled.ended(record).state is RunState.FAILED, story(record)
    assert cause(second) == "all nodes of cluster 'four' were ended while the run waited for some"


def test_only_nodes_of_low_priority_can_be_preempted(pooled: Runs) -> None:
    put_cluster(pooled, min_nodes=1)
    with pytest.raises(ConflictError, match="dedicated"):
        pools.preempt(pooled.store, "four", "node0")
    put_cluster(pooled, name="low", vm_priority="lowpriority")
    with pytest.raises(NotFoundError, match="no node 'node7' now"):
        pools.preempt(pooled.store, "low", "node7")
    with pytest.raises(ValueError, match="lowpriority"):
        ClusterSpec(name="x", preemptions=({"after_s": 1, "node": "node0"},))  # type: ignore[arg-type]
