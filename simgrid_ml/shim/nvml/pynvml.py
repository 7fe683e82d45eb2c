"""NVML for Python on nodes whose GPUs are virtual, where no C compiler could make the library.

Stands in for the ``pynvml`` module of nvidia-ml-py and answers from the node's ledger. What it has
no function for does not exist (``AttributeError``); what a virtual GPU has not, such as a
temperature, is ``NVMLError_NotSupported``. See ``node/nvml.c``, which is asked where it can be.
"""

import os

from simgrid_ml.node.gpu_activity import activity
from simgrid_ml.node.gpu_ledger import Ledger

NVML_SUCCESS = 0
NVML_ERROR_UNINITIALIZED = 1
NVML_ERROR_INVALID_ARGUMENT = 2
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_FUNCTION_NOT_FOUND = 13
NVML_TEMPERATURE_GPU = 0
NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO = range(4)
nvmlMemory_v2 = 40 | 2 << 24
NVML_COMPUTEMODE_DEFAULT = 0
NVML_FEATURE_DISABLED, NVML_FEATURE_ENABLED = 0, 1

_TEXTS = {
    NVML_ERROR_UNINITIALIZED: "Uninitialized",
    NVML_ERROR_INVALID_ARGUMENT: "Invalid Argument",
    NVML_ERROR_NOT_SUPPORTED: "Not Supported",
    NVML_ERROR_NOT_FOUND: "Not Found",
    NVML_ERROR_DRIVER_NOT_LOADED: "Driver Not Loaded",
    NVML_ERROR_LIBRARY_NOT_FOUND: "NVML Shared Library Not Found",
    NVML_ERROR_FUNCTION_NOT_FOUND: "Function Not Found",
}


class NVMLError(Exception):
    """As nvidia-ml-py's; ``NVMLError(code)`` makes one of the class for its code."""

    value = None

    def __new__(cls, value=None):
        code = cls.value if value is None else value
        made = Exception.__new__(_CLASSES.get(code, cls))
        made.value = code
        return made

    def __init__(self, value=None):
        super().__init__(self.value)

    def __str__(self):
        return nvmlErrorString(self.value)


_CLASSES = {}


def _error(name, code):
    made = type("NVMLError_" + name, (NVMLError,), {"value": code})
    _CLASSES[code] = made
    return made


NVMLError_Uninitialized = _error("Uninitialized", NVML_ERROR_UNINITIALIZED)
NVMLError_InvalidArgument = _error("InvalidArgument", NVML_ERROR_INVALID_ARGUMENT)
NVMLError_NotSupported = _error("NotSupported", NVML_ERROR_NOT_SUPPORTED)
NVMLError_NotFound = _error("NotFound", NVML_ERROR_NOT_FOUND)
NVMLError_DriverNotLoaded = _error("DriverNotLoaded", NVML_ERROR_DRIVER_NOT_LOADED)
NVMLError_LibraryNotFound = _error("LibraryNotFound", NVML_ERROR_LIBRARY_NOT_FOUND)
NVMLError_FunctionNotFound = _error("FunctionNotFound", NVML_ERROR_FUNCTION_NOT_FOUND)


class _Values:
    """Stands for one of NVML's structures."""

    def __init__(self, **values):
        self.__dict__.update(values)

    def __repr__(self):
        return repr(self.__dict__)


class _Device:
    def __init__(self, number):
        self.number = number


_ledger = None
_users = 0


def nvmlInit():
    global _ledger, _users
    if _users == 0:
        try:
            _ledger = Ledger(os.environ["SIMGRID_ML_GPU_LEDGER"])
        except (KeyError, OSError, ValueError):
            raise NVMLError(NVML_ERROR_DRIVER_NOT_LOADED) from None
    _users += 1


def nvmlInitWithFlags(flags):
    nvmlInit()


def nvmlShutdown():
    global _ledger, _users
    _read()
    _users -= 1
    if _users == 0:
        _ledger.close()
        _ledger = None


def _read():
    if _ledger is None:
        raise NVMLError(NVML_ERROR_UNINITIALIZED)
    return _ledger


def _gpu(handle):
    return _read().gpus[handle.number]


def nvmlErrorString(result):
    return _TEXTS.get(result, "Unknown Error")


def nvmlSystemGetDriverVersion():
    return _read().driver


def nvmlSystemGetNVMLVersion():
    return f"{_read().cuda.partition('.')[0]}.{_ledger.driver}"


def nvmlSystemGetCudaDriverVersion():
    major, _, minor = _read().cuda.partition(".")
    return int(major) * 1000 + int(minor or 0) * 10


nvmlSystemGetCudaDriverVersion_v2 = nvmlSystemGetCudaDriverVersion


def nvmlSystemGetProcessName(pid):
    for row in _read().rows():
        if row.pid == pid:
            return row.name
    raise NVMLError(NVML_ERROR_NOT_FOUND)


def nvmlDeviceGetCount():
    return len(_read().gpus)


def nvmlDeviceGetHandleByIndex(index):
    if not 0 <= index < nvmlDeviceGetCount():
        raise NVMLError(NVML_ERROR_INVALID_ARGUMENT)
    return _Device(index)


def _found(wanted, of):
    wanted = wanted.decode() if isinstance(wanted, bytes) else wanted
    for number, gpu in enumerate(_read().gpus):
        if wanted.lower() in of(gpu):
            return _Device(number)
    raise NVMLError(NVML_ERROR_NOT_FOUND)


def nvmlDeviceGetHandleByUUID(uuid):
    return _found(uuid, lambda gpu: (gpu.uuid.lower(),))


def nvmlDeviceGetHandleByPciBusId(bus_id):
    return _found(bus_id, lambda gpu: (gpu.bus_id.lower(), gpu.bus_id.lower()[4:]))


def nvmlDeviceGetIndex(handle):
    _gpu(handle)
    return handle.number


nvmlDeviceGetMinorNumber = nvmlDeviceGetBoardId = nvmlDeviceGetIndex


def nvmlDeviceGetName(handle):
    return _gpu(handle).name


def nvmlDeviceGetUUID(handle):
    return _gpu(handle).uuid


def nvmlDeviceGetPciInfo(handle):
    domain, bus, rest = _gpu(handle).bus_id.split(":")
    return _Values(
        busId=_gpu(handle).bus_id,
        busIdLegacy=_gpu(handle).bus_id[4:],
        domain=int(domain, 16),
        bus=int(bus, 16),
        device=int(rest.partition(".")[0], 16),
        pciDeviceId=0,
        pciSubSystemId=0,
    )


def nvmlDeviceGetCudaComputeCapability(handle):
    return _gpu(handle).capability


def nvmlDeviceGetMemoryInfo(handle, version=None):
    total, used = _gpu(handle).memory_bytes, _ledger.used()[handle.number]
    return _Values(total=total, free=max(0, total - used), used=used, reserved=0)


def nvmlDeviceGetComputeRunningProcesses(handle):
    _gpu(handle)
    none = 0xFFFFFFFF
    return [
        _Values(
            pid=row.pid,
            usedGpuMemory=row.bytes[handle.number],
            gpuInstanceId=none,
            computeInstanceId=none,
        )
        for row in _ledger.rows()
        if handle.number in row.used
    ]


nvmlDeviceGetComputeRunningProcesses_v2 = nvmlDeviceGetComputeRunningProcesses
nvmlDeviceGetComputeRunningProcesses_v3 = nvmlDeviceGetComputeRunningProcesses


def nvmlDeviceGetGraphicsRunningProcesses(handle):
    _gpu(handle)
    return []


nvmlDeviceGetMPSComputeRunningProcesses = nvmlDeviceGetGraphicsRunningProcesses


def nvmlDeviceGetUtilizationRates(handle):
    _gpu(handle)
    busy = activity(_ledger)[handle.number]
    if busy is None:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return _Values(gpu=busy, memory=0)


def nvmlDeviceGetEnforcedPowerLimit(handle):
    return _gpu(handle).power_w * 1000


nvmlDeviceGetPowerManagementLimit = nvmlDeviceGetEnforcedPowerLimit
nvmlDeviceGetPowerManagementDefaultLimit = nvmlDeviceGetEnforcedPowerLimit


def _zero(handle):
    _gpu(handle)
    return 0


nvmlDeviceGetComputeMode = nvmlDeviceGetPersistenceMode = _zero
nvmlDeviceGetDisplayMode = nvmlDeviceGetDisplayActive = nvmlDeviceGetPerformanceState = _zero


def nvmlDeviceGetMigMode(handle):
    if _gpu(handle).capability not in ((8, 0), (9, 0)):
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return [NVML_FEATURE_DISABLED, NVML_FEATURE_DISABLED]


def _not_supported(handle, *_):
    _gpu(handle)
    raise NVMLError(NVML_ERROR_NOT_SUPPORTED)


nvmlDeviceGetSerial = nvmlDeviceGetTemperature = nvmlDeviceGetPowerUsage = _not_supported
nvmlDeviceGetFanSpeed = nvmlDeviceGetClockInfo = nvmlDeviceGetMaxClockInfo = _not_supported
nvmlDeviceGetTotalEnergyConsumption = nvmlDeviceGetEccMode = _not_supported
nvmlDeviceGetEncoderUtilization = nvmlDeviceGetDecoderUtilization = _not_supported
