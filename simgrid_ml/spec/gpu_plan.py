"""What is behind each virtual GPU of a run: a pure function of the cluster and the host."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from simgrid_ml.errors import PlacementError
from simgrid_ml.spec.cluster import HOST_SIZE, ClusterSpec
from simgrid_ml.spec.gpu_collectives import collectives
from simgrid_ml.spec.gpu_shares import RUNGS, Shares, Wish, sharers
from simgrid_ml.spec.gpus import (
    Backing,
    Frameworks,
    GpuPlan,
    GpuSharing,
    HostGpus,
    NodeGpus,
    gpu_model,
)
from simgrid_ml.spec.vm_sizes import vm_size
from simgrid_ml.units import format_bytes

__all__ = ["plan_gpus", "virtual_id"]

_ASKED: Mapping[GpuSharing, tuple[Backing, ...]] = {
    GpuSharing.AUTO: tuple(backing for backing in RUNGS if backing is not Backing.MPS),
    GpuSharing.EMULATED: (Backing.HOST_MEMORY,),
    GpuSharing.EXCLUSIVE: (Backing.WHOLE,),
    GpuSharing.MIG: (Backing.MIG,),
    GpuSharing.MPS: (Backing.MPS_CGROUP, Backing.MPS),
    GpuSharing.TIME_SLICED: (Backing.TIME_SLICED,),
}
"""The rungs that may be tried, the best first. MPS with limits per process is never chosen unasked:
a fatal fault of one client ends all clients of its server."""

_TO_DO: Mapping[GpuSharing, str] = {
    GpuSharing.EXCLUSIVE: "use fewer nodes or a VM size with fewer or smaller GPUs",
    GpuSharing.MIG: "make instances (`nvidia-smi mig`, as root): none is ever made here",
    GpuSharing.MPS: "start `nvidia-cuda-mps-control -d` as the same user, and set "
    "CUDA_MPS_PIPE_DIRECTORY as for it",
    GpuSharing.TIME_SLICED: "use fewer nodes or a VM size with smaller GPUs",
}
_OLDEST_SERVED = (5, 0)
_CONF_SINCE = (2, 10)  # an older torch refuses the key
_NO_SERVICE = "/nonexistent"
_ANY = Frameworks()
_NOTHING: Mapping[str, int] = MappingProxyType({})


def plan_gpus(
    cluster: ClusterSpec,
    nodes: Sequence[str],
    host: HostGpus,
    *,
    memory_bytes: int,
    processes_per_node: int = 1,
    frameworks: Frameworks = _ANY,
    taken: Mapping[str, int] = _NOTHING,
    contained: bool = False,
) -> GpuPlan | None:
    """The GPUs of ``nodes``; None: their VM size has none, or they are to have none.

    What other runs have taken decides which devices, never which rung: a run waits for its turn.

    Args:
        nodes: their names, in the placement's order.
        host: what the host has.
        memory_bytes: main memory of the host.
        processes_per_node: on the fullest node.
        frameworks: what will use the GPUs.
        taken: bytes that other runs have of devices, by UUID.
        contained: whether nodes can reach the devices that they are given, and no others.

    Raises:
        SpecError: the VM size's GPU model is unknown.
        PlacementError: the cluster asks for what the host has not.
    """
    sharing = cluster.gpu_sharing
    if cluster.vm_size == HOST_SIZE or sharing is GpuSharing.NONE:
        return None
    size = vm_size(cluster.vm_size)
    if size.gpu_model is None:
        return None
    model = gpu_model(size.gpu_model)
    each = sharers(processes_per_node, size.gpus)
    wish = Wish(model, len(nodes), size.gpus, each, host, taken)
    backing, shares, reason = _chosen(sharing, wish, frameworks)
    carried = collectives(cluster.nccl, backing, (s for node in shares for s in node), frameworks)
    hard, advisory = _holds(backing, shares, contained)
    given = []
    for node, own in zip(nodes, shares, strict=True):
        ids = tuple(virtual_id(cluster.name, node, gpu) for gpu in range(size.gpus))
        given.append(_node(backing, NodeGpus(node, ids, own), wish, frameworks))
    variables = dict(carried.variables)
    if host.mps_directory is not None and backing not in (Backing.MPS_CGROUP, Backing.MPS):
        # Or every process would be a client of a service that the plan does not count with.
        variables.update({"CUDA_MPS_PIPE_DIRECTORY": _NO_SERVICE} if host.gpus else {})
    return GpuPlan(
        model=model,
        backing=backing,
        reason=reason,
        nodes=tuple(given),
        hard=hard,
        advisory=advisory,
        collectives=carried.carrier,
        collectives_reason=carried.reason,
        host_identity=carried.host_identity,
        variables=variables,
        notes=tuple(_notes(backing, wish, shares, memory_bytes, processes_per_node)),
    )


def virtual_id(cluster: str, node: str, gpu: int) -> str:
    """A virtual GPU's UUID: the same in every run on that node.

    >>> virtual_id("gpu-cluster", "node0", 0)
    'GPU-2a883cf3-86c1-576a-9bc0-f2eec648d233'
    """
    digest = hashlib.sha256(f"{cluster}/{node}/{gpu}".encode()).hexdigest()
    parts = (digest[:8], digest[8:12], "5" + digest[13:16], "9" + digest[17:20], digest[20:32])
    return "GPU-" + "-".join(parts)


def _chosen(sharing: GpuSharing, wish: Wish, frameworks: Frameworks) -> tuple[Backing, Shares, str]:
    """The rung, what it gives to whom, and why it and none above."""
    refused = []
    no_gpu = wish.host.why_none or "the host has no GPU" if not wish.host.gpus else ""
    unusable = no_gpu or frameworks.why_no_cuda
    for backing in _ASKED[sharing]:
        if unusable and backing is not Backing.HOST_MEMORY:
            continue
        shares = RUNGS[backing](wish)
        if isinstance(shares, str):
            refused.append(f"no {backing.value}: {shares}")
            continue
        if sharing is not GpuSharing.AUTO:
            return backing, shares, f"asked for: gpu_sharing is {sharing.value}"
        if backing is Backing.WHOLE:
            return backing, shares, f"the host has {wish.count} to give: nothing is better"
        if backing is Backing.TIME_SLICED and wish.host.mps_directory is not None:
            refused.append(f"no {Backing.MPS.value}: gpu_sharing=mps asks for it")
        return backing, shares, unusable or "; ".join(refused)
    wanted = f"{wish.count} GPUs of {wish.size}" if wish.count > 1 else f"a GPU of {wish.size}"
    to_do = "ask for builds with CUDA: use_gpu; " if unusable else f"{_TO_DO[sharing]}; "
    raise PlacementError(
        f"gpu_sharing is {sharing.value}, but {wanted} cannot be had that way",
        evidence="\n".join([*filter(None, [unusable]), *refused, *_there(wish.host)]),
        remedy=f"{'' if no_gpu else to_do}gpu_sharing=auto takes what there is",
    )


def _there(host: HostGpus) -> list[str]:
    lines = []
    for gpu in host.gpus:
        mig = f", {len(gpu.mig)} MIG instances" if gpu.mig_enabled else ""
        lines.append(f"{gpu.name}, {format_bytes(gpu.memory_bytes)}{mig} ({gpu.uuid})")
    return lines


def _node(backing: Backing, node: NodeGpus, wish: Wish, frameworks: Frameworks) -> NodeGpus:
    """With what its processes need to be told, besides which devices they see."""
    shares = node.shares
    if backing is Backing.HOST_MEMORY:
        return node
    devices = {share.device for share in shares}
    several = len(shares) > 1
    # A list of limits that names a device which a process does not see is ignored as a whole.
    one_by_one = backing in (Backing.MIG, Backing.MPS) and several
    per_rank = one_by_one or len(devices) < len(shares)
    variables: dict[str, str] = {}
    fraction = min(share.fraction for share in shares)
    if fraction < 1:
        if frameworks.torch is not None and frameworks.torch >= _CONF_SINCE:
            variables["PYTORCH_ALLOC_CONF"] = f"per_process_memory_fraction:{fraction:.4f}"
        variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{fraction:.4f}"
    percents = [share.percent for share in shares if share.percent is not None]
    if percents:
        assert wish.host.mps_directory is not None
        variables["CUDA_MPS_PIPE_DIRECTORY"] = wish.host.mps_directory
        variables["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(min(percents))
    if backing is Backing.MPS:
        each = min(share.memory_bytes for share in shares) // wish.sharers
        variables["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={each // 2**20}M"
    return NodeGpus(node.node, node.ids, shares, per_rank, variables)


_SEEN = "which GPUs a process sees"
_HARD: Mapping[Backing, tuple[str, ...]] = {
    Backing.WHOLE: ("no other run has the GPU",),
    Backing.MIG: ("memory, SMs and faults: by the hardware", "no other run has the instance"),
    Backing.MPS_CGROUP: (
        "memory of each node, contexts included: by the driver",
        "SMs: by the driver, as a ceiling",
    ),
    Backing.MPS: (
        "memory of each process, its context included: by the driver",
        "SMs: by the driver, as a ceiling",
    ),
    Backing.TIME_SLICED: ("faults end the process that made them alone",),
    Backing.HOST_MEMORY: (_SEEN,),
}
_ADVISORY: Mapping[Backing, tuple[str, ...]] = {
    Backing.WHOLE: (),
    Backing.MIG: (),
    Backing.MPS_CGROUP: (
        "which of a node's GPUs on one device has how much of the node's memory",
        "bandwidth and caches are shared; a fatal fault of one process may end the others",
    ),
    Backing.MPS: (
        "memory of a node: each of its processes has its own limit",
        "bandwidth and caches are shared; a fatal fault of one process may end the others",
    ),
    Backing.TIME_SLICED: (
        "memory: frameworks limit themselves; contexts and libraries are estimated",
        "compute: processes take turns, and none has a share of its own",
    ),
    Backing.HOST_MEMORY: (
        "each GPU's memory: counted for all processes of a node inside the framework",
    ),
}


def _holds(
    backing: Backing, shares: Shares, contained: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is enforced whatever a script does, and what is not."""
    hard, advisory = _HARD[backing], _ADVISORY[backing]
    if backing in (Backing.WHOLE, Backing.MIG) and shares[0][0].fraction < 1:
        larger = "memory: the device has more than the VM size's GPU; frameworks limit themselves"
        advisory = (larger, *advisory)
    if backing is Backing.HOST_MEMORY:
        return hard, advisory
    if contained:
        return (f"{_SEEN}: by its container", *hard), advisory
    return hard, (f"{_SEEN}: by a variable, which a script can change", *advisory)


def _notes(
    backing: Backing, wish: Wish, shares: Shares, memory_bytes: int, processes_per_node: int
) -> list[str]:
    notes = []
    total = wish.count * wish.model.memory_bytes
    if backing is Backing.HOST_MEMORY and total > memory_bytes:
        notes.append(
            f"the GPUs' {format_bytes(total)} are more than the host's {format_bytes(memory_bytes)}"
            ": what scripts really put on them must fit into the host's memory"
        )
    if processes_per_node > wish.each:
        gpus = f"{wish.each} GPU{'s' * (wish.each > 1)}"
        notes.append(
            f"{processes_per_node} processes share {gpus} on a node: some have one in common, "
            "which NCCL refuses"
        )
    if backing is not Backing.HOST_MEMORY:
        oldest = min(share.capability for node in shares for share in node)
        if oldest < _OLDEST_SERVED:
            notes.append(
                f"compute capability {oldest[0]}.{oldest[1]}: frameworks of today have no kernels "
                "for it; gpu_sharing=emulated does without"
            )
    return notes
