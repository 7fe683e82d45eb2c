"""GPUs as values: the models that VM sizes have, what a host has, and what a run is given of it.

A virtual node always has the GPUs of its VM size. What is behind each is another matter, see
``Backing``; ``spec.gpu_plan`` decides it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from simgrid_ml.errors import SpecError
from simgrid_ml.units import format_bytes

__all__ = [
    "CONTEXT_BYTES",
    "GPU_MODELS",
    "RESERVE_BYTES",
    "Backing",
    "Frameworks",
    "GpuModel",
    "GpuPlan",
    "GpuShare",
    "GpuSharing",
    "HostGpu",
    "HostGpus",
    "MigInstance",
    "NcclChoice",
    "NodeGpus",
    "described",
    "gpu_model",
]

_MIB = 2**20

RESERVE_BYTES = 1024 * _MIB
"""What slices of a real GPU leave free of it, for the driver and for whoever else is there."""
CONTEXT_BYTES = 600 * _MIB
"""What a process needs of a real GPU besides what its framework's allocator counts: the context,
workspaces of cuDNN and cuBLAS, buffers of NCCL. 300 to 500 MiB are usual for the context alone."""


@dataclass(frozen=True)
class GpuModel:
    """A model of GPU as a VM size names it; figures as ``nvidia-smi`` and CUDA show them.

    Attributes:
        key: as in ``spec.vm_sizes``, ``"K80"``.
        name: ``"Tesla K80"``.
        memory_bytes: ``memory.total``; drivers and ECC change it by up to 2 %.
        sms: streaming multiprocessors.
        capability: compute capability.
        power_w: power limit.
        driver, cuda: versions of a driver that serves the model.
    """

    key: str
    name: str
    memory_bytes: int
    sms: int
    capability: tuple[int, int]
    power_w: int
    driver: str
    cuda: str


_KEPLER = ("470.256.02", "11.4")  # the last branch of drivers for it
_LATER = ("550.163.01", "12.4")
# key: name, MiB, SMs, compute capability, W, driver and CUDA. A K80 is one of a card's two chips.
_MODELS: dict[str, tuple[str, int, int, tuple[int, int], int, tuple[str, str]]] = {
    "K80": ("Tesla K80", 11441, 13, (3, 7), 149, _KEPLER),
    "M60": ("Tesla M60", 8129, 16, (5, 2), 150, _LATER),
    "P40": ("Tesla P40", 22919, 30, (6, 1), 250, _LATER),
    "P100": ("Tesla P100-PCIE-16GB", 16280, 56, (6, 0), 250, _LATER),
    "V100 PCIe": ("Tesla V100-PCIE-16GB", 16160, 80, (7, 0), 250, _LATER),
    "V100 NVLink": ("Tesla V100-SXM2-32GB", 32510, 80, (7, 0), 300, _LATER),
    "T4": ("Tesla T4", 15360, 40, (7, 5), 70, _LATER),
    "A100 40GB": ("NVIDIA A100-SXM4-40GB", 40960, 108, (8, 0), 400, _LATER),
    "A100 80GB": ("NVIDIA A100-SXM4-80GB", 81920, 108, (8, 0), 400, _LATER),
    "A100 80GB PCIe": ("NVIDIA A100 80GB PCIe", 81920, 108, (8, 0), 300, _LATER),
    "H100": ("NVIDIA H100 80GB HBM3", 81559, 132, (9, 0), 700, _LATER),
    "H200": ("NVIDIA H200", 143771, 132, (9, 0), 700, _LATER),
}
GPU_MODELS: Mapping[str, GpuModel] = {
    key: GpuModel(key, name, mib * _MIB, sms, capability, power, *versions)
    for key, (name, mib, sms, capability, power, versions) in _MODELS.items()
}


def gpu_model(key: str) -> GpuModel:
    """
    Raises:
        SpecError: no such model is known; the nearest are named.

    >>> gpu_model("K80").name
    'Tesla K80'
    """
    model = GPU_MODELS.get(key)
    if model is None:
        import difflib  # 1 ms

        near = difflib.get_close_matches(key, GPU_MODELS, n=3, cutoff=0.3)
        raise SpecError(
            f"no GPU model {key!r} is known",
            remedy=f"known are: {', '.join(near or GPU_MODELS)}",
            where="cluster.vm_size",
        )
    return model


class GpuSharing(str, Enum):
    """What may be behind the virtual GPUs of a cluster.

    AUTO: the best that the host has. EMULATED: host memory, even where there are real GPUs.
    EXCLUSIVE: whole GPUs and nothing else. MIG: instances that exist. MPS: slices of a GPU that
    NVIDIA's Multi-Process Service limits. TIME_SLICED: slices of a GPU that frameworks limit
    themselves. NONE: nodes have no GPUs, whatever their VM size.
    """

    AUTO = "auto"
    EMULATED = "emulated"
    EXCLUSIVE = "exclusive"
    MIG = "mig"
    MPS = "mps"
    TIME_SLICED = "time-sliced"
    NONE = "none"


class NcclChoice(str, Enum):
    """Who carries collectives that a job gives to NCCL. AUTO: as the backing allows.

    STAGED: Gloo or MPI, through host memory. REAL: NCCL, also among ranks that share a GPU.
    """

    AUTO = "auto"
    STAGED = "staged"
    REAL = "real"


class Backing(str, Enum):
    """What is behind a virtual GPU, the best first."""

    WHOLE = "whole GPU"
    MIG = "MIG instance"
    MPS_CGROUP = "MPS with cgroup limits"
    MPS = "MPS with limits per process"
    TIME_SLICED = "time-sliced GPU"
    HOST_MEMORY = "host memory"


@dataclass(frozen=True)
class MigInstance:
    """An instance that somebody has made; it is used, and never changed."""

    uuid: str
    memory_bytes: int
    sms: int
    profile: str = ""


@dataclass(frozen=True)
class HostGpu:
    """A GPU of this host."""

    uuid: str
    name: str
    memory_bytes: int
    sms: int
    capability: tuple[int, int]
    bus_id: str = ""
    mig: tuple[MigInstance, ...] = ()
    mig_enabled: bool = False


@dataclass(frozen=True)
class HostGpus:
    """All that decides how GPUs of this host can be shared.

    Attributes:
        gpus: in the driver's order.
        driver: the driver's version; "" without one.
        cuda: the newest CUDA that the driver serves.
        mps_directory: of a running Multi-Process Service that this user may use; None: none.
        why_no_mps: why there is none, where somebody may expect one.
        mps_cgroups: whether it can be limited by control group.
        why_no_cgroups: why it cannot.
        cdi: UUIDs that specifications of the Container Device Interface name.
        runtime: the container engine has NVIDIA's runtime.
        why_none: why there are none, or why some cannot be used.
    """

    gpus: tuple[HostGpu, ...] = ()
    driver: str = ""
    cuda: str = ""
    mps_directory: str | None = None
    why_no_mps: str = ""
    mps_cgroups: bool = False
    why_no_cgroups: str = ""
    cdi: tuple[str, ...] = ()
    runtime: bool = False
    why_none: str = ""


@dataclass(frozen=True)
class Frameworks:
    """What of an environment decides how it uses real GPUs.

    Attributes:
        torch, nccl: versions; None: not there, or not known.
        why_no_cuda: why it cannot use any; "": it may.
    """

    torch: tuple[int, ...] | None = None
    nccl: tuple[int, ...] | None = None
    why_no_cuda: str = ""

    @classmethod
    def of(cls, packages: Mapping[str, str]) -> Frameworks:
        """Those among the packages of an environment, by name and version.

        >>> Frameworks.of({"torch": "2.13.0+cpu"}).why_no_cuda
        'torch 2.13.0+cpu is a build for the CPU'
        >>> Frameworks.of({"torch": "2.13.0", "nvidia-nccl-cu13": "2.29.7"}).nccl
        (2, 29, 7)
        """
        torch = packages.get("torch", "")
        nccl = next((packages[n] for n in packages if n.startswith("nvidia-nccl-")), "")
        why = ""
        if torch.endswith("+cpu"):
            why = f"torch {torch} is a build for the CPU"
        elif "tensorflow-cpu" in packages and not torch:
            why = f"tensorflow-cpu {packages['tensorflow-cpu']} is a build for the CPU"
        return cls(_numbers(torch), _numbers(nccl), why)


def _numbers(version: str) -> tuple[int, ...] | None:
    found = re.match(r"\d+(?:\.\d+)*", version)
    return None if found is None else tuple(map(int, found[0].split(".")))


@dataclass(frozen=True)
class GpuShare:
    """What is behind one virtual GPU.

    Attributes:
        device: UUID of the GPU or MIG instance; None: host memory.
        memory_bytes: what the virtual GPU shows, and may take, all its processes together.
        sms: what it shows.
        capability: of what computes: the model's on host memory, else the real GPU's.
        exclusive: nobody else may have the device meanwhile.
        gpu: UUID of the GPU that the device is, or is an instance of; None: host memory.
        device_bytes: memory of the device; 0: host memory.
        process_bytes: what the allocator of each of its processes may take: its part of
            ``memory_bytes`` without what a process needs besides; all of the device where nothing
            is to be limited.
        percent: of the device's SMs, as the Multi-Process Service limits it; None: no limit.
    """

    device: str | None
    memory_bytes: int
    sms: int
    capability: tuple[int, int]
    exclusive: bool = False
    gpu: str | None = None
    device_bytes: int = 0
    process_bytes: int = 0
    percent: int | None = None

    @property
    def fraction(self) -> float:
        """Of the device's memory, what one process may take, as frameworks want to be told it."""
        return min(1.0, self.process_bytes / self.device_bytes) if self.device_bytes else 1.0


@dataclass(frozen=True)
class NodeGpus:
    """The virtual GPUs of one node.

    Attributes:
        ids: their UUIDs, in the order of their ordinals.
        shares: what is behind each.
        per_rank: a process sees one device at a time: the node has one device twice, or instances
            of MIG, of which CUDA shows the first alone.
        variables: for every process on the node, besides which devices it sees.
    """

    node: str
    ids: tuple[str, ...]
    shares: tuple[GpuShare, ...]
    per_rank: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def devices(self) -> tuple[str, ...]:
        """UUIDs of the real devices behind its GPUs, each once, in order."""
        return tuple(dict.fromkeys(s.device for s in self.shares if s.device is not None))


@dataclass(frozen=True)
class GpuPlan:
    """What is behind the GPUs of a run's nodes, and why.

    Attributes:
        model: of the VM size.
        backing: the rung.
        reason: why this one and none above it.
        nodes: in the placement's order.
        hard: what is enforced whatever a script does, a sentence each.
        advisory: what only holds for well-behaved scripts.
        collectives: what carries NCCL's collectives: ``"nccl"`` or ``"gloo"``.
        collectives_reason: why.
        host_identity: each rank needs a ``NCCL_HOSTID`` of its own, or NCCL refuses.
        variables: for every process on the nodes.
        notes: what the user should know besides.
    """

    model: GpuModel
    backing: Backing
    reason: str
    nodes: tuple[NodeGpus, ...]
    hard: tuple[str, ...] = ()
    advisory: tuple[str, ...] = ()
    collectives: str = "gloo"
    collectives_reason: str = ""
    host_identity: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """UUIDs of all real devices, each once."""
        return tuple(dict.fromkeys(device for node in self.nodes for device in node.devices))

    def on(self, node: str) -> NodeGpus:
        """The GPUs of a node."""
        return next(one for one in self.nodes if one.node == node)

    def describe(self) -> str:
        """One line for people: ``2 nodes x 2 Tesla K80 (11.2 GiB), host memory``."""
        return described(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "backing": self.backing.value}


def described(plan: Mapping[str, Any]) -> str:
    """``GpuPlan.describe`` of what ``GpuPlan.to_json`` gave."""
    count, shares = len(plan["nodes"]), plan["nodes"][0]["shares"]
    each = f"{len(shares)} {plan['model']['name']} ({format_bytes(shares[0]['memory_bytes'])})"
    return f"{count} node{'s' * (count > 1)} x {each}, {plan['backing']}"
