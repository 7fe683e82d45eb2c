"""The words of an Azure era: the variables a rank finds and the names of a run's logs.

Three generations of the service differ in them (``spec.cluster.Era``); everything else in the
project is the same for all. Variables come in families:

* ``AZ_BATCH_*``, ``AZ_BATCHAI_*``: the batch service beneath (E1, E2);
* ``AZUREML_*``: the run, as ``Run.get_context()`` and scripts look for it;
* ``AZUREML_CR_*``, ``MLFLOW_*``: the common runtime (E3).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from simgrid_ml import wire
from simgrid_ml.record.ids import guid
from simgrid_ml.spec.cluster import ClusterSpec, Era
from simgrid_ml.spec.job import JobSpec, Mpi, ParameterServer, Plain, RayCluster, TorchDistributed
from simgrid_ml.spec.placement import Placement, Task
from simgrid_ml.spec.vm_sizes import find_vm_size

__all__ = [
    "BUILD_LOG",
    "Identity",
    "common_variables",
    "is_launcher_log",
    "launcher_log",
    "node_id",
    "node_log",
    "process_name",
    "task_log",
    "task_of_log",
    "task_variables",
]

BUILD_LOG = "azureml-logs/20_image_build_log.txt"
_BATCH_ROOT = "/mnt/batch/tasks/shared/LS_root"
_MASTER_PORT = 6000

_FRAMEWORKS = {
    Mpi: ("Python", "IntelMpi"),
    ParameterServer: ("TensorFlow", "ParameterServer"),
    Plain: ("Python", "None"),
    RayCluster: ("Ray", "None"),
    TorchDistributed: ("PyTorch", ""),
}
"""Kind of distribution to what Azure ML calls the framework and the communicator."""


@dataclass(frozen=True)
class Identity:
    """Who the run is, for the variables."""

    run_id: str
    experiment: str
    workspace: str
    run_dir: str
    subscription_id: str = "00000000-0000-0000-0000-000000000000"
    resource_group: str = "simgrid-ml"

    @property
    def host_file(self) -> str:
        """The file that holds the nodes' addresses."""
        return f"{self.run_dir}/{wire.TMP}/hostfile"


# -- logs ----------------------------------------------------------------------------------
def task_log(era: Era, job: JobSpec, placement: Placement, task: Task) -> str:
    """Artifact name of a task's stdout and stderr.

    In E1 and E2 a single process has a log without a number; E3 pads the number to the width
    of the largest rank. Tasks in roles (TensorFlow's, Ray's) are told apart by role and index.
    """
    ranked = isinstance(job.distribution, (Mpi, TorchDistributed))
    in_roles = isinstance(job.distribution, (ParameterServer, RayCluster))
    if era is Era.E3:
        if in_roles:
            return f"user_logs/std_log_node_{task.index:02d}_{task.role}.txt"
        if not ranked and placement.world_size == 1:
            return "user_logs/std_log.txt"
        width = len(str(placement.world_size - 1))
        return f"user_logs/std_log_process_{task.rank:0{width}d}.txt"
    if era is Era.E1:
        suffix = f"_rank_{task.rank}" if ranked else _plain_suffix(placement, task)
        suffix = f"_{task.role}_{task.index}" if in_roles else suffix
        return f"azureml-logs/80_driver_log{suffix}.txt"
    suffix = f"_{task.rank}" if ranked else _plain_suffix(placement, task)
    suffix = f"-{task.role}-{task.index}" if in_roles else suffix
    return f"azureml-logs/70_driver_log{suffix}.txt"


def _plain_suffix(placement: Placement, task: Task) -> str:
    return "" if placement.world_size == 1 else f"_{task.rank}"


def launcher_log(era: Era) -> str:
    """Artifact name of mpirun's own output."""
    return {
        Era.E1: "azureml-logs/56_batchai_stderr.txt",
        Era.E2: "azureml-logs/70_mpi_log.txt",
        Era.E3: "user_logs/mpi_log.txt",
    }[era]


def task_of_log(name: str) -> tuple[str, int] | None:
    """Role and number of the task whose log, of whatever era, the artifact ``name`` is.

    None: it is another file. Ranks have the role ``rank``.

    >>> task_of_log("azureml-logs/70_driver_log_3.txt"), task_of_log("user_logs/std_log.txt")
    (('rank', 3), ('rank', 0))
    >>> task_of_log("azureml-logs/70_driver_log-ps-0.txt")
    ('ps', 0)
    >>> task_of_log("user_logs/std_log_node_01_worker.txt")
    ('worker', 1)
    """
    match = _TASK_LOG.match(name)
    if match is None:
        return None
    role = match.group("role") or match.group("last_role") or "rank"
    return role, int(match.group("index") or 0)


def is_launcher_log(name: str) -> bool:
    """Whether the artifact ``name`` is mpirun's own output."""
    return any(name == launcher_log(era) for era in Era)


_TASK_LOG = re.compile(
    r"(?:azureml-logs/[78]0_driver_log|user_logs/std_log)"
    r"(?:_(?:rank|process|node)|[_-](?P<role>worker|ps|chief|head))?"
    r"(?:[_-](?P<index>\d+))?(?:_(?P<last_role>worker|ps|chief|head))?\.txt\Z"
)


def node_log(era: Era, stage: str, cluster: ClusterSpec, node: str) -> str:
    """Artifact name of what a node did in ``stage``: execution, job_prep or job_post."""
    if era is Era.E3:
        part = {
            "execution": "lifecycler",
            "job_prep": "cs_capability",
            "job_post": "hosttools_capability",
        }
        return f"system_logs/{part[stage]}/{node}/{stage}.log"
    if era is Era.E1:
        return f"azureml-logs/55_batchai_{stage}-{node_id(cluster, node)}.txt"
    number = {
        "execution": "55_azureml-execution",
        "job_prep": "65_job_prep",
        "job_post": "75_job_post",
    }
    return f"azureml-logs/{number[stage]}-{node_id(cluster, node)}.txt"


def node_id(cluster: ClusterSpec, node: str) -> str:
    """The batch service's name of a node: ``tvmps_<64 hex>_d``, the same in every run."""
    digest = hashlib.sha256(f"{cluster.name}/{node}".encode()).hexdigest()
    return f"tvmps_{digest}_{'d' if cluster.vm_priority == 'dedicated' else 'p'}"


def process_name(job: JobSpec, task: Task) -> str:
    """The name a task has in ``process_info.json``: ``rank_0``, ``worker_1``, ``ps_0``."""
    if isinstance(job.distribution, Plain):
        return f"worker_{task.rank}"
    return f"{task.role}_{task.index}"


# -- variables -----------------------------------------------------------------------------
def common_variables(
    identity: Identity,
    job: JobSpec,
    cluster: ClusterSpec,
    placement: Placement,
    addresses: Mapping[str, str],
    attempt: int = 1,
) -> dict[str, str]:
    """What every rank finds in its environment, before its own ``task_variables``."""
    values = _azureml(identity, job, cluster, placement)
    hosts = [addresses[node] for node in placement.nodes]
    values.update(_batch(identity, job, cluster, placement, hosts))
    if cluster.era is Era.E3:
        values.update(_common_runtime(identity, cluster, attempt))
    return values


def task_variables(
    job: JobSpec, cluster: ClusterSpec, placement: Placement, task: Task
) -> dict[str, str]:
    """What differs from rank to rank."""
    is_head = task.node == placement.nodes[0]
    values = {
        "AZ_BATCH_IS_CURRENT_NODE_MASTER": "true" if is_head else "false",
        "AZ_BATCH_NODE_ID": node_id(cluster, task.node),
        "AZUREML_PROCESS_NAME": process_name(job, task),
        "AZUREML_SECONDARY_INSTANCE": "false" if is_head else "true",
    }
    if cluster.era is not Era.E3:
        values["AZ_BATCHAI_TASK_INDEX"] = str(task.index)
        values["AZ_BATCHAI_TASK_TYPE"] = "worker" if task.role == "rank" else task.role
    return values


def _azureml(
    identity: Identity, job: JobSpec, cluster: ClusterSpec, placement: Placement
) -> dict[str, str]:
    workspace = (
        f"/subscriptions/{identity.subscription_id}/resourceGroups/{identity.resource_group}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{identity.workspace}"
    )
    framework, communicator = _FRAMEWORKS[type(job.distribution)]
    if isinstance(job.distribution, TorchDistributed):
        communicator = job.distribution.backend.capitalize()
    return {
        "AZUREML_ARM_PROJECT_NAME": identity.experiment,
        "AZUREML_ARM_RESOURCEGROUP": identity.resource_group,
        "AZUREML_ARM_SUBSCRIPTION": identity.subscription_id,
        "AZUREML_ARM_WORKSPACE_NAME": identity.workspace,
        "AZUREML_COMMUNICATOR": communicator,
        "AZUREML_CURRENT_CLOUD": "AzureCloud",
        "AZUREML_DATA_CONTAINER_ID": f"dcid.{identity.run_id}",
        "AZUREML_EXPERIMENT_ID": guid(identity.workspace, identity.experiment),
        "AZUREML_EXPERIMENT_SCOPE": f"{workspace}/experiments/{identity.experiment}",
        "AZUREML_FRAMEWORK": framework,
        "AZUREML_LOGDIRECTORY_PATH": "azureml-logs",
        "AZUREML_NODE_COUNT": str(len(placement.nodes)),
        "AZUREML_RUN_ID": identity.run_id,
        "AZUREML_TARGET_TYPE": "batchai",
        "AZUREML_WORKSPACE_ID": guid(identity.workspace),
        "AZUREML_WORKSPACE_SCOPE": workspace,
        # No AZUREML_RUN_TOKEN and no service endpoint: with them the real SDK, if a script's
        # environment has it, would try to reach the cloud.
    }


def _batch(
    identity: Identity,
    job: JobSpec,
    cluster: ClusterSpec,
    placement: Placement,
    hosts: list[str],
) -> dict[str, str]:
    root = f"{_BATCH_ROOT}/jobs/{identity.run_id}"
    size = find_vm_size(cluster.vm_size)
    cores = size.vcpus if size else max(1, placement.cpus // len(hosts))
    values = {
        "AZ_BATCH_HOST_LIST": ",".join(hosts),
        "AZ_BATCH_JOB_ID": guid(identity.run_id),
        "AZ_BATCH_NODE_LIST": ";".join(hosts),
        "CCP_NODES": " ".join([str(len(hosts)), *(f"{host} {cores}" for host in hosts)]),
    }
    if len(hosts) > 1:
        values["AZ_BATCH_MASTER_NODE"] = f"{hosts[0]}:{_MASTER_PORT}"
    if cluster.era is Era.E3:
        return values
    if isinstance(job.distribution, Mpi):
        values["AZ_BATCHAI_MPI_MASTER_NODE"] = hosts[0]
        values["AZ_BATCHAI_MPI_HOST_FILE"] = identity.host_file
    return values | {
        "AZ_BATCHAI_CLUSTER_NAME": cluster.name,
        "AZ_BATCHAI_JOB_MASTER_NODE_IP": hosts[0],
        "AZ_BATCHAI_JOB_TEMP": root,
        "AZ_BATCHAI_JOB_TEMP_DIR": f"{_BATCH_ROOT}/jobs/",
        "AZ_BATCHAI_MOUNT_ROOT": f"{_BATCH_ROOT}/mounts",
        "AZ_BATCHAI_NUM_GPUS": str(cluster.gpus_per_node * len(hosts)),
        "AZ_BATCHAI_NUM_GPUS_PER_NODE": str(cluster.gpus_per_node),
        "AZ_BATCHAI_ROOT": _BATCH_ROOT,
        "AZ_BATCHAI_SHARED_JOB_TEMP": f"{root}/shared",
    }


def _common_runtime(identity: Identity, cluster: ClusterSpec, attempt: int) -> dict[str, str]:
    context = {
        "run_id": identity.run_id,
        "experiment_name": identity.experiment,
        "data_container_id": f"dcid.{identity.run_id}",
        "run_uuid": guid(identity.run_id),
    }
    compute = {
        "cluster_name": cluster.name,
        "vm_size": cluster.vm_size,
        "gpu_count": cluster.gpus_per_node,
        "vm_priority": cluster.vm_priority,
        "run_attempt_count": attempt,
    }
    return {
        "AZUREML_CR_AZUREML_CONTEXT": json.dumps(context),
        "AZUREML_CR_COMPUTE_CONTEXT": json.dumps(compute),
        "AZUREML_CR_EXECUTION_WORKING_DIR_PATH": identity.run_dir,
        "AZUREML_ROOT_RUN_ID": identity.run_id,
        "MLFLOW_EXPERIMENT_ID": guid(identity.workspace, identity.experiment),
        "MLFLOW_EXPERIMENT_NAME": identity.experiment,
        "MLFLOW_RUN_ID": identity.run_id,
    }
