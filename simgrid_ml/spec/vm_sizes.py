"""The sizes of Azure's virtual machines: what a node of a cluster is said to have.

Figures of Azure's size pages. A size says how many GPUs and cores its nodes have there; what this
host has is a backend's business. ``nic_bits_per_s`` is None where Azure publishes no figure, as for
all sizes with K80, P100, PCIe V100, P40 and T4: a network model must then state an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

from simgrid_ml.errors import SpecError

__all__ = ["VM_SIZES", "VmSize", "find_vm_size", "vm_size"]

_GIB = 2**30
_MBIT = 10**6


@dataclass(frozen=True)
class VmSize:
    """One size.

    Attributes:
        name: as Azure writes it, ``"Standard_NC6"``; compared without regard to case.
        vcpus: virtual cores.
        memory_bytes: main memory.
        gpus: GPUs of one node.
        gpu_model: ``"K80"``, or None without GPUs.
        gpu_memory_bytes: memory of each GPU; 0 without.
        nic_bits_per_s: expected network rate, or None where none is published.
        infiniband: as published, ``"8 x HDR 200 Gb/s"``; None for Ethernet only.
        disk_bytes: the temporary disk; 0 where the page is silent.
    """

    name: str
    vcpus: int
    memory_bytes: int
    gpus: int = 0
    gpu_model: str | None = None
    gpu_memory_bytes: int = 0
    nic_bits_per_s: int | None = None
    infiniband: str | None = None
    disk_bytes: int = 0


# vCPUs, GiB of memory, GPUs, model, GiB per GPU, GiB of disk, Mbit/s, InfiniBand
_WITH_GPU: dict[str, tuple[int, int, int, str, int, int, int | None, str | None]] = {
    "NC6": (6, 56, 1, "K80", 12, 340, None, None),
    "NC12": (12, 112, 2, "K80", 12, 680, None, None),
    "NC24": (24, 224, 4, "K80", 12, 1440, None, None),
    "NC24r": (24, 224, 4, "K80", 12, 1440, None, "RDMA, no SR-IOV"),
    "NC6s_v2": (6, 112, 1, "P100", 16, 736, None, None),
    "NC12s_v2": (12, 224, 2, "P100", 16, 1474, None, None),
    "NC24s_v2": (24, 448, 4, "P100", 16, 2948, None, None),
    "NC24rs_v2": (24, 448, 4, "P100", 16, 2948, None, "RDMA"),
    "NC6s_v3": (6, 112, 1, "V100 PCIe", 16, 736, None, None),
    "NC12s_v3": (12, 224, 2, "V100 PCIe", 16, 1474, None, None),
    "NC24s_v3": (24, 448, 4, "V100 PCIe", 16, 2948, None, None),
    "NC24rs_v3": (24, 448, 4, "V100 PCIe", 16, 2948, None, "InfiniBand, SR-IOV"),
    "ND6s": (6, 112, 1, "P40", 24, 736, None, None),
    "ND12s": (12, 224, 2, "P40", 24, 1474, None, None),
    "ND24s": (24, 448, 4, "P40", 24, 2948, None, None),
    "ND24rs": (24, 448, 4, "P40", 24, 2948, None, "RDMA"),
    "ND40rs_v2": (40, 672, 8, "V100 NVLink", 32, 2948, 24_000, "EDR 100 Gb/s"),
    "ND96asr_v4": (96, 900, 8, "A100 40GB", 40, 6000, 24_000, "8 x HDR 200 Gb/s"),
    "ND96amsr_A100_v4": (96, 1900, 8, "A100 80GB", 80, 6400, 24_000, "8 x HDR 200 Gb/s"),
    # Two pages give 1000 and 28000 GiB of disk.
    "ND96isr_H100_v5": (96, 1900, 8, "H100", 80, 1000, 80_000, "8 x NDR 400 Gb/s"),
    # Network and InfiniBand as of the H100 size; its own page was not to be had.
    "ND96isr_H200_v5": (96, 1850, 8, "H200", 141, 0, 80_000, "8 x NDR 400 Gb/s"),
    "NV6": (6, 56, 1, "M60", 8, 340, None, None),
    "NV12": (12, 112, 2, "M60", 8, 680, None, None),
    "NV24": (24, 224, 4, "M60", 8, 1440, None, None),
    "NV6s_v2": (6, 112, 1, "M60", 8, 320, None, None),
    "NV12s_v2": (12, 224, 2, "M60", 8, 640, None, None),
    "NV24s_v2": (24, 448, 4, "M60", 8, 1280, None, None),
    "NV12s_v3": (12, 112, 1, "M60", 8, 320, 6_000, None),
    "NV24s_v3": (24, 224, 2, "M60", 8, 640, 12_000, None),
    "NV48s_v3": (48, 448, 4, "M60", 8, 1280, 24_000, None),
    "NC4as_T4_v3": (4, 28, 1, "T4", 16, 180, None, None),
    "NC8as_T4_v3": (8, 56, 1, "T4", 16, 360, None, None),
    "NC16as_T4_v3": (16, 110, 1, "T4", 16, 360, None, None),
    "NC64as_T4_v3": (64, 440, 4, "T4", 16, 2880, None, None),
    "NC24ads_A100_v4": (24, 220, 1, "A100 80GB PCIe", 80, 64, 20_000, None),
    "NC48ads_A100_v4": (48, 440, 2, "A100 80GB PCIe", 80, 128, 40_000, None),
    "NC96ads_A100_v4": (96, 880, 4, "A100 80GB PCIe", 80, 256, 80_000, None),
}
# vCPUs, GiB of memory, GiB of disk, Mbit/s
_WITHOUT_GPU: dict[str, tuple[int, float, int, int]] = {
    "D1_v2": (1, 3.5, 50, 750),
    "DS1_v2": (1, 3.5, 7, 750),
    "D2_v2": (2, 7, 100, 1_500),
    "DS2_v2": (2, 7, 14, 1_500),
    "D3_v2": (4, 14, 200, 3_000),
    "DS3_v2": (4, 14, 28, 3_000),
    "D4_v2": (8, 28, 400, 6_000),
    "DS4_v2": (8, 28, 56, 6_000),
    "D5_v2": (16, 56, 800, 12_000),
    "DS5_v2": (16, 56, 112, 12_000),
    "F1": (1, 2, 16, 750),
    "F2": (2, 4, 32, 1_500),
    "F4": (4, 8, 64, 3_000),
    "F8": (8, 16, 128, 6_000),
    "F16": (16, 32, 256, 12_000),
    "F2s_v2": (2, 4, 16, 5_000),
    "F4s_v2": (4, 8, 32, 10_000),
    "F8s_v2": (8, 16, 64, 12_500),
    "F16s_v2": (16, 32, 128, 12_500),
    "F32s_v2": (32, 64, 256, 16_000),
    "F48s_v2": (48, 96, 384, 21_000),
    "F64s_v2": (64, 128, 512, 28_000),
    "F72s_v2": (72, 144, 576, 30_000),
}
_OTHER_NAMES = {"standard_nd96isr_v5": "standard_nd96isr_h100_v5"}


def _table() -> dict[str, VmSize]:
    sizes = []
    for name, (cpus, memory, gpus, model, each, disk, rate, fabric) in _WITH_GPU.items():
        sizes.append(
            VmSize(
                name=f"Standard_{name}",
                vcpus=cpus,
                memory_bytes=memory * _GIB,
                gpus=gpus,
                gpu_model=model,
                gpu_memory_bytes=each * _GIB,
                nic_bits_per_s=None if rate is None else rate * _MBIT,
                infiniband=fabric,
                disk_bytes=disk * _GIB,
            )
        )
    for name, (cpus, ram, disk, mbit) in _WITHOUT_GPU.items():
        sizes.append(
            VmSize(
                name=f"Standard_{name}",
                vcpus=cpus,
                memory_bytes=round(ram * _GIB),
                nic_bits_per_s=mbit * _MBIT,
                disk_bytes=disk * _GIB,
            )
        )
    return {size.name.lower(): size for size in sizes}


VM_SIZES = _table()
"""By name in lower case."""


def find_vm_size(name: str) -> VmSize | None:
    """The size of that name, whatever its case; None if it is not in the table."""
    key = name.lower()
    return VM_SIZES.get(_OTHER_NAMES.get(key, key))


def vm_size(name: str) -> VmSize:
    """
    Raises:
        SpecError: no such size is known; the nearest names are given.

    >>> vm_size("STANDARD_NC6").gpu_model
    'K80'
    """
    size = find_vm_size(name)
    if size is None:
        import difflib  # 1 ms

        near = difflib.get_close_matches(name.lower(), VM_SIZES, n=3, cutoff=0.5)
        known = [VM_SIZES[key].name for key in near]
        raise SpecError(
            f"no VM size {name!r} is known",
            remedy=f"use {' or '.join(known)}" if known else "write it like Standard_NC6",
            where="cluster.vm_size",
        )
    return size
