"""The words of each era: names of logs, families and forms of variables."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.azure import Experiment, Workspace
from simgrid_ml.launch import dialect
from simgrid_ml.record.ids import guid
from simgrid_ml.spec.cluster import ClusterSpec, Era
from simgrid_ml.spec.job import JobSpec, Mpi, ParameterServer, Plain, TorchDistributed
from simgrid_ml.spec.placement import HostInventory, Placement, place

IDENTITY = dialect.Identity(run_id="r_1", experiment="exp", workspace="ws", run_dir="/runs/r_1")


def placed(distribution: Any) -> tuple[JobSpec, Placement]:
    job = JobSpec(source="/s", entry_script="t.py", distribution=distribution)
    return job, place(job, ClusterSpec(name="c", max_nodes=1000), HostInventory(2, 2**30))


def logs(era: Era, distribution: Any) -> list[str]:
    job, placement = placed(distribution)
    return [dialect.task_log(era, job, placement, task) for task in placement.tasks]


def variables(era: Era, distribution: Mpi | Plain, task: int = 0) -> dict[str, str]:
    job, placement = placed(distribution)
    cluster = ClusterSpec(name="c", max_nodes=1000, era=era, vm_size="STANDARD_D2_V2")
    addresses = {node: f"10.0.0.{n + 4}" for n, node in enumerate(placement.nodes)}
    return {
        **dialect.common_variables(IDENTITY, job, cluster, placement, addresses),
        **dialect.task_variables(job, cluster, placement, placement.tasks[task]),
    }


@pytest.mark.parametrize(
    ("era", "distribution", "expected"),
    [
        (Era.E1, Mpi(nodes=2), ["80_driver_log_rank_0.txt", "80_driver_log_rank_1.txt"]),
        (Era.E1, Plain(), ["80_driver_log.txt"]),
        (Era.E2, Mpi(nodes=1), ["70_driver_log_0.txt"]),
        (Era.E2, Mpi(nodes=2), ["70_driver_log_0.txt", "70_driver_log_1.txt"]),
        (Era.E2, Plain(), ["70_driver_log.txt"]),
    ],
)
def test_driver_logs_of_the_first_two_eras(
    era: Era, distribution: Mpi | Plain, expected: list[str]
) -> None:
    assert logs(era, distribution) == [f"azureml-logs/{name}" for name in expected]


@pytest.mark.parametrize(
    ("distribution", "first", "last"),
    [
        (Plain(), "std_log.txt", "std_log.txt"),
        (Mpi(nodes=1), "std_log_process_0.txt", "std_log_process_0.txt"),
        (Mpi(nodes=10), "std_log_process_0.txt", "std_log_process_9.txt"),
        (Mpi(nodes=11), "std_log_process_00.txt", "std_log_process_10.txt"),
        (Mpi(nodes=50, processes_per_node=2), "std_log_process_00.txt", "std_log_process_99.txt"),
        (Mpi(nodes=101), "std_log_process_000.txt", "std_log_process_100.txt"),
    ],
)
def test_logs_of_the_common_runtime_are_padded_to_the_largest_rank(
    distribution: Mpi | Plain, first: str, last: str
) -> None:
    found = logs(Era.E3, distribution)
    assert (found[0], found[-1]) == (f"user_logs/{first}", f"user_logs/{last}")


NODES, PER_NODE = st.integers(1, 30), st.integers(1, 8)
DISTRIBUTIONS = st.one_of(
    st.builds(Plain, nodes=NODES),
    st.builds(Mpi, nodes=NODES, processes_per_node=PER_NODE),
    st.builds(TorchDistributed, nodes=NODES, processes_per_node=PER_NODE),
    st.builds(
        ParameterServer,
        nodes=st.integers(3, 30),
        workers=st.integers(1, 99),
        servers=st.integers(1, 3),
        coordinator=st.booleans(),
    ),
)


@given(st.sampled_from(Era), DISTRIBUTIONS)
def test_every_task_has_a_log_whose_name_tells_who_it_is(era: Era, distribution: Any) -> None:
    _, placement = placed(distribution)
    names = logs(era, distribution)
    assert len(set(names)) == len(names)
    who = [(task.role, task.index) for task in placement.tasks]
    assert [dialect.task_of_log(name) for name in names] == who
    assert not any(map(dialect.is_launcher_log, names))
    launcher = dialect.launcher_log(era)
    assert dialect.is_launcher_log(launcher)
    assert dialect.task_of_log(launcher) is None
    assert dialect.task_of_log(dialect.BUILD_LOG) is None


@pytest.mark.parametrize(
    ("era", "ps", "worker"),
    [
        (Era.E1, "azureml-logs/80_driver_log_ps_0.txt", "azureml-logs/80_driver_log_worker_1.txt"),
        (Era.E2, "azureml-logs/70_driver_log-ps-0.txt", "azureml-logs/70_driver_log-worker-1.txt"),
        (Era.E3, "user_logs/std_log_node_00_ps.txt", "user_logs/std_log_node_01_worker.txt"),
    ],
)
def test_logs_of_tensorflow_s_tasks(era: Era, ps: str, worker: str) -> None:
    found = logs(era, ParameterServer(nodes=2, workers=2))
    assert (found[0], found[-1]) == (ps, worker)


def test_the_launcher_s_own_log() -> None:
    assert [dialect.launcher_log(era) for era in Era] == [
        "azureml-logs/56_batchai_stderr.txt",
        "azureml-logs/70_mpi_log.txt",
        "user_logs/mpi_log.txt",
    ]


@given(st.sampled_from(Era), st.sampled_from(["execution", "job_prep", "job_post"]))
def test_every_node_has_a_log_of_its_own_per_stage(era: Era, stage: str) -> None:
    cluster = ClusterSpec(name="c")
    names = {dialect.node_log(era, stage, cluster, f"node{n}") for n in range(20)}
    assert len(names) == 20


def test_node_logs_of_era_e2_carry_the_batch_name_of_the_node() -> None:
    cluster = ClusterSpec(name="c")
    for stage, number in (("execution", "55_azureml-"), ("job_prep", "65_"), ("job_post", "75_")):
        name = dialect.node_log(Era.E2, stage, cluster, "node1")
        assert re.fullmatch(rf"azureml-logs/{number}{stage}-tvmps_[0-9a-f]{{64}}_d\.txt", name)


def test_a_node_has_the_same_batch_name_in_every_run_and_says_its_priority() -> None:
    dedicated = ClusterSpec(name="c")
    low = ClusterSpec(name="c", vm_priority="lowpriority")
    assert dialect.node_id(dedicated, "node0") == dialect.node_id(dedicated, "node0")
    assert dialect.node_id(dedicated, "node0") != dialect.node_id(dedicated, "node1")
    assert dialect.node_id(dedicated, "node0").endswith("_d")
    assert dialect.node_id(low, "node0").endswith("_p")


@pytest.mark.parametrize("era", [Era.E1, Era.E2])
def test_forms_of_the_batch_variables(era: Era) -> None:
    seen = variables(era, Mpi(nodes=3, processes_per_node=2))
    assert seen["AZ_BATCH_MASTER_NODE"] == "10.0.0.4:6000"
    assert seen["AZ_BATCHAI_MPI_MASTER_NODE"] == "10.0.0.4"
    assert seen["AZ_BATCHAI_JOB_MASTER_NODE_IP"] == "10.0.0.4"
    assert seen["AZ_BATCH_NODE_LIST"] == "10.0.0.4;10.0.0.5;10.0.0.6"
    assert seen["AZ_BATCH_HOST_LIST"] == "10.0.0.4,10.0.0.5,10.0.0.6"
    assert seen["CCP_NODES"] == "3 10.0.0.4 2 10.0.0.5 2 10.0.0.6 2"  # of STANDARD_D2_V2
    assert seen["AZ_BATCHAI_MPI_HOST_FILE"] == "/runs/r_1/tmp/hostfile"
    assert re.fullmatch(r"tvmps_[0-9a-f]{64}_d", seen["AZ_BATCH_NODE_ID"])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", seen["AZ_BATCH_JOB_ID"])


def test_a_single_node_has_no_master_node_but_an_mpi_master() -> None:
    seen = variables(Era.E2, Mpi(nodes=1, processes_per_node=2))
    assert "AZ_BATCH_MASTER_NODE" not in seen
    assert seen["AZ_BATCHAI_MPI_MASTER_NODE"] == "10.0.0.4"


def test_a_job_without_mpi_has_no_mpi_variables() -> None:
    seen = variables(Era.E2, Plain(nodes=2))
    assert not [name for name in seen if "MPI" in name]
    assert seen["AZUREML_COMMUNICATOR"] == "None"


@pytest.mark.parametrize("distribution", [Mpi(nodes=2), Plain(nodes=2), Plain()])
def test_the_common_runtime_has_its_own_families_and_not_the_old_one(
    distribution: Mpi | Plain,
) -> None:
    old, new = variables(Era.E2, distribution), variables(Era.E3, distribution)
    assert not [name for name in new if name.startswith("AZ_BATCHAI_")]
    assert not [name for name in old if name.startswith(("AZUREML_CR_", "MLFLOW_"))]
    assert json.loads(new["AZUREML_CR_AZUREML_CONTEXT"])["run_id"] == "r_1"
    assert json.loads(new["AZUREML_CR_COMPUTE_CONTEXT"])["cluster_name"] == "c"
    assert new["AZUREML_ROOT_RUN_ID"] == new["MLFLOW_RUN_ID"] == "r_1"


@pytest.mark.parametrize("era", list(Era))
def test_the_run_s_own_variables_are_the_same_in_every_era(era: Era) -> None:
    seen = variables(era, Mpi(nodes=2))
    assert seen["AZUREML_RUN_ID"] == "r_1"
    assert seen["AZUREML_ARM_PROJECT_NAME"] == "exp"
    assert seen["AZUREML_ARM_WORKSPACE_NAME"] == "ws"
    assert seen["AZUREML_DATA_CONTAINER_ID"] == "dcid.r_1"
    assert seen["AZUREML_NODE_COUNT"] == "2"
    assert seen["AZUREML_WORKSPACE_SCOPE"] in seen["AZUREML_EXPERIMENT_SCOPE"]
    assert all(isinstance(value, str) for value in seen.values())


def test_the_workspace_s_own_names_are_in_the_variables() -> None:
    job, placement = placed(Plain())
    identity = dialect.Identity("r_1", "exp", "ws", "/runs/r_1", "sub", "group")
    addresses = {"node0": "10.0.0.4"}
    seen = dialect.common_variables(identity, job, ClusterSpec(name="c"), placement, addresses)
    assert seen["AZUREML_ARM_SUBSCRIPTION"] == "sub"
    assert seen["AZUREML_ARM_RESOURCEGROUP"] == "group"
    assert seen["AZUREML_WORKSPACE_SCOPE"].startswith("/subscriptions/sub/resourceGroups/group/")


def test_an_experiment_has_the_same_id_in_the_driver_and_in_its_ranks() -> None:
    seen = variables(Era.E3, Plain())
    there = Experiment(Workspace(None, None, "wsp"), "exp").id
    assert guid("wsp", "exp") == there
    assert seen["AZUREML_EXPERIMENT_ID"] == seen["MLFLOW_EXPERIMENT_ID"] == guid("ws", "exp")


def test_no_variable_invites_the_real_sdk_to_reach_the_cloud() -> None:
    seen = variables(Era.E2, Mpi(nodes=2))
    assert not [name for name in seen if "TOKEN" in name or "ENDPOINT" in name]


def test_only_tasks_of_the_first_node_are_on_the_master() -> None:
    seen = [variables(Era.E2, Mpi(nodes=2, processes_per_node=2), task) for task in range(4)]
    assert [one["AZ_BATCH_IS_CURRENT_NODE_MASTER"] for one in seen] == [
        *["true"] * 2,
        *["false"] * 2,
    ]
    assert [one["AZUREML_PROCESS_NAME"] for one in seen] == [f"rank_{n}" for n in range(4)]
    assert [one["AZ_BATCHAI_TASK_INDEX"] for one in seen] == list("0123")
