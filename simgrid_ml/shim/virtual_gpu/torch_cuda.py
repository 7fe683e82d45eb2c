"""What ``torch.cuda`` calls in C++, answered for the node's GPUs.

``torch.cuda`` is Python on some eighty functions of ``torch._C``, which a CPU build lacks. They are
given to it here and in the modules named below, so that the rest, its checks, defaults and errors,
is torch's own in any version.
"""

import types

from . import (
    torch_backends,
    torch_cuda_memory,
    torch_private,
    torch_random,
    torch_refused,
    torch_streams,
    torch_types,
)

__all__ = ["give", "install"]


def install(gpus):
    """Change ``torch.cuda``, ``torch.accelerator`` and what they stand on."""
    torch = gpus.torch
    _give_devices(gpus)
    _give_accelerator(gpus)
    _change_initialization(gpus)
    for part in (
        *(torch_streams, torch_cuda_memory, torch_random),
        *(torch_backends, torch_types, torch_refused),
    ):
        part.install(gpus)
    if not torch.version.cuda:
        torch.version.cuda = gpus.devices.ledger.cuda


def give(torch, prefix, functions):
    """Have ``torch._C`` answer as ``functions`` do; their names go behind ``prefix``."""
    for name, function in functions.items():
        setattr(torch._C, prefix + name, function)


# -- devices --------------------------------------------------------------------------------


def _give_devices(gpus):
    torch = gpus.torch
    cuda = torch.cuda
    debug_mode = [0]

    def device_count():
        gpus.devices.look_again()
        return len(gpus.devices)

    def set_device(device):
        gpus.lazy_init()
        gpus.thread.current = gpus.index_of(device)

    def exchange_device(device):
        if device is None or device < 0:
            return -1
        before = gpus.thread.current
        gpus.thread.current = gpus.index_of(device)
        return before

    def get_properties(device):
        return _Properties(gpus.devices[device])

    give(
        torch,
        "_cuda_",
        {
            "init": gpus.lazy_init,
            "isInBadFork": lambda: gpus.forked,
            "getDeviceCount": device_count,
            "getDevice": lambda: gpus.thread.current,
            "setDevice": set_device,
            "exchangeDevice": exchange_device,
            "maybeExchangeDevice": exchange_device,
            "synchronize": lambda: None,
            "canDeviceAccessPeer": lambda one, other: one != other,
            "getArchFlags": lambda: " ".join(_architectures(gpus)) or None,
            "getCompiledVersion": lambda: _version_number(gpus.devices.ledger.cuda),
            "getDriverVersion": lambda: _version_number(gpus.devices.ledger.cuda),
            "ipc_collect": lambda: None,
            "getCurrentBlasHandle": lambda: 1,
            "getCurrentSolverHandle": lambda: 1,
            "set_sync_debug_mode": lambda mode: debug_mode.__setitem__(0, mode),
            "get_sync_debug_mode": lambda: debug_mode[0],
            "sleep": lambda cycles: None,
            "hasPrimaryContext": lambda device: gpus.initialized,
        },
    )
    torch._C._has_cuda = True
    torch._C._CudaDeviceProperties = _Properties
    replace = torch_private.replace
    replace(cuda, "_CudaDeviceProperties", _Properties)
    replace(cuda, "_exchange_device", exchange_device)
    torch_private.add(cuda, "_maybe_exchange_device", exchange_device)
    # NVML may be that of the host, whose GPUs are none of the node's.
    torch_private.add(cuda, "_device_count_nvml", lambda: -1)
    cuda._get_device_properties = get_properties
    cuda._cudart = _runtime(gpus)


def _change_initialization(gpus):
    """Whether CUDA is in use is known to ``gpus`` alone; nothing waits for it in a queue."""
    cuda = gpus.torch.cuda
    started = {
        "_lazy_init": gpus.lazy_init,
        "init": gpus.lazy_init,
        "is_initialized": lambda: gpus.initialized and not gpus.forked,
        "_is_in_bad_fork": lambda: gpus.forked,
        "_lazy_call": lambda call, **kind: call(),
    }
    for module in (cuda, cuda.memory, cuda.random):
        for name, function in started.items():
            torch_private.add(module, name, function)
    # Asks whether this build of torch has kernels for the GPUs, which does not matter here.
    torch_private.replace(cuda, "_queued_calls", [])


def _architectures(gpus):
    return sorted({"sm_{}{}".format(*device.gpu.capability) for device in gpus.devices})


def _version_number(version):
    """ "11.4" as CUDA counts: 11040."""
    major, _, minor = version.partition(".")
    return 1000 * int(major or 0) + 10 * int(minor or 0)


_OF_CAPABILITY = {
    (3, 7): (2048, 131072, 112, 1.5),
    (5, 2): (2048, 65536, 96, 2),
    (6, 0): (2048, 65536, 64, 4),
    (6, 1): (2048, 65536, 96, 3),
    (7, 0): (2048, 65536, 96, 6),
    (7, 5): (1024, 65536, 64, 4),
    (8, 0): (2048, 65536, 164, 40),
    (8, 6): (1536, 65536, 100, 6),
    (9, 0): (2048, 65536, 228, 50),
}
"""Threads, registers and KiB of shared memory of an SM; MiB of L2 cache."""


class _Properties:
    """As ``torch.cuda.get_device_properties`` shows a GPU.

    Args:
        device: of ``node.gpu_devices``.
    """

    warp_size = 32
    max_threads_per_block = 1024
    shared_memory_per_block = 48 * 1024
    is_integrated = is_multi_gpu_board = 0
    gcnArchName = ""

    def __init__(self, device):
        gpu = device.gpu
        self.name = gpu.name
        self.major, self.minor = gpu.capability
        self.total_memory = gpu.memory_bytes
        self.multi_processor_count = gpu.sms
        self.uuid = gpu.uuid[4:] if gpu.uuid.startswith("GPU-") else gpu.uuid
        domain, bus, place = gpu.bus_id.split(":")
        self.pci_domain_id, self.pci_bus_id = int(domain, 16), int(bus, 16)
        self.pci_device_id = int(place.split(".")[0], 16)
        threads, registers, shared, cache = _OF_CAPABILITY.get(gpu.capability, _OF_CAPABILITY[9, 0])
        self.max_threads_per_multi_processor = threads
        self.regs_per_multiprocessor = registers
        self.shared_memory_per_multiprocessor = shared * 1024
        self.shared_memory_per_block_optin = (shared - 1) * 1024
        self.L2_cache_size = int(cache * 2**20)

    def __repr__(self):
        return (
            f"_CudaDeviceProperties(name='{self.name}', major={self.major}, minor={self.minor}, "
            f"total_memory={self.total_memory >> 20}MB, "
            f"multi_processor_count={self.multi_processor_count}, uuid={self.uuid}, "
            f"pci_bus_id={self.pci_bus_id}, pci_device_id={self.pci_device_id}, "
            f"pci_domain_id={self.pci_domain_id}, L2_cache_size={self.L2_cache_size >> 20}MB)"
        )


def _runtime(gpus):
    """The part of the CUDA runtime that torch has a Python module for."""

    class cudaError(int):
        """A result of the runtime; 0 is success."""

    cudaError.success = cudaError(0)

    def memory(device):
        there = gpus.at(device)
        return there.free(), there.gpu.memory_bytes

    def succeed(*args):
        return cudaError.success

    runtime = types.ModuleType("torch._C._cudart")
    runtime.cudaError = cudaError
    runtime.cudaGetErrorString = lambda error: "no error" if error == 0 else "unknown error"
    runtime.cudaMemGetInfo = memory
    for name in (
        *("cudaProfilerStart", "cudaProfilerStop", "cudaHostRegister", "cudaHostUnregister"),
        *("cudaStreamCreate", "cudaStreamDestroy"),
    ):
        setattr(runtime, name, succeed)
    return runtime


# -- accelerator ----------------------------------------------------------------------------


def _give_accelerator(gpus):
    torch = gpus.torch

    def accelerator(*check):
        return torch.device("cuda") if gpus.devices else None

    def memory_info(device):
        there = gpus.at(device)
        return there.free(), there.gpu.memory_bytes

    def stats(device):
        return torch._C._cuda_memoryStats(device)

    functions = {
        "getAccelerator": accelerator,
        "getDeviceIndex": lambda: torch._C._cuda_getDevice(),
        "setDeviceIndex": lambda device: torch._C._cuda_setDevice(device),
        "exchangeDevice": lambda device: torch._C._cuda_exchangeDevice(device),
        "maybeExchangeDevice": lambda device: torch._C._cuda_maybeExchangeDevice(device),
        "synchronizeDevice": lambda device: gpus.index_of(device) and None,
        "getStream": lambda device: torch.cuda.current_stream(device),
        "setStream": lambda stream: torch.cuda.set_stream(stream),
        "isAllocatorInitialized": lambda: gpus.initialized,
        "emptyCache": lambda: torch.cuda.empty_cache(),
        "emptyHostCache": lambda: None,
        "getDeviceStats": stats,
        "resetAccumulatedStats": lambda device: torch._C._cuda_resetAccumulatedMemoryStats(device),
        "resetPeakStats": lambda device: torch._C._cuda_resetPeakMemoryStats(device),
        "getMemoryInfo": memory_info,
        "getDeviceCapability": lambda device: {"supported_dtypes": _dtypes(torch)},
    }
    for name, function in functions.items():
        torch_private.add(torch._C, "_accelerator_" + name, function)
    if gpus.devices:
        torch_private.add(torch._C, "_get_accelerator", accelerator)
        torch_private.add(torch._utils, "_get_available_device_type", lambda: "cuda")


def _dtypes(torch):
    return {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
