"""What ``engine.ranks`` writes for the ranks of a run, before any is started."""

import os
import subprocess
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo
from simgrid_ml.engine import ranks
from simgrid_ml.launch import mpi
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import JobSpec, Mpi
from simgrid_ml.spec.placement import HostInventory, place


def written(
    python: str = "python", hooks: tuple[str, ...] = (), variables: dict[str, str] | None = None
) -> RunRecord:
    """The record of a job on two nodes, once its launch is written."""
    about = {"name": "wsp", "subscription_id": "sub", "resource_group": "group"}
    record = RunStore.of_workspace("wsp").create("exp", {"workspace": about})
    for folder in (wire.TMP, wire.PYTHONPATH):
        os.makedirs(record.file(folder))
    job = JobSpec(
        source="/s",
        entry_script="t.py",
        distribution=Mpi(nodes=2, processes_per_node=3),
        variables=variables or {},
    )
    cluster = ClusterSpec(name="c", max_nodes=2)
    placement = place(job, cluster, HostInventory(2, 2**30))
    nodes = {
        name: NodeInfo(name, f"127.0.0.{number}", "lo", name, "/package", ("rank",), ("rsh",))
        for number, name in enumerate(placement.nodes, 2)
    }
    plan = mpi.plan(job, placement, ranks.tools(record, nodes["node0"]))
    ranks.write_launch(record, job, cluster, placement, plan, nodes, python, hooks=hooks)
    return record


def test_the_workspace_of_the_run_is_the_one_of_its_ranks() -> None:
    seen = written().document(wire.LAUNCH)["environment"]
    assert seen["AZUREML_ARM_WORKSPACE_NAME"] == "wsp"
    assert seen["AZUREML_ARM_SUBSCRIPTION"] == "sub"
    assert seen["AZUREML_ARM_RESOURCEGROUP"] == "group"
    with open(seen["AZ_BATCHAI_MPI_HOST_FILE"]) as hosts:
        assert hosts.read() == "127.0.0.2 slots=3\n127.0.0.3 slots=3\n"


def test_the_stand_in_for_ssh_finds_the_node_of_every_address() -> None:
    known = Path(written().file(wire.TMP), wire.NODES).read_text()
    assert known == "127.0.0.2 node0\n127.0.0.3 node1\n"


OURS = "--disable-cache --binding-args=--bind-to none --map-by slot"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-np", "2", "train it.py"], f"{OURS} --network-interfaces lo -np 2 train it.py"),
        (["--network-interfaces", "eth7", "x"], f"{OURS} --network-interfaces eth7 x"),
        (["--network-interface=eth7", "x"], f"{OURS} --network-interface=eth7 x"),
    ],
)
def test_horovodrun_is_told_the_interface_unless_the_caller_names_one(
    tmp_path: Path, words: list[str], expected: str
) -> None:
    folder = tmp_path / "an environment's bin"
    folder.mkdir()
    real = folder / "horovodrun"
    real.write_text('#!/bin/sh\necho "$*" "${SIMGRID_ML_NODE-no node}"\n')
    real.chmod(0o755)
    program = written(str(folder / "python")).file(wire.TMP, "bin/horovodrun")
    done = subprocess.run(
        [program, *words],
        env={"own": "set", "SIMGRID_ML_NODE": "node0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{expected} no node\n"


def test_an_environment_without_horovod_gets_no_horovodrun() -> None:
    assert not os.path.exists(written().file(wire.TMP, "bin/horovodrun"))


@pytest.mark.parametrize(
    ("of_environment", "variables", "seen"),
    [
        ((), {}, None),
        (("tensorflow_v1", "numpy_aliases"), {}, "tensorflow_v1,numpy_aliases"),
        (("tensorflow_v1",), {wire.HOOKS_VARIABLE: ""}, ""),
        ((), {wire.HOOKS_VARIABLE: "numpy_aliases"}, "numpy_aliases"),
    ],
)
def test_hooks_of_the_environment_reach_the_ranks_unless_the_job_decides_otherwise(
    of_environment: tuple[str, ...], variables: dict[str, str], seen: str | None
) -> None:
    record = written(hooks=of_environment, variables=variables)
    assert record.document(wire.LAUNCH)["environment"].get(wire.HOOKS_VARIABLE) == seen
    link = record.file(wire.PYTHONPATH, "sitecustomize.py")
    assert os.path.lexists(link) == bool(seen)
    if seen:
        assert os.readlink(link) == "/package/shim/hooks/sitecustomize.py"
