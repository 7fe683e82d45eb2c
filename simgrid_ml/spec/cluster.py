"""On what a job runs: an emulated AmlCompute cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

from msgspec import Meta

from simgrid_ml.errors import NotFoundError
from simgrid_ml.spec.gpus import GpuSharing, NcclChoice
from simgrid_ml.spec.links import Links
from simgrid_ml.spec.value import Value, from_plain
from simgrid_ml.spec.vm_sizes import find_vm_size

__all__ = [
    "HOST_SIZE",
    "RESERVED_NAMES",
    "ClusterSpec",
    "Era",
    "Preemption",
    "WorkingDirectory",
    "is_cluster_name",
    "stored_cluster",
]

HOST_SIZE = "host"
"""Instead of a VM size: every node sees the whole host."""

RESERVED_NAMES = ("amlcompute", "local", "containerinstance")
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9]|-(?=.*[A-Za-z])){1,23}\Z", re.ASCII)
_OLD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,14}[A-Za-z0-9]\Z", re.ASCII)

Count = Annotated[int, Meta(ge=0)]


class Era(str, Enum):
    """Which generation of Azure ML is emulated: names of logs and variables differ.

    E1: Batch AI (2018 to mid 2019); E2: classic AmlCompute (to 2021/22); E3: common runtime.
    """

    E1 = "E1"
    E2 = "E2"
    E3 = "E3"


class WorkingDirectory(str, Enum):
    """Shared: one folder for all nodes (E1, E2). Private: one per node, merged at the end (E3)."""

    SHARED = "shared"
    PRIVATE = "private"


class Preemption(Value, frozen=True, kw_only=True):
    """A node that is taken away, once in the life of the cluster's pool of nodes.

    Attributes:
        after_s: since the first run got nodes of the pool.
        node: its name, ``node1``; nothing happens if there is no such node then.
    """

    after_s: Annotated[float, Meta(ge=0)]
    node: str


class ClusterSpec(Value, frozen=True, kw_only=True):
    """A cluster as stored.

    Attributes:
        vm_size: what a node has, as a size of Azure; or ``HOST_SIZE``.
        scale: nodes get this share of their VM size; None: as much as the host has for all of them.
        links: the network between the nodes; None: as the backend and the VM size have it.
        backend: an entry point of the group ``simgrid_ml.backends``.
        gpu_sharing: what may be behind the GPUs of the VM size.
        nccl: who carries collectives that a job gives to NCCL.
        preemptions: when nodes are taken away; of low-priority clusters alone.
    """

    name: str
    vm_size: str = HOST_SIZE
    scale: Annotated[float, Meta(gt=0, le=1)] | None = None
    links: Links | None = None
    vm_priority: str = "dedicated"
    min_nodes: Count = 0
    max_nodes: Annotated[int, Meta(ge=1)] = 4
    idle_seconds_before_scaledown: Count = 1800
    backend: str = "process"
    gpu_sharing: GpuSharing = GpuSharing.AUTO
    nccl: NcclChoice = NcclChoice.AUTO
    era: Era = Era.E2
    working_directory: WorkingDirectory | None = None
    preemptions: tuple[Preemption, ...] = ()

    def __post_init__(self) -> None:
        if min(self.min_nodes, self.idle_seconds_before_scaledown) < 0:
            raise ValueError("min_nodes and idle_seconds_before_scaledown must not be negative")
        if self.max_nodes < max(1, self.min_nodes):
            raise ValueError("max_nodes must be at least 1 and at least min_nodes")
        if self.preemptions and self.vm_priority.lower() != "lowpriority":
            raise ValueError("preemptions need vm_priority lowpriority: dedicated nodes stay")

    @property
    def gpus_per_node(self) -> int:
        """The VM size's, unless the cluster is to have none; unknown sizes have none."""
        size = find_vm_size(self.vm_size)
        return 0 if size is None or self.gpu_sharing is GpuSharing.NONE else size.gpus

    @property
    def effective_working_directory(self) -> WorkingDirectory:
        """What was asked for, else what the era did."""
        if self.working_directory is not None:
            return self.working_directory
        return WorkingDirectory.PRIVATE if self.era is Era.E3 else WorkingDirectory.SHARED


def is_cluster_name(name: str) -> bool:
    """Whether Azure allows the name, by its rule of today or by the one before; some are taken."""
    return bool(_NAME.match(name) or _OLD_NAME.match(name)) and name.lower() not in RESERVED_NAMES


def stored_cluster(stored: Mapping[str, Mapping[str, Any]], name: str) -> ClusterSpec:
    """The cluster ``name`` of a store's ``clusters()``; what else is stored is Azure's paperwork.

    Raises:
        NotFoundError: there is none of that name.
    """
    if name not in stored:
        raise NotFoundError(
            f"there is no cluster {name!r}",
            evidence=f"stored: {', '.join(stored) or 'none yet'}",
            remedy=f"`simgrid-ml cluster create {name} --max-nodes 4` or ComputeTarget.create "
            "makes it",
        )
    fields = ClusterSpec.__struct_fields__
    plain = {key: value for key, value in stored[name].items() if key in fields}
    return from_plain(plain, ClusterSpec, f"cluster {name}")
