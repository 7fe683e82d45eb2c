"""What is behind each virtual GPU of a run: a pure function of the cluster and the host."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from simgrid_ml.spec.cluster import HOST_SIZE, ClusterSpec
from simgrid_ml.spec.gpus import (
    Backing,
    GpuModel,
    GpuPlan,
    GpuShare,
    GpuSharing,
    HostGpus,
    NodeGpus,
    gpu_model,
)
from simgrid_ml.spec.vm_sizes import vm_size

__all__ = ["plan_gpus", "virtual_id"]


def plan_gpus(
    cluster: ClusterSpec, nodes: Sequence[str], host: HostGpus, *, memory_bytes: int
) -> GpuPlan | None:
    """The GPUs of ``nodes``; None: their VM size has none, or they are to have none.

    Args:
        nodes: their names, in the placement's order.
        host: what the host has.
        memory_bytes: main memory of the host.

    Raises:
        SpecError: the VM size's GPU model is unknown.
        PlacementError: the cluster asks for a backing that the host has not.
    """
    if cluster.vm_size == HOST_SIZE or cluster.gpu_sharing is GpuSharing.NONE:
        return None
    size = vm_size(cluster.vm_size)
    if size.gpu_model is None:
        return None
    model = gpu_model(size.gpu_model)
    ids = {n: tuple(virtual_id(cluster.name, n, gpu) for gpu in range(size.gpus)) for n in nodes}
    return _on_host_memory(model, ids, host)


def virtual_id(cluster: str, node: str, gpu: int) -> str:
    """A virtual GPU's UUID: the same in every run on that node.

    >>> virtual_id("gpu-cluster", "node0", 0)
    'GPU-2a883cf3-86c1-576a-9bc0-f2eec648d233'
    """
    digest = hashlib.sha256(f"{cluster}/{node}/{gpu}".encode()).hexdigest()
    parts = (digest[:8], digest[8:12], "5" + digest[13:16], "9" + digest[17:20], digest[20:32])
    return "GPU-" + "-".join(parts)


def _on_host_memory(model: GpuModel, ids: Mapping[str, tuple[str, ...]], host: HostGpus) -> GpuPlan:
    share = GpuShare(None, model.memory_bytes, model.sms, model.capability)
    return GpuPlan(
        model=model,
        backing=Backing.HOST_MEMORY,
        reason=host.why_none or "the host has no GPU",
        nodes=tuple(NodeGpus(node, own, (share,) * len(own)) for node, own in ids.items()),
        hard=("which GPUs a process sees",),
        advisory=("each GPU's memory: counted for all processes of a node inside the framework",),
        collectives="gloo",
        collectives_reason="NCCL needs real GPUs",
    )
