"""Which device is behind which virtual GPU, on each rung: pure, and the same for the same host.

Every rung answers with the shares of all nodes, or with a sentence why it cannot.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from simgrid_ml.spec.gpus import (
    CONTEXT_BYTES,
    RESERVE_BYTES,
    Backing,
    GpuModel,
    GpuShare,
    HostGpu,
    HostGpus,
    MigInstance,
)
from simgrid_ml.units import format_bytes

__all__ = ["RUNGS", "Shares", "Wish", "sharers"]

Shares = tuple[tuple[GpuShare, ...], ...]
"""Of each node, in order, those of its GPUs."""

_TOLERANCE = 0.98  # drivers and ECC change a model's memory by up to 2 %
_LEAST_BYTES = 256 * 2**20
"""What a process must have for its tensors, or its slice is of no use."""
_MPS_CAPABILITY = (7, 0)  # before it clients are not protected from each other's memory


@dataclass(frozen=True)
class Wish:
    """What is to be given out.

    Attributes:
        model: of all virtual GPUs.
        nodes, each: how many nodes, and how many GPUs on each.
        sharers: processes that use one virtual GPU.
        host: what there is.
        taken: bytes of devices that other runs have, by UUID.
    """

    model: GpuModel
    nodes: int
    each: int
    sharers: int
    host: HostGpus
    taken: Mapping[str, int]

    @property
    def count(self) -> int:
        return self.nodes * self.each

    @property
    def size(self) -> str:
        return format_bytes(self.model.memory_bytes)

    def is_served_by(self, memory_bytes: int) -> bool:
        """Whether a device with so much memory can be one of the virtual GPUs alone."""
        return memory_bytes >= self.model.memory_bytes * _TOLERANCE


def _whole(wish: Wish) -> Shares | str:
    gpus = [gpu for gpu in wish.host.gpus if not gpu.mig_enabled]
    large = [gpu for gpu in gpus if wish.is_served_by(gpu.memory_bytes)]
    if len(large) < wish.count:
        if not gpus:
            return "every GPU of the host is divided by MIG"
        if len(gpus) < wish.count:
            return f"{wish.count} are needed and the host has {len(gpus)}"
        return f"{wish.count} are needed and {len(large)} have {wish.size} of memory"
    # Free ones first, and no larger ones than needed; neighbours then stay together.
    best = sorted(large, key=lambda gpu: (wish.taken.get(gpu.uuid, 0) > 0, gpu.memory_bytes))
    chosen = [gpu for gpu in large if gpu in best[: wish.count]]
    return _dealt([_alone(wish, gpu, gpu) for gpu in chosen], wish.each)


def _mig(wish: Wish) -> Shares | str:
    there = [(gpu, one) for gpu in wish.host.gpus for one in gpu.mig]
    left = [(gpu, one) for gpu, one in there if wish.is_served_by(one.memory_bytes)]
    if len(left) < wish.count:
        if not there:
            divided = any(gpu.mig_enabled for gpu in wish.host.gpus)
            return "MIG is on and nobody has made an instance" if divided else "there is none"
        return f"{wish.count} of {wish.size} are needed and there are {len(left)}"
    nodes = []
    for _ in range(wish.nodes):
        own: Counter[str] = Counter()
        shares = []
        for _ in range(wish.each):
            gpu, instance = min(left, key=lambda one: _preferred_instance(wish, own, *one))
            left.remove((gpu, instance))
            own[gpu.uuid] += 1
            shares.append(_alone(wish, gpu, instance))
        nodes.append(tuple(shares))
    return tuple(nodes)


def _preferred_instance(
    wish: Wish, own: Mapping[str, int], gpu: HostGpu, instance: MigInstance
) -> tuple[bool, int, int]:
    taken = wish.taken.get(instance.uuid, 0) > 0
    return taken, own.get(gpu.uuid, 0), instance.memory_bytes


def _mps_cgroup(wish: Wish) -> Shares | str:
    host = wish.host
    if host.mps_directory is None:
        return host.why_no_mps or "no Multi-Process Service runs"
    if not host.mps_cgroups:
        return host.why_no_cgroups or "it cannot be limited by control group here"
    return _limited(wish)


def _mps(wish: Wish) -> Shares | str:
    if wish.host.mps_directory is None:
        return wish.host.why_no_mps or "no Multi-Process Service runs"
    return _limited(wish)


def _limited(wish: Wish) -> Shares | str:
    gpus = [g for g in wish.host.gpus if not g.mig_enabled and g.capability >= _MPS_CAPABILITY]
    if not gpus:
        return "it needs a GPU of compute capability 7.0 or more that MIG does not divide"
    shares = _slices(wish, gpus)
    if isinstance(shares, str):
        return shares
    tenants = Counter(share.device for node in shares for share in node)
    return tuple(
        tuple(_with_part(share, tenants[share.device]) for share in node) for node in shares
    )


def _with_part(share: GpuShare, tenants: int) -> GpuShare:
    percent = max(1, 100 // tenants)
    return replace(share, percent=percent, sms=max(1, share.sms * percent // 100))


def _time_sliced(wish: Wish) -> Shares | str:
    gpus = [gpu for gpu in wish.host.gpus if not gpu.mig_enabled]
    return _slices(wish, gpus) if gpus else "every GPU of the host is divided by MIG"


def _slices(wish: Wish, gpus: Sequence[HostGpu]) -> Shares | str:
    part = wish.model.memory_bytes // wish.sharers - CONTEXT_BYTES
    if part < _LEAST_BYTES:
        return (
            f"{wish.sharers} processes share a GPU of {wish.size}, and each needs "
            f"{format_bytes(CONTEXT_BYTES)} before its first tensor"
        )
    full = {gpu.uuid: _slots(wish, gpu, 0) for gpu in gpus}
    if sum(full.values()) < wish.count:
        beside = format_bytes(RESERVE_BYTES)
        return (
            f"{wish.count} x {wish.size} are needed, and beside a reserve of {beside} there is "
            f"room for {sum(full.values())}"
        )
    left = {gpu.uuid: _slots(wish, gpu, wish.taken.get(gpu.uuid, 0)) for gpu in gpus}
    if sum(left.values()) < wish.count:
        left = full  # the run waits until others have ended
    nodes = []
    for _ in range(wish.nodes):
        own: Counter[str] = Counter()
        shares = []
        for _ in range(wish.each):
            # Always of the device with the most room: if any order gives a node as many devices
            # as it has GPUs, this one does (Gale and Ryser).
            room = [gpu for gpu in gpus if left[gpu.uuid]]
            gpu = min(room, key=lambda one: (own[one.uuid], -left[one.uuid]))
            left[gpu.uuid] -= 1
            own[gpu.uuid] += 1
            shares.append(
                GpuShare(
                    device=gpu.uuid,
                    memory_bytes=wish.model.memory_bytes,
                    sms=gpu.sms,
                    capability=gpu.capability,
                    gpu=gpu.uuid,
                    device_bytes=gpu.memory_bytes,
                    process_bytes=part,
                )
            )
        nodes.append(tuple(shares))
    return tuple(nodes)


def _slots(wish: Wish, gpu: HostGpu, taken: int) -> int:
    return max(0, gpu.memory_bytes - RESERVE_BYTES - taken) // wish.model.memory_bytes


def _host_memory(wish: Wish) -> Shares:
    model = wish.model
    memory = model.memory_bytes
    share = GpuShare(None, memory, model.sms, model.capability, process_bytes=memory)
    return ((share,) * wish.each,) * wish.nodes


def _alone(wish: Wish, gpu: HostGpu, device: HostGpu | MigInstance) -> GpuShare:
    """The device is one virtual GPU; a larger one shows, and gives, no more than the VM's has."""
    memory = min(wish.model.memory_bytes, device.memory_bytes)
    larger = memory < device.memory_bytes * _TOLERANCE
    return GpuShare(
        device=device.uuid,
        memory_bytes=memory,
        sms=device.sms,
        capability=gpu.capability,
        exclusive=True,
        gpu=gpu.uuid,
        device_bytes=device.memory_bytes,
        process_bytes=max(_LEAST_BYTES, memory - CONTEXT_BYTES) if larger else device.memory_bytes,
    )


def _dealt(shares: Sequence[GpuShare], each: int) -> Shares:
    return tuple(tuple(shares[at : at + each]) for at in range(0, len(shares), each))


def sharers(processes_per_node: int, gpus_per_node: int) -> int:
    """Processes that use the same GPU of a node.

    >>> sharers(1, 4), sharers(4, 4), sharers(5, 4)
    (1, 1, 2)
    """
    return max(1, math.ceil(processes_per_node / gpus_per_node))


RUNGS: Mapping[Backing, Callable[[Wish], Shares | str]] = {
    Backing.WHOLE: _whole,
    Backing.MIG: _mig,
    Backing.MPS_CGROUP: _mps_cgroup,
    Backing.MPS: _mps,
    Backing.TIME_SLICED: _time_sliced,
    Backing.HOST_MEMORY: _host_memory,
}
"""From the best to what every host has."""
