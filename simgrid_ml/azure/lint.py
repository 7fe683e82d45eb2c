"""Odd inputs Azure ML takes without a word: what will not happen although it was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from simgrid_ml.azure import tasks
from simgrid_ml.azure.element import is_a
from simgrid_ml.azure.errors import AzureMLException
from simgrid_ml.errors import NotEmulated, PlacementError
from simgrid_ml.spec.cluster import HOST_SIZE, ClusterSpec
from simgrid_ml.spec.gpus import GpuSharing
from simgrid_ml.spec.job import JobSpec, Mpi, ParameterServer
from simgrid_ml.spec.placement import HostInventory, place

__all__ = ["odd_for_cluster", "odd_inputs"]


def odd_inputs(
    run_config: Any,
    *,
    script: str | None,
    source_directory: str,
    distributed: Any = None,
    process_count_per_node: int = 1,
    asked_tasks: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """One sentence per odd input.

    Args:
        run_config: the finished run configuration.
        script: the entry script, if there is one.
        source_directory: where it is looked for.
        distributed: what was given as ``distributed_training`` or ``distributed_backend``.
        process_count_per_node: the estimator's own parameter.
        asked_tasks: of ``worker_count`` and ``parameter_server_count`` those that an estimator was
            given.
    """
    found = [
        *_of_distribution(run_config, distributed),
        *_of_counts(run_config, distributed, process_count_per_node, asked_tasks or {}),
    ]
    if not os.path.isdir(source_directory):
        found.append(f"source directory {source_directory!r} does not exist (yet)")
    elif script and not os.path.isfile(os.path.join(source_directory, script)):
        found.append(f"entry script {script!r} is not in {source_directory!r} (yet)")
    return tuple(found)


def odd_for_cluster(job: JobSpec, cluster: ClusterSpec) -> Iterator[str]:
    """What ``job`` asks for and ``cluster`` has not, a sentence each."""
    if job.environment.use_gpu and not cluster.gpus_per_node and cluster.vm_size != HOST_SIZE:
        yield (
            f"use_gpu was asked for, and nodes of {cluster.vm_size} have no GPU: frameworks see "
            "none there, and compute on the CPU"
        )
    if not cluster.gpus_per_node and cluster.gpu_sharing not in (GpuSharing.AUTO, GpuSharing.NONE):
        yield (
            f"gpu_sharing is {cluster.gpu_sharing.value}, and nodes of {cluster.vm_size} have no "
            "GPU to share: a VM size has them, as Standard_NC6"
        )
    gpus, processes = cluster.gpus_per_node, getattr(job.distribution, "processes_per_node", 1)
    if job.environment.use_gpu and 0 < gpus < processes:
        yield (
            f"{processes} processes per node and {gpus} GPU{'s' * (gpus > 1)} on each node of "
            f"{cluster.vm_size}: some processes have no GPU of their own, and NCCL refuses two "
            "that share one"
        )


def _of_distribution(run_config: Any, distributed: Any) -> Iterator[str]:
    """What was given and is not what decides how the job is distributed."""
    used = tasks.section(run_config)
    nodes = run_config.node_count  # of any type, as nobody has checked it yet
    what = repr(distributed) if isinstance(distributed, str) else f"{type(distributed).__name__}"
    if distributed and not used:
        yield (
            f"{what} does not distribute this job: "
            f"each of its {nodes} node(s) runs the script on its own, with no rendezvous"
            + _where_it_would(distributed)
        )
    elif nodes != 1 and not used:
        yield f"no communicator: each of the {nodes} nodes runs the script on its own"
    elif distributed and not _decides(run_config, used, distributed):
        yield f"the {what} is ignored: " + (
            "distributed_backend and the estimator's own counts decide"
            if type(distributed).__name__ == run_config.communicator
            else f"the job's communicator is {run_config.communicator!r}"
        )
    if is_a(distributed, "MpiConfiguration") and distributed.node_count not in (1, nodes):
        yield (
            f"the MpiConfiguration's node_count={distributed.node_count} is ignored: the job "
            f"has node_count={nodes}"
        )


def _where_it_would(distributed: Any) -> str:
    if is_a(distributed, "TensorflowConfiguration", "PyTorchConfiguration"):
        return "; give it to ScriptRunConfig as distributed_job_config"
    return ""


def _decides(run_config: Any, used: str | None, distributed: Any) -> bool:
    if is_a(distributed, "ParameterServer"):
        counts, section = vars(distributed), run_config.tensorflow
        return used == "tensorflow" and counts == {n: getattr(section, n) for n in counts}
    if is_a(distributed, "DistributedTraining", "_DistributedTraining"):
        return str(run_config.communicator).lower() == type(distributed).__name__.lower()
    if isinstance(distributed, str):
        return True
    return used is not None and getattr(run_config, used) is distributed


def _of_counts(
    run_config: Any, distributed: Any, per_node: int, asked_tasks: Mapping[str, Any]
) -> Iterator[str]:
    for name, count in asked_tasks.items():
        effective = getattr(run_config.tensorflow, name)
        if tasks.section(run_config) != "tensorflow":
            yield f"{name}={count!r} is ignored without distributed_backend='ps'"
        elif effective != count:
            yield f"{name}={count!r} is ignored: the {type(distributed).__name__} says {effective}"
    try:
        job = tasks.distribution(run_config)
    except (AzureMLException, NotEmulated) as error:
        cause = error.cause if isinstance(error, NotEmulated) else error.message
        yield f"this cannot be submitted as it is: {cause}"
        return
    if isinstance(job, ParameterServer):
        yield from _of_tasks(job)
    processes = job.processes_per_node if isinstance(job, Mpi) else 1
    if per_node not in (1, processes):
        why = "it is read with MPI alone"
        if isinstance(job, Mpi):
            why = f"the {type(distributed).__name__} says {processes}"
        yield f"process_count_per_node={per_node} is ignored: {why}"


def _of_tasks(job: ParameterServer) -> Iterator[str]:
    anywhere = JobSpec(source=os.curdir, command=("true",), distribution=job)
    try:
        placement = place(
            anywhere, ClusterSpec(name="any", max_nodes=job.nodes), HostInventory(1, 1)
        )
    except PlacementError as error:
        yield f"this cannot be submitted as it is: {error.cause}"
        return
    if job.workers > job.nodes:
        yield f"{job.workers} workers share {job.nodes} node(s): some nodes run several"
    idle = job.nodes - len(placement.nodes)
    if idle:
        yield (
            f"{idle} of {job.nodes} nodes get no task: the job has {job.workers} worker(s) and "
            f"{job.servers} parameter server(s)"
        )
