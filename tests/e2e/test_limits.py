"""Nodes of a VM size have that much of the host and no more, and say what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.__main__ import main
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.cli.summary import node_size
from simgrid_ml.errors import PlacementError
from simgrid_ml.testing.runs import Runs, cause, log, story

SMALL = {"backend": "docker", "vm_size": "Standard_D1_v2", "scale": 0.1}
"""0.1 cores and 358 MiB."""

LOOKS = """
    import json, os, shutil, time
    def spent():
        return sum(os.times()[:2])
    begin, spent_before = time.monotonic(), spent()
    while time.monotonic() < begin + 2:
        pass
    print(json.dumps({
        "cores": (spent() - spent_before) / (time.monotonic() - begin),
        "shm": shutil.disk_usage("/dev/shm").total,
        "threads": [os.environ[f"{who}_THREADS"] for who in ("OMP_NUM", "TF_NUM_INTRAOP")],
    }), flush=True)
"""

EATS = """
    import os, sys, time
    from mpi4py import MPI
    comm = MPI.COMM_WORLD
    print("up", flush=True)
    comm.Barrier()
    if comm.rank == 1:
        eaten = []
        while True:
            eaten.append(os.urandom(2**20) * 8)
    comm.recv(source=1)
"""


@pytest.fixture(autouse=True)
def engine(docker_engine: Engine) -> Engine:
    return docker_engine


def test_a_node_gets_its_cores_its_shared_memory_and_its_share_of_threads(
    workspace: Runs,
) -> None:
    record = workspace.completed(
        LOOKS, nodes=2, cluster={**SMALL, "scale": 0.25}, shm_size_bytes=2**26
    )
    for rank in range(2):
        path = record.artifact(f"azureml-logs/70_driver_log_{rank}.txt").path
        with open(path, encoding="utf-8") as stream:
            seen = json.loads(stream.readline())
        assert seen["cores"] < 0.4, "a quarter of a core, and a period's worth in advance"
        assert (seen["shm"], seen["threads"]) == (2**26, ["1", "1"]), story(record)


def test_what_a_node_got_is_in_the_record_its_log_an_event_and_the_outcome(
    workspace: Runs,
) -> None:
    record = workspace.completed("print(1)", cluster=SMALL)
    said = "Standard_D1_v2 scaled to 1/10: 0.1 cores, 358 MiB each"
    assert node_size(record) == said
    assert record.document(wire.PLACEMENT)["capacity"]["scale"] == 0.1
    assert [e["size"] for e in record.events() if e["event"] == "nodes-up"] == [said]
    node = next(a for a in record.artifacts() if "55_azureml-execution" in a.name)
    with open(node.path, encoding="utf-8") as stream:
        assert said in stream.read()


def test_the_command_line_takes_a_size_and_a_scale_and_tells_what_came_of_it(
    workspace: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text("print('done')")
    asked = ("--vm-size", "standard_d1_v2", "--scale", "0.1")
    words = ("run", "--backend", "docker", *asked, "--nodes", "2", "--plain")
    main([*words, str(tmp_path / "train.py")])
    told, out = "Standard_D1_v2 scaled to 1/10: 0.1 cores, 358 MiB each", capsys.readouterr().out
    assert "Completed" in out and f"Nodes: {told}" in out
    assert main(["runs", "show", "latest"]) == 0
    assert told in capsys.readouterr().out


def test_a_rank_killed_for_memory_is_told_with_its_node_and_the_limit(workspace: Runs) -> None:
    record = workspace.failed(EATS, mpi=(2, 1), cluster={**SMALL, "scale": 0.2})
    assert cause(record) == "rank 1 on node1 was killed: out of memory (limit 717 MiB)", story(
        record
    )
    assert log(record, 1).startswith("up")
    assert "larger VM size" in record.error()["remedy"]  # type: ignore[index]
    assert all(event["event"] != "node-lost" for event in record.events()), "its agent survives"


@pytest.mark.parametrize("backend", ["process", "docker"])
def test_where_memory_runs_out_ranks_go_before_their_nodes(workspace: Runs, backend: str) -> None:
    script = "print(*(open(f'/proc/{pid}/oom_score_adj').read().strip() for pid in ('1', 'self')))"
    record = workspace.completed(script, cluster={"backend": backend})
    path = record.artifact("azureml-logs/70_driver_log.txt").path
    agent, rank = Path(path).read_text().split()[:2]
    assert int(rank) >= int(agent) + 500


def test_a_scale_the_host_cannot_hold_is_refused_at_submission(workspace: Runs) -> None:
    big = {"backend": "docker", "vm_size": "Standard_ND96isr_H100_v5", "scale": 1.0}
    with pytest.raises(PlacementError, match="at scale 1 need") as caught:
        workspace.submit("print(1)", nodes=2, cluster=big)
    assert "this host has" in caught.value.evidence
    assert workspace.store.list() == []


def test_process_nodes_say_that_their_size_is_not_enforced(workspace: Runs) -> None:
    record = workspace.completed("print(1)", cluster={"vm_size": "STANDARD_NC6"})
    assert node_size(record) == "Standard_NC6 not enforced: process nodes share the whole host"
