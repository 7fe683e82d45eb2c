"""What each node of a run gets of the host: its VM size, scaled down where the host is smaller.

One factor for all that a size has keeps its proportions: cores to memory to network. What a node
really gets is in the run's record and in its outcome, since nobody can tell it from the job.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simgrid_ml.errors import PlacementError, SpecError
from simgrid_ml.spec.cluster import HOST_SIZE, ClusterSpec
from simgrid_ml.spec.placement import HostInventory
from simgrid_ml.spec.vm_sizes import VmSize, vm_size
from simgrid_ml.units import format_bytes

__all__ = ["MIN_CPUS", "MIN_MEMORY_BYTES", "Capacity", "size_nodes", "usable_memory"]

MIN_CPUS = 0.01
"""The shortest slice that the kernel's CPU controller gives out, 1 ms, of its period of 100 ms."""
MIN_MEMORY_BYTES = 64 * 2**20
"""An agent, Open MPI's daemon and one bare Python fit into this."""

_SPARE_BYTES = 2**30
_PAGE = 4096


@dataclass(frozen=True)
class Capacity:
    """What every node of a run has.

    Attributes:
        scale: the one factor between the VM size and what a node gets, at most 1.
        cpus: cores, as a quota; None: all of the host's.
        memory_bytes: None: not limited.
        shm_bytes: size of ``/dev/shm``; what is in it counts as memory.
        gpus: GPUs that the size has.
        nic_bytes_per_s: rate of the network card; None: the size has no published one, or none
            was named.
        vm_size: the size's name as Azure writes it, or ``HOST_SIZE``.
    """

    scale: float
    cpus: float | None
    memory_bytes: int | None
    shm_bytes: int
    gpus: int = 0
    nic_bytes_per_s: float | None = None
    vm_size: str = HOST_SIZE

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Capacity:
        """What ``to_json`` gave."""
        return cls(**document)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def cores(self, nodes: int, host: HostInventory) -> int:
        """Whole cores that ``nodes`` such nodes have together, at least 1."""
        if self.cpus is None:
            return host.cpus
        return max(1, int(self.cpus * nodes + 1e-6))

    def describe(self) -> str:
        """One line for people; empty where nobody named a size.

        >>> Capacity(1 / 12, 0.5, 56 * 2**30 // 12, 2**30, vm_size="Standard_NC6").describe()
        'Standard_NC6 scaled to 1/12: 0.5 cores, 4.67 GiB each'
        """
        if self.vm_size == HOST_SIZE:
            return ""
        if self.cpus is None or self.memory_bytes is None:
            return f"{self.vm_size} not enforced: process nodes share the whole host"
        scaled = "" if self.scale == 1 else f" scaled to {_share(self.scale)}"
        cores = f"{self.cpus:.3g} core" + ("" if self.cpus == 1 else "s")
        return f"{self.vm_size}{scaled}: {cores}, {format_bytes(self.memory_bytes)} each"


def size_nodes(cluster: ClusterSpec, nodes: int, host: HostInventory, shm_bytes: int) -> Capacity:
    """What ``nodes`` nodes of the cluster's VM size have on this host.

    Args:
        cluster: names the size, and the scale if it must be a certain one.
        nodes: how many there may be at the same time: of a stored cluster its ``max_nodes``.
        host: where they are; one that cannot limit nodes leaves them the whole host.
        shm_bytes: wanted size of ``/dev/shm``; a node has at most its memory.

    Raises:
        SpecError: the size is unknown, or there is a scale and no size.
        PlacementError: the host is too small, or cannot limit nodes as the scale demands.
    """
    if cluster.vm_size == HOST_SIZE:
        if cluster.scale is not None:
            raise SpecError(
                f"scale is {cluster.scale:g}, but the nodes have no VM size to be scaled",
                remedy="name one, such as Standard_NC6, or leave scale out",
                where="cluster.scale",
            )
        return Capacity(1.0, None, None, shm_bytes)
    size = vm_size(cluster.vm_size)
    if not host.enforces_sizes:
        if cluster.scale is not None:
            raise PlacementError(
                f"nodes cannot have {cluster.scale:g} of {size.name}: the {cluster.backend} "
                "backend gives every node the whole host",
                remedy="use the docker backend, or leave scale out",
            )
        return Capacity(1.0, None, None, shm_bytes, gpus=size.gpus, vm_size=size.name)
    scale = _scale(cluster, size, nodes, host)
    memory = math.floor(size.memory_bytes * scale) // _PAGE * _PAGE
    return Capacity(
        scale=scale,
        cpus=size.vcpus * scale,
        memory_bytes=memory,
        shm_bytes=min(shm_bytes, memory),
        gpus=size.gpus,
        nic_bytes_per_s=None if size.nic_bits_per_s is None else size.nic_bits_per_s / 8 * scale,
        vm_size=size.name,
    )


def usable_memory(host: HostInventory) -> int:
    """Bytes that nodes may have together: the host itself, and the supervisor, need some."""
    return host.memory_bytes - min(_SPARE_BYTES, host.memory_bytes // 8)


def _scale(cluster: ClusterSpec, size: VmSize, nodes: int, host: HostInventory) -> float:
    memory = usable_memory(host)
    most = min(1.0, host.cpus / (nodes * size.vcpus), memory / (nodes * size.memory_bytes))
    scale = most if cluster.scale is None else cluster.scale
    least = max(MIN_CPUS / size.vcpus, MIN_MEMORY_BYTES / size.memory_bytes)
    has = f"this host has {host.cpus} cores and {format_bytes(memory)} to give"
    if scale < least:
        raise PlacementError(
            f"{nodes} nodes of {size.name} do not fit: scaled to {_share(scale)} each would have "
            f"{size.vcpus * scale:.2g} cores and {format_bytes(size.memory_bytes * scale)}",
            evidence=f"{has}; a node needs {MIN_CPUS:g} cores and {format_bytes(MIN_MEMORY_BYTES)}",
            remedy="use fewer nodes (of a stored cluster: a smaller max_nodes), a smaller VM size, "
            "or a larger host",
        )
    if scale > most * (1 + 1e-9):
        raise PlacementError(
            f"{nodes} nodes of {size.name} at scale {scale:g} need "
            f"{nodes * size.vcpus * scale:.4g} cores and "
            f"{format_bytes(nodes * size.memory_bytes * scale)}",
            evidence=has,
            remedy=f"use a scale of at most {math.floor(most * 1e4) / 1e4:g}, fewer nodes, or no "
            "scale: then they get what the host has",
        )
    return scale


def _share(scale: float) -> str:
    """``1/12`` where it is such a fraction, else three digits."""
    parts = round(1 / scale)
    return f"1/{parts}" if abs(scale * parts - 1) < 1e-9 else f"{scale:.3g}"
