"""``torch.cuda.memory``: what the allocator has to say of itself, and fixed shares of a GPU."""

from . import torch_cuda, torch_memory

__all__ = ["install"]


def install(gpus):
    """Answer for the allocator of a CUDA build."""
    torch = gpus.torch
    pinned = {}  # raw allocations by address

    def set_fraction(fraction, device):
        gpus.at(device).fraction = fraction

    def empty_cache():
        for device in gpus.devices:
            device.empty_cache()
        torch_memory.release_freed()

    def raw_alloc(size, stream=0):
        storage = torch.UntypedStorage(size)
        gpus.charge(storage, gpus.thread.current)
        pinned[storage.data_ptr()] = storage
        return storage.data_ptr()

    def memory_snapshot(*which):
        segments = [_segment(device) for device in gpus.devices if device.reserved]
        return {"segments": segments, "device_traces": [[] for _ in gpus.devices]}

    torch_cuda.give(
        torch,
        "_cuda_",
        {
            "setMemoryFraction": set_fraction,
            "getMemoryFraction": lambda device: gpus.at(device).fraction,
            "emptyCache": empty_cache,
            "memoryStats": lambda device: _stats(gpus.at(device)),
            "resetAccumulatedMemoryStats": lambda device: _forget(gpus.at(device)),
            "resetPeakMemoryStats": lambda device: gpus.at(device).reset_peaks(),
            "hostMemoryStats": _host_stats,
            "resetAccumulatedHostMemoryStats": lambda: None,
            "resetPeakHostMemoryStats": lambda: None,
            "memorySnapshot": memory_snapshot,
            "record_memory_history": lambda *what, **how: None,
            "record_memory_history_legacy": lambda *what, **how: None,
            "getAllocatorBackend": lambda: "native",
            "cudaCachingAllocator_raw_alloc": raw_alloc,
            "cudaCachingAllocator_raw_delete": lambda address: pinned.pop(address) and None,
            "cudaCachingAllocator_enable": lambda enabled: None,
            "cudaCachingAllocator_is_enabled": lambda: True,
            "cudaCachingAllocator_set_allocator_settings": lambda settings: None,
        },
    )


def _forget(device):
    device.taken = device.allocated
    device.allocations -= device.frees
    device.frees = device.failures = 0


def _stats(device):
    """As ``torch.cuda.memory_stats`` shows them, nested; there are no pools of small blocks."""
    allocated = device.allocated
    live = device.allocations - device.frees
    taken = _stat(allocated, device.peak, device.taken)
    blocks = _stat(live, live, device.allocations)
    reserved = _stat(device.reserved, device.peak_reserved, device.peak_reserved)
    segments = _stat(int(device.reserved > 0), int(device.peak_reserved > 0), 1)
    none = _stat(0, 0, 0)
    stats = {
        "allocated_bytes": taken,
        "active_bytes": taken,
        "requested_bytes": taken,
        "reserved_bytes": reserved,
        "inactive_split_bytes": none,
        "allocation": blocks,
        "active": blocks,
        "segment": segments,
        "inactive_split": none,
    }
    nested = {
        name: {"all": stat, "small_pool": none, "large_pool": stat} for name, stat in stats.items()
    }
    counts = {"num_ooms": device.failures, "max_split_size": -1}
    for name in (
        *("num_alloc_retries", "num_sync_all_streams", "num_device_alloc", "num_device_free"),
    ):
        counts[name] = 0
    return {**nested, **counts, "oversize_allocations": none, "oversize_segments": none}


def _stat(current, peak, ever):
    return {"current": current, "peak": peak, "allocated": ever, "freed": max(0, ever - current)}


def _host_stats():
    none = _stat(0, 0, 0)
    times = {"count": 0, "max": 0, "min": 0, "total": 0}
    return {
        **dict.fromkeys(("allocated_bytes", "active_bytes", "allocation", "active"), none),
        **dict.fromkeys(("segment", "reserved_bytes"), none),
        **dict.fromkeys(("host_alloc_time", "host_free_time"), times),
        "num_host_alloc": 0,
        "num_host_free": 0,
    }


def _segment(device):
    """All of a GPU's reserved memory as one piece; there are no addresses to tell."""
    return {
        "device": device.index,
        "address": 0,
        "total_size": device.reserved,
        "allocated_size": device.allocated,
        "active_size": device.allocated,
        "requested_size": device.allocated,
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": [],
    }
