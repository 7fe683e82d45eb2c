"""NCCL needs GPUs: a job that asks for it on nodes without any is served by Gloo."""

from __future__ import annotations

from simgrid_ml.environments.build import BuiltEnvironment
from simgrid_ml.environments.catalog import Substitution
from simgrid_ml.environments.resolution import Host
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.gpus import GpuSharing
from simgrid_ml.spec.job import JobSpec, TorchDistributed

__all__ = ["served_by_gloo"]

_HOOK = "torch_gloo"
_REASON = "NCCL needs GPUs and the nodes have none; tensors are the CPU's"
_VIRTUAL = "NCCL needs real GPUs and those of the nodes live in host memory"


def served_by_gloo(
    built: BuiltEnvironment, job: JobSpec, cluster: ClusterSpec, *, host_has_gpu: bool | None = None
) -> BuiltEnvironment:
    """``built`` as ``job`` finds it: with the hook that gives it Gloo, which says so.

    The hook looks for itself, in each rank, whether there are GPUs.

    Args:
        host_has_gpu: None: look.
    """
    distribution = job.distribution
    if not isinstance(distribution, TorchDistributed) or distribution.backend != "nccl":
        return built
    if host_has_gpu is None:
        host_has_gpu = Host.here().has_gpu
    for_cpu = built.packages.get("torch", "").endswith("+cpu")
    if cluster.gpus_per_node:
        emulated = cluster.gpu_sharing is GpuSharing.EMULATED
        if host_has_gpu and not for_cpu and not emulated:  # the plan of the GPUs decides, and says
            return built
        nccl = Substitution("NCCL", "Gloo", _VIRTUAL)
        return built._replace(substitutions=(*built.substitutions, nccl))
    built = built._replace(hooks=(*built.hooks, _HOOK))
    on_host = cluster.backend == "process"  # containers are given no devices
    if on_host and host_has_gpu and not for_cpu:
        return built
    nccl = Substitution("NCCL", "Gloo", _REASON)
    return built._replace(substitutions=(*built.substitutions, nccl))
