"""What a storage takes of its GPU, and what is said when there is no room."""

import ctypes
import os

__all__ = ["Charge", "host_message", "keep_freed", "message", "release_freed"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # in malloc.h
_KEPT = 2**30
_IN_HEAP = 32 * 2**20  # the most that glibc comes to by itself


class Charge:
    """Bytes of a GPU that are given back when this object goes; it hangs on their storage.

    Args:
        device: whose.
        size: as ``device.take`` has returned it.
    """

    __slots__ = ("bytes", "device")

    def __init__(self, device, size):
        self.device = device
        self.bytes = size

    def resize(self, size):
        """The storage has become larger or smaller.

        Raises:
            OutOfMemory: there is no room.
        """
        before, self.bytes = self.bytes, self.device.take(size)
        self.device.give(before)

    def __del__(self):
        self.device.give(self.bytes)


def keep_freed():
    """Have the host's allocator keep what is freed for the next step, as CUDA's does.

    glibc gives it back and fetches it again, page by page: thousands of faults a step. Does
    nothing with another allocator, or where the environment has settings for this one.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:
        change(_TRIM_THRESHOLD, _KEPT)
        change(_MMAP_THRESHOLD, _IN_HEAP)


def release_freed():
    """Give back to the host what is kept."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def message(error):
    """What the cloud says of ``node.gpu_devices.OutOfMemory``, and what is to be done."""
    device = error.device
    total = device.gpu.memory_bytes
    context = device.gpu.context_bytes
    mine = device.reserved + context
    free = max(0, min(int(total * device.fraction), total - error.others) - mine)
    text = (
        f"CUDA out of memory. Tried to allocate {_size(error.wanted)}. GPU {device.index} has a "
        f"total capacity of {_size(total)} of which {_size(free)} is free. "
    )
    if error.others:
        text += f"Other processes of the node have {_size(error.others)} memory in use. "
    allocated = device.allocated
    text += (
        f"Process {os.getpid()} has {_size(mine)} memory in use. Of the allocated memory "
        f"{_size(allocated)} is allocated by PyTorch, and "
        f"{_size(max(0, device.reserved - allocated))} is reserved by PyTorch but unallocated.\n"
    )
    if error.host_bytes is not None:
        return text + host_message(device.index, error.host_bytes)
    return text + (
        f"[simgrid-ml] this is the memory of a {device.gpu.name}: use a smaller batch, or a VM "
        "size with larger GPUs"
    )


def host_message(gpu, left=None):
    """The GPU would have room, the host that stands in for it has none."""
    has = "has no memory left" if left is None else f"has {_size(left)} left"
    return (
        f"[simgrid-ml] the host backs GPU {gpu} and {has}: a real one would have had room; use "
        "fewer nodes, or a smaller batch"
    )


def _size(count):
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.2f} {unit}"
    return f"{count} bytes"
