"""A host's GPUs as a value, and all of NVML that simgrid-ml uses over such a host.

For tests of what happens on hosts with GPUs, on hosts that have none. In this process::

    nvml = FakeNvml(EIGHT_A100)

In others, which import this module instead of nvidia-ml-py (see ``simgrid_ml.gpus.nvml``), the host
is in a file, and read again at each call: a GPU that somebody marks as lost there is lost at once::

    write_host(path, ONE_H200)
    os.environ.update(variables(path))

Errors are those of nvidia-ml-py, with its codes. Nothing here computes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

import pynvml

from simgrid_ml.gpus.nvml import MODULE_VARIABLE

__all__ = [
    "EIGHT_A100",
    "HOST_VARIABLE",
    "K80_BOX",
    "MISMATCH",
    "NO_DRIVER",
    "ONE_H200",
    "FakeGpu",
    "FakeHost",
    "FakeInstance",
    "FakeNvml",
    "read_host",
    "variables",
    "write_host",
]

HOST_VARIABLE = "SIMGRID_ML_FAKE_GPUS"
"""Path of the file that ``write_host`` wrote."""

_MIB = 2**20
_MOST_INSTANCES = 7
_FIRST_WITH_MIG = (8, 0)

NVMLError = pynvml.NVMLError
NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE
c_nvmlSetMemoryLimits_v1_t = pynvml.c_nvmlSetMemoryLimits_v1_t


@dataclass(frozen=True)
class FakeInstance:
    """An instance of MIG."""

    uuid: str
    memory_mib: int
    sms: int
    profile: str


@dataclass(frozen=True)
class FakeGpu:
    """A GPU.

    Attributes:
        cores: CUDA cores, as NVML counts them.
        mig: its instances, None for an empty place; None instead of the tuple: MIG is off.
        lost: it has fallen off the bus.
    """

    uuid: str
    name: str
    memory_mib: int
    cores: int
    capability: tuple[int, int]
    bus_id: str = "00000000:01:00.0"
    mig: tuple[FakeInstance | None, ...] | None = None
    lost: bool = False


@dataclass(frozen=True)
class FakeHost:
    """A host.

    Attributes:
        refuses: the code with which NVML cannot be initialised.
        lacks: functions that its driver is too old to have.
    """

    gpus: tuple[FakeGpu, ...] = ()
    driver: str = "580.159.03"
    cuda: int = 13000
    refuses: int | None = None
    lacks: tuple[str, ...] = ()

    def with_lost(self, uuid: str) -> FakeHost:
        """The same host after one of its GPUs has fallen off the bus."""
        gpus = tuple(replace(gpu, lost=gpu.lost or gpu.uuid == uuid) for gpu in self.gpus)
        return replace(self, gpus=gpus)


def _gpus(count: int, name: str, mib: int, cores: int, *capability: int) -> tuple[FakeGpu, ...]:
    return tuple(
        FakeGpu(
            uuid=f"GPU-{index:08x}-0000-4000-8000-{abs(hash_of(name)):012x}",
            name=name,
            memory_mib=mib,
            cores=cores,
            capability=(capability[0], capability[1]),
            bus_id=f"00000000:{index + 1:02X}:00.0",
        )
        for index in range(count)
    )


def hash_of(name: str) -> int:
    """48 bits that are the same in every process."""
    return int.from_bytes(name.encode()[-6:], "big")


def _divided(gpu: FakeGpu, *profiles: tuple[int, int, str] | None) -> FakeGpu:
    instances = tuple(
        None if one is None else FakeInstance(f"MIG-{index}{gpu.uuid[5:]}", *one)
        for index, one in enumerate(profiles)
    )
    return replace(gpu, mig=instances)


K80_BOX = FakeHost(_gpus(4, "Tesla K80", 11441, 2496, 3, 7), "470.256.02", 11040)
ONE_H200 = FakeHost(_gpus(1, "NVIDIA H200", 143771, 16896, 9, 0))
_A100 = _gpus(8, "NVIDIA A100-SXM4-40GB", 40960, 6912, 8, 0)
_THREE = ((19968, 42, "3g.20gb"), None, (9856, 28, "2g.10gb"))
EIGHT_A100 = FakeHost((*_A100[:6], _divided(_A100[6], *_THREE), _divided(_A100[7])))
"""Six are whole, one has two instances of MIG and an empty place between, one is divided and has
none."""
NO_DRIVER = FakeHost(refuses=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
MISMATCH = FakeHost(refuses=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)


def write_host(path: str, host: FakeHost) -> None:
    """Make ``host`` what NVML sees in processes that have the ``variables`` of ``path``."""
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as stream:
        json.dump(asdict(host), stream)
    os.replace(draft, path)


def read_host(path: str) -> FakeHost:
    """What ``write_host`` wrote."""
    with open(path, encoding="utf-8") as stream:
        return _host(json.load(stream))


def variables(path: str) -> dict[str, str]:
    """What a process needs in its environment to see the host in the file at ``path``."""
    return {MODULE_VARIABLE: __name__, HOST_VARIABLE: path}


def _host(plain: Mapping[str, Any]) -> FakeHost:
    gpus = []
    for each in plain["gpus"]:
        mig = each["mig"]
        if mig is not None:
            mig = tuple(None if one is None else FakeInstance(**one) for one in mig)
        gpus.append(FakeGpu(**{**each, "mig": mig, "capability": tuple(each["capability"])}))
    return FakeHost(**{**plain, "gpus": tuple(gpus), "lacks": tuple(plain["lacks"])})


class _Handle:
    """Of a GPU or an instance; opaque, as the real ones are."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid


def _lacking(*_: Any) -> Any:
    raise NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)


class FakeNvml:
    """The functions of NVML over a host.

    Args:
        host: the host, or what gives it at each call.

    Attributes:
        limits: bytes by UUID and control group, as they were set.
    """

    NVMLError = NVMLError
    NVML_DEVICE_MIG_ENABLE = NVML_DEVICE_MIG_ENABLE
    c_nvmlSetMemoryLimits_v1_t = c_nvmlSetMemoryLimits_v1_t

    def __init__(self, host: FakeHost | Callable[[], FakeHost]) -> None:
        self._see = host if callable(host) else lambda: host
        self._users = 0
        self.limits: dict[tuple[str, str], int] = {}

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in self._see().lacks:
            # nvidia-ml-py has the function, and finds at the call that the driver has not.
            return _lacking
        return super().__getattribute__(name)

    # -- the library -----------------------------------------------------------------------
    def nvmlInit(self) -> None:
        refused = self._see().refuses
        if refused is not None:
            raise NVMLError(refused)
        self._users += 1

    def nvmlShutdown(self) -> None:
        self._host()
        self._users -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return self._host().driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self._host().cuda

    # -- GPUs ------------------------------------------------------------------------------
    def nvmlDeviceGetCount(self) -> int:
        return len(self._host().gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> _Handle:
        gpus = self._host().gpus
        if not 0 <= index < len(gpus):
            raise NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self.nvmlDeviceGetHandleByUUID(gpus[index].uuid)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> _Handle:
        handle = _Handle(uuid)
        self._gpu_of(handle)
        return handle

    def nvmlDeviceGetUUID(self, handle: _Handle) -> str:
        self._gpu_of(handle)
        return handle.uuid

    def nvmlDeviceGetName(self, handle: _Handle) -> str:
        gpu, instance = self._gpu_of(handle)
        return gpu.name if instance is None else f"{gpu.name} MIG {instance.profile}"

    def nvmlDeviceGetMemoryInfo(self, handle: _Handle) -> SimpleNamespace:
        gpu, instance = self._gpu_of(handle)
        total = (gpu.memory_mib if instance is None else instance.memory_mib) * _MIB
        return SimpleNamespace(total=total, free=total, used=0)

    def nvmlDeviceGetNumGpuCores(self, handle: _Handle) -> int:
        return self._whole(handle).cores

    def nvmlDeviceGetCudaComputeCapability(self, handle: _Handle) -> tuple[int, int]:
        return self._whole(handle).capability

    def nvmlDeviceGetPciInfo(self, handle: _Handle) -> SimpleNamespace:
        return SimpleNamespace(busId=self._whole(handle).bus_id)

    # -- instances of MIG ------------------------------------------------------------------
    def nvmlDeviceGetMigMode(self, handle: _Handle) -> tuple[int, int]:
        gpu = self._whole(handle)
        if gpu.capability < _FIRST_WITH_MIG:
            raise NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return (int(gpu.mig is not None),) * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: _Handle) -> int:
        gpu = self._whole(handle)
        return _MOST_INSTANCES if gpu.capability >= _FIRST_WITH_MIG else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: _Handle, index: int) -> _Handle:
        instances = self._whole(handle).mig or ()
        instance = instances[index] if index < len(instances) else None
        if instance is None:
            raise NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return _Handle(instance.uuid)

    def nvmlDeviceGetAttributes(self, handle: _Handle) -> SimpleNamespace:
        _, instance = self._gpu_of(handle)
        if instance is None:
            raise NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(memorySizeMB=instance.memory_mib, multiprocessorCount=instance.sms)

    # -- limits ----------------------------------------------------------------------------
    def nvmlDeviceSetMemoryLimits_v1(self, handle: _Handle, limits: Any) -> None:
        self._whole(handle)
        if not os.path.isdir(os.fsdecode(limits.nameSpace)):
            raise NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        self.limits[handle.uuid, os.fsdecode(limits.nameSpace)] = limits.hardLimit

    # -- what is seen ----------------------------------------------------------------------
    def _host(self) -> FakeHost:
        if self._users <= 0:
            raise NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        return self._see()

    def _gpu_of(self, handle: _Handle) -> tuple[FakeGpu, FakeInstance | None]:
        for gpu, instance in self._all():
            if handle.uuid == (gpu.uuid if instance is None else instance.uuid):
                if gpu.lost:
                    raise NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
                return gpu, instance
        raise NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def _whole(self, handle: _Handle) -> FakeGpu:
        gpu, instance = self._gpu_of(handle)
        if instance is not None:
            raise NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return gpu

    def _all(self) -> Iterator[tuple[FakeGpu, FakeInstance | None]]:
        for gpu in self._host().gpus:
            yield gpu, None
            for instance in gpu.mig or ():
                if instance is not None:
                    yield gpu, instance


_OF_THE_FILE = FakeNvml(lambda: read_host(os.environ[HOST_VARIABLE]))


def __getattr__(name: str) -> Any:
    """This module as NVML: a function of it, over the host in the file."""
    if not name.startswith("nvml"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_OF_THE_FILE, name)
