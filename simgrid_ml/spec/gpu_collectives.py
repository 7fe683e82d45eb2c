"""Who carries the collectives that a job gives to NCCL: decided once, before anything starts.

NCCL (2.5 and later) refuses two ranks of one host on one GPU. Where they may share one all the
same, kernels of ranks that wait for each other on it take turns: each collective takes as long as
several time slices, 9 to 17 ms by others' measurements. So on a shared GPU the host carries them
unless somebody asks for NCCL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from simgrid_ml.errors import PlacementError
from simgrid_ml.spec.gpus import Backing, Frameworks, GpuShare, NcclChoice

__all__ = ["Collectives", "collectives"]

_SEVERAL_RANKS = (2, 30)  # NCCL_MULTI_RANK_GPU_ENABLE
_MIG = (2, 31)

_BETWEEN_NODES = {"NCCL_IB_DISABLE": "1", "NCCL_NET": "Socket"}
"""Nodes have no InfiniBand of their own; TCP is what is between them."""
_ON_PARTS = {"NCCL_MNNVL_ENABLE": "0", "NCCL_NVLS_ENABLE": "0", "NCCL_MAX_NCHANNELS": "2"}
"""What parts of a GPU cannot do, and few enough channels that all ranks' kernels fit."""
_SEVERAL = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_MAX_CTAS": "2"}


@dataclass(frozen=True)
class Collectives:
    """As in a ``GpuPlan``; ``carrier`` is its ``collectives``."""

    carrier: str
    reason: str
    host_identity: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


def collectives(
    choice: NcclChoice, backing: Backing, shares: Iterable[GpuShare], frameworks: Frameworks
) -> Collectives:
    """
    Args:
        shares: of all nodes of the run.

    Raises:
        PlacementError: NCCL is asked for, and there is no real GPU.
    """
    if backing is Backing.HOST_MEMORY:
        if choice is NcclChoice.REAL:
            raise PlacementError(
                "nccl is real, but the GPUs of the nodes live in host memory",
                remedy="leave nccl at auto: Gloo and MPI carry the collectives there",
            )
        return Collectives("gloo", "NCCL needs real GPUs")
    if choice is NcclChoice.STAGED:
        return Collectives("gloo", "asked for: nccl is staged", variables=_BETWEEN_NODES)
    shares = tuple(shares)
    if max(Counter(share.gpu for share in shares).values()) == 1:
        return Collectives(
            "nccl", "every virtual GPU is on a GPU of its own", False, _BETWEEN_NODES
        )
    parts = {**_BETWEEN_NODES, **_ON_PARTS}
    version = frameworks.nccl
    known = "NCCL" if version is None else f"NCCL {'.'.join(map(str, version))}"
    if backing is Backing.MIG:
        if version is not None and version >= _MIG:
            reason = f"{known} tells instances of one GPU apart"
            return Collectives("nccl", reason, False, parts)
        reason = f"{known} may take instances of one GPU for one: each rank is a host of its own"
        return Collectives("nccl", reason, True, parts)
    if choice is NcclChoice.AUTO:
        reason = "virtual GPUs share a real one, where NCCL refuses or waits for time slices"
        return Collectives("gloo", reason, variables=_BETWEEN_NODES)
    if version is not None and version >= _SEVERAL_RANKS:
        reason = f"asked for: nccl is real; {known} lets ranks share a GPU"
        return Collectives("nccl", reason, False, {**parts, **_SEVERAL})
    reason = f"asked for: nccl is real; {known} shares a GPU among hosts: each rank is one"
    return Collectives("nccl", reason, True, parts)
