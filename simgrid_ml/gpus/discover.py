"""What GPUs this host has and how they can be shared. Looks and changes nothing."""

from __future__ import annotations

import os
from typing import Any

from simgrid_ml.gpus.mps import find_service, why_no_cgroups
from simgrid_ml.gpus.nvml import NvmlUnavailable, opened, sentence
from simgrid_ml.spec.gpus import HostGpu, HostGpus, MigInstance

__all__ = ["host_gpus"]

_MIB = 2**20
_NOT_SUPPORTED, _NOT_FOUND, _NO_SUCH_FUNCTION = 3, 6, 13
_CORES_PER_SM = {3: 192, 5: 128, 6: 128, 7: 64, 8: 128}
_ODD_CORES_PER_SM = {(6, 0): 64, (8, 0): 64}
_OTHERS_CORES_PER_SM = 128


def host_gpus(*, own_cgroups: bool = False) -> HostGpus:
    """All that decides how GPUs of this host can be shared; none, and why, where there are none.

    Args:
        own_cgroups: whether each node has a control group of its own.
    """
    try:
        with opened() as nvml:
            return _found(nvml, own_cgroups)
    except NvmlUnavailable as none:
        return HostGpus(why_none=str(none))


def _found(nvml: Any, own_cgroups: bool) -> HostGpus:
    gpus, lost = [], []
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        return HostGpus(why_none=sentence(error))
    for index in range(count):
        try:
            gpus.append(_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index)))
        except nvml.NVMLError as error:
            lost.append(f"GPU {index}: {sentence(error)}")
    directory, why_no_mps = find_service(os.environ) if gpus else (None, "")
    no_cgroups = why_no_cgroups(driver, own_cgroups, hasattr(nvml, "nvmlDeviceSetMemoryLimits_v1"))
    return HostGpus(
        gpus=tuple(gpus),
        driver=driver,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
        mps_directory=directory,
        why_no_mps=why_no_mps,
        mps_cgroups=directory is not None and not no_cgroups,
        why_no_cgroups=no_cgroups,
        why_none="; ".join(lost) if count else "the NVIDIA driver finds no GPU",
    )


def _gpu(nvml: Any, handle: Any) -> HostGpu:
    capability: tuple[int, int] = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
    enabled = _is_divided(nvml, handle)
    return HostGpu(
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        sms=_sms(nvml, handle, capability),
        capability=capability,
        bus_id=_text(nvml.nvmlDeviceGetPciInfo(handle).busId),
        mig=tuple(_instances(nvml, handle)) if enabled else (),
        mig_enabled=enabled,
    )


def _sms(nvml: Any, handle: Any, capability: tuple[int, int]) -> int:
    """NVML counts cores; how many make a multiprocessor depends on the architecture."""
    try:
        cores = int(nvml.nvmlDeviceGetNumGpuCores(handle))
    except nvml.NVMLError:  # of a driver before 455
        return 1
    each = _ODD_CORES_PER_SM.get(capability) or _CORES_PER_SM.get(capability[0])
    return max(1, cores // (each or _OTHERS_CORES_PER_SM))


def _is_divided(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError as error:
        if error.value in (_NOT_SUPPORTED, _NO_SUCH_FUNCTION):  # the GPU's, or the driver's
            return False
        raise
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _instances(nvml: Any, handle: Any) -> list[MigInstance]:
    found = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError as error:
            if error.value == _NOT_FOUND:  # places may be empty between others
                continue
            raise
        about = nvml.nvmlDeviceGetAttributes(instance)
        name = _text(nvml.nvmlDeviceGetName(instance))
        found.append(
            MigInstance(
                uuid=_text(nvml.nvmlDeviceGetUUID(instance)),
                memory_bytes=int(about.memorySizeMB) * _MIB,
                sms=int(about.multiprocessorCount),
                profile=name.rpartition("MIG ")[2] if "MIG " in name else "",
            )
        )
    return found


def _text(said: str | bytes) -> str:
    return said.decode() if isinstance(said, bytes) else said
