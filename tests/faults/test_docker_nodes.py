"""Containers that are killed, starved, cancelled or abandoned: why is told, nothing is left."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from up import let_go, running

from simgrid_ml.backends.docker import LABELS
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.errors import PlacementError
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.testing.processes import RunProcesses, wait_until
from simgrid_ml.testing.runs import Runs, cause, log, story

DOCKER = {"backend": "docker"}
PRINTS = """
    import os, socket
    from mpi4py import MPI
    names = MPI.COMM_WORLD.allgather(socket.gethostname())
    print(" ".join(names), socket.gethostbyname("node0"), flush=True)
"""


@pytest.fixture(autouse=True)
def engine(docker_engine: Engine) -> Engine:
    return docker_engine


def containers(engine: Engine, record: RunRecord) -> dict[str, str]:
    """Ids of the run's containers, by node."""
    found = engine.containers(f"{LABELS.DIRECTORY}={record.path}")
    return {each["Labels"][LABELS.NODE]: each["Id"] for each in found}


@contextlib.contextmanager
def all_gone(engine: Engine, record: RunRecord) -> Iterator[None]:
    """What the kernel and the engine have of the run now does not exist afterwards."""
    ids = containers(engine, record).values()
    assert ids
    yield
    wait_until(lambda: not containers(engine, record), "no container of it exists")
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")
    wait_until(lambda: not groups(ids), "no control group of it exists")
    assert not [name for _, name in socket.if_nameindex() if re.match(r"switch$|p\d+$", name)]


def groups(ids: Iterable[str]) -> list[str]:
    """Control groups of containers, wherever the engine makes them."""
    every = glob.glob("/sys/fs/cgroup/**/", recursive=True)
    return [path for path in every if any(each in path for each in ids)]


@pytest.mark.parametrize("node", ["node0", "node1"])
def test_a_killed_container_ends_the_run_and_the_node_is_named(
    workspace: Runs, engine: Engine, node: str
) -> None:
    record = running(workspace, DOCKER, (2, 2))
    with all_gone(engine, record):
        engine.kill(containers(engine, record)[node], signal.SIGKILL)
        assert workspace.ended(record).state is RunState.FAILED, story(record)
    assert cause(record).startswith(f"{node} went away"), story(record)
    assert (record.error() or {})["kind"] == "NodeError"
    kept = [Path(record.artifact(f"outputs/rank-{rank}.txt").path) for rank in range(4)]
    assert [path.read_text() for path in kept] == ["written before"] * 4


def test_what_was_written_belongs_to_the_caller(workspace: Runs, engine: Engine) -> None:
    record = running(workspace, DOCKER)
    let_go(record)
    assert workspace.ended(record).state is RunState.COMPLETED, story(record)
    owners = {
        os.lstat(os.path.join(folder, name)).st_uid
        for folder, folders, files in os.walk(record.path)
        for name in (*folders, *files)
    }
    assert owners == {os.getuid()}


def test_sixteen_nodes_of_one_rank(workspace: Runs, engine: Engine) -> None:
    record = workspace.completed(PRINTS, mpi=(16, 1), cluster=DOCKER)
    names = " ".join(f"node{number}" for number in range(16))
    assert {log(record, rank).rpartition(" ")[0] for rank in range(16)} == {names}
    assert containers(engine, record) == {}


def test_two_runs_at_once_have_nodes_names_and_addresses_of_their_own(
    workspace: Runs, engine: Engine
) -> None:
    first, second = (running(workspace, DOCKER) for _ in range(2))
    ids = [set(containers(engine, record).values()) for record in (first, second)]
    assert len(ids[0] | ids[1]) == 4
    with all_gone(engine, first), all_gone(engine, second):
        let_go(first)
        assert workspace.ended(first).state is RunState.COMPLETED, story(first)
        assert set(containers(engine, second).values()) == ids[1], "the other run goes on"
        let_go(second)
        assert workspace.ended(second).state is RunState.COMPLETED, story(second)
    hosts = [
        {node["address"] for node in record.document("placement.json")["node_info"].values()}
        for record in (first, second)
    ]
    assert len(hosts[0] | hosts[1]) == 4


def starting(workspace: Runs, engine: Engine) -> RunRecord:
    """A run of which some containers exist, and no agent has said hello."""
    record = workspace.submit(PRINTS, mpi=(8, 1), cluster=DOCKER)
    wait_until(lambda: containers(engine, record), "its first container exists")
    return record


def test_a_run_that_is_cancelled_while_containers_start(workspace: Runs, engine: Engine) -> None:
    record = starting(workspace, engine)
    with all_gone(engine, record):
        record.request_cancel()
        assert workspace.ended(record).state is RunState.CANCELED, story(record)
    assert "Running" not in [move["state"] for move in record.states()]


def test_a_supervisor_that_is_killed_while_containers_start_leaves_nothing(
    workspace: Runs, engine: Engine
) -> None:
    record = starting(workspace, engine)
    with all_gone(engine, record):
        os.kill(RunProcesses(record).supervisor(), signal.SIGKILL)
        wait_until(lambda: record.state is RunState.NOT_RESPONDING, "it does not respond")
    record.request_cancel()
    assert record.state is RunState.CANCELED


def test_a_supervisor_that_is_killed_during_a_run_leaves_nothing(
    workspace: Runs, engine: Engine
) -> None:
    record = running(workspace, DOCKER)
    assert groups(containers(engine, record).values())
    with all_gone(engine, record):
        os.kill(RunProcesses(record).supervisor(), signal.SIGKILL)
        wait_until(lambda: record.state is RunState.NOT_RESPONDING, "it does not respond")
    record.request_cancel()
    assert record.state is RunState.CANCELED


def test_a_rank_that_fills_its_nodes_memory_disk_fails_alone(
    workspace: Runs, engine: Engine
) -> None:
    record = workspace.failed(
        """
        from mpi4py import MPI
        world = MPI.COMM_WORLD
        if world.rank == 1:
            with open("/dev/shm/big", "wb") as stream:
                while True:
                    stream.write(b"x" * 65536)
        world.Barrier()
        """,
        mpi=(2, 1),
        cluster=DOCKER,
        shm_size_bytes=2**24,
    )
    assert cause(record) == "rank 1 on node1 exited with code 1", story(record)
    assert "No space left on device" in log(record, 1)


def test_the_root_of_a_node_cannot_be_written(workspace: Runs, engine: Engine) -> None:
    record = workspace.failed("open('/usr/mine', 'w')", cluster=DOCKER)
    path = record.artifact("azureml-logs/70_driver_log.txt").path
    assert "Read-only file system" in Path(path).read_text(), story(record)


def test_more_nodes_than_a_network_has_addresses_for(workspace: Runs, engine: Engine) -> None:
    cluster = {**DOCKER, "max_nodes": 5000}
    with pytest.raises(PlacementError, match="room for 1022 nodes, not for 1100") as caught:
        workspace.submit("print(1)", nodes=1100, cluster=cluster)
    assert caught.value.remedy
    assert workspace.store.list() == []


def test_an_agent_that_cannot_dial_back_is_told_with_its_last_words(
    workspace: Runs, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    info = site / "deaf_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deaf-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[simgrid_ml.backends]\ndeaf = deaf_backend:Deaf\n")
    (site / "deaf_backend.py").write_text(
        "import os\n"
        "from simgrid_ml.backends.docker import DockerBackend\n"
        "class Deaf(DockerBackend):\n"
        "    'Its nodes find no socket.'\n"
        "    def nodes(self, request):\n"
        "        os.unlink(request.socket)\n"
        "        return super().nodes(request)\n"
    )
    monkeypatch.syspath_prepend(str(site))
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    record = workspace.failed("print(1)", mpi=(2, 1), cluster={"backend": "deaf"})
    error = record.error() or {}
    ended = r"the agents of node[01](, node1)? ended before they had reported"
    assert re.fullmatch(ended, cause(record)), story(record)
    assert error["kind"] == "NodeError" and "FileNotFoundError" in error["evidence"]
