"""What ``engine.ranks`` writes for the ranks of a run, before any is started."""

import os

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo
from simgrid_ml.engine import ranks
from simgrid_ml.launch import mpi
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import JobSpec, Mpi
from simgrid_ml.spec.placement import HostInventory, place


def test_the_workspace_of_the_run_is_the_one_of_its_ranks() -> None:
    about = {"name": "wsp", "subscription_id": "sub", "resource_group": "group"}
    record = RunStore.of_workspace("wsp").create("exp", {"workspace": about})
    os.makedirs(record.file(wire.TMP))
    job = JobSpec(source="/s", entry_script="t.py", distribution=Mpi(nodes=2, processes_per_node=3))
    cluster = ClusterSpec(name="c", max_nodes=2)
    placement = place(job, cluster, HostInventory(2, 2**30))
    nodes = {
        name: NodeInfo(name, f"127.0.0.{number}", "lo", name, "/package", ("rank",), ("rsh",))
        for number, name in enumerate(placement.nodes, 2)
    }
    plan = mpi.plan(job, placement, ranks.tools(record, nodes["node0"]))
    ranks.write_launch(record, job, cluster, placement, plan, nodes, "python")
    seen = record.document(wire.LAUNCH)["environment"]
    assert seen["AZUREML_ARM_WORKSPACE_NAME"] == "wsp"
    assert seen["AZUREML_ARM_SUBSCRIPTION"] == "sub"
    assert seen["AZUREML_ARM_RESOURCEGROUP"] == "group"
    with open(seen["AZ_BATCHAI_MPI_HOST_FILE"]) as hosts:
        assert hosts.read() == "127.0.0.2 slots=3\n127.0.0.3 slots=3\n"
