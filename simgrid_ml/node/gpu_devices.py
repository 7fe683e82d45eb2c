"""The virtual GPUs that this process sees, and the memory it takes of them.

Knows no framework: stand-ins for CUDA in ``shim/virtual_gpu`` ask here before they allocate, and
say when something is gone. A GPU's memory is shared by all processes of the node, see
``gpu_ledger``.
"""

from __future__ import annotations

import collections
import os
import sys
import threading
from typing import Deque, List, Optional

from simgrid_ml import wire
from simgrid_ml.node.gpu_ledger import Gpu, Ledger

__all__ = ["Device", "Devices", "OutOfMemory", "visible_gpus"]

_BLOCK = 512
"""CUDA's allocators round every request up to this."""
_SEGMENT = 2 * 2**20
"""In such pieces memory is taken from the GPU, and kept until ``empty_cache``."""
_LARGE = 64 * 2**20
"""Before it takes so much more, a process looks whether the host can back it."""


class OutOfMemory(Exception):
    """A GPU is full, or the host cannot back it; frameworks make their own error of it.

    Attributes:
        device: which GPU.
        wanted: bytes asked for.
        others: bytes that other processes of the node have on it.
        host_bytes: None: the GPU is full; else what the host, or the node, has left.
    """

    def __init__(
        self, device: Device, wanted: int, others: int, host_bytes: Optional[int] = None
    ) -> None:
        super().__init__(f"GPU {device.index} has no room for {wanted} bytes")
        self.device = device
        self.wanted = wanted
        self.others = others
        self.host_bytes = host_bytes


class Device:
    """A GPU as this process sees it; all sizes in bytes.

    Attributes:
        index: its ordinal in this process.
        number: its ordinal on the node.
        gpu: what it is.
        allocated, peak: by this process, now and at most.
        reserved, peak_reserved: taken from the GPU for that, in whole segments.
        fraction: share of the GPU that this process may take.
        taken: by this process since its start, given back or not.
        allocations, frees, failures: how many there were.
    """

    def __init__(self, index: int, number: int, gpu: Gpu, ledger: Ledger) -> None:
        self.index = index
        self.number = number
        self.gpu = gpu
        self._ledger = ledger
        self._lock = threading.Lock()
        self._given: Deque[int] = collections.deque()
        self.give = self._given.append
        """Say that so many bytes that were taken are free; from anywhere, a finalizer too."""
        self._allocated = 0
        self.peak = self.reserved = self.peak_reserved = 0
        self.fraction = 1.0
        self.taken = self.allocations = self.frees = self.failures = 0

    @property
    def allocated(self) -> int:
        with self._lock:
            return self._settled()

    def _settled(self) -> int:
        while self._given:
            self._allocated -= self._given.popleft()
            self.frees += 1
        return self._allocated

    def take(self, size: int) -> int:
        """Take ``size`` bytes; returns how many it came to, which is what to give back.

        Raises:
            OutOfMemory: there is no room.
        """
        size = -(-size // _BLOCK) * _BLOCK
        with self._lock:
            after = self._settled() + size
            if after > self.reserved:
                self._grow(after, size)
            self._allocated = after
            self.taken += size
            self.allocations += 1
            if after > self.peak:
                self.peak = after
        return size

    def require(self, size: int) -> None:
        """See to it that ``size`` bytes can be taken; nothing is.

        Raises:
            OutOfMemory: there is no room.
        """
        with self._lock:
            after = self._settled() + size
            if after > self.reserved:
                self._grow(after, size)

    def _grow(self, after: int, size: int) -> None:
        others = self._ledger.others(self.number)
        most = min(int(self.gpu.memory_bytes * self.fraction), self.gpu.memory_bytes - others)
        most -= self.gpu.context_bytes
        if after > most:
            self.failures += 1
            raise OutOfMemory(self, size, others)
        if size >= _LARGE:
            left = host_bytes_left()
            if left is not None and size > left:
                self.failures += 1
                raise OutOfMemory(self, size, others, left)
        self._reserve(min(-(-after // _SEGMENT) * _SEGMENT, most))

    def _reserve(self, reserved: int) -> None:
        self.reserved = reserved
        self.peak_reserved = max(self.peak_reserved, reserved)
        self._ledger.put(self.number, reserved + self.gpu.context_bytes)

    def free(self) -> int:
        """Bytes that nobody has taken of the GPU."""
        taken = self.reserved + self.gpu.context_bytes + self._ledger.others(self.number)
        return max(0, self.gpu.memory_bytes - taken)

    def others(self) -> int:
        """Bytes that the node's other processes have on the GPU."""
        return self._ledger.others(self.number)

    def empty_cache(self) -> None:
        """Give back what is reserved and not in use."""
        with self._lock:
            self._reserve(-(-self._settled() // _SEGMENT) * _SEGMENT)

    def reset_peaks(self) -> None:
        """Peaks begin again from what is taken now."""
        with self._lock:
            self.peak = self._settled()
            self.peak_reserved = self.reserved


class Devices(List[Device]):
    """The GPUs that this process sees, by ordinal.

    Args:
        path: the node's ledger; None: as the environment says.
        visible: as ``CUDA_VISIBLE_DEVICES``; None: as the environment says.

    Attributes:
        ledger: the node's.

    Raises:
        OSError, ValueError: there is no ledger.
    """

    def __init__(self, path: Optional[str] = None, visible: Optional[str] = None) -> None:
        self.ledger = Ledger(path or os.environ[wire.GPU_LEDGER_VARIABLE])
        super().__init__()
        self._given = visible
        self._claimed = False
        self._see(self._wanted())

    def _wanted(self) -> Optional[str]:
        return os.environ.get("CUDA_VISIBLE_DEVICES") if self._given is None else self._given

    def _see(self, visible: Optional[str]) -> None:
        self._visible = visible
        gpus = self.ledger.gpus
        numbers = visible_gpus(visible, [gpu.uuid for gpu in gpus])
        self[:] = [Device(i, number, gpus[number], self.ledger) for i, number in enumerate(numbers)]

    def look_again(self) -> None:
        """As the environment says by now: a script may hide GPUs as long as it has used none."""
        visible = self._wanted()
        if not self._claimed and visible != self._visible:
            self._see(visible)

    def attach(self) -> None:
        """Be known on the node as a process that uses GPUs, from here to the process's end."""
        if self._claimed:
            return
        self._claimed = True
        self.ledger.claim(
            rank=int(os.environ.get(wire.RANK_VARIABLE, -1)),
            local_rank=int(os.environ.get(wire.LOCAL_RANK_VARIABLE, -1)),
            visible=[device.number for device in self],
            name=os.path.basename(sys.executable or "python"),
        )
        os.register_at_fork(after_in_child=self.ledger.detach)


def visible_gpus(value: Optional[str], uuids: List[str]) -> List[int]:
    """The ordinals that ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    As CUDA reads it: ordinals or beginnings of UUIDs; whatever follows the first that is none is
    ignored, and one that is named twice hides all.

    >>> uuids = ["GPU-aa", "GPU-ab", "GPU-b"]
    >>> visible_gpus(None, uuids), visible_gpus("2,0", uuids), visible_gpus("0,7,1", uuids)
    ([0, 1, 2], [2, 0], [0])
    >>> visible_gpus("", uuids), visible_gpus("1,1", uuids), visible_gpus("GPU-b,GPU-a", uuids)
    ([], [], [2])
    """
    if value is None:
        return list(range(len(uuids)))
    chosen: List[int] = []
    for word in value.split(","):
        word = word.strip()
        if word.isdigit():
            found = [int(word)] if int(word) < len(uuids) else []
        else:
            found = [n for n, uuid in enumerate(uuids) if word and uuid.startswith(word)]
        if len(found) != 1:
            break
        chosen += found
    return chosen if len(set(chosen)) == len(chosen) else []


def host_bytes_left() -> Optional[int]:
    """What this process can still take of the host's memory, or of its node's; None: unknown."""
    rooms = [_available()]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        most, now = _number(limit), _number(used)
        if most is not None and now is not None:
            rooms.append(max(0, most - now))
    known = [room for room in rooms if room is not None]
    return min(known) if known else None


def _available() -> Optional[int]:
    try:
        with open("/proc/meminfo", "rb") as stream:
            for line in stream:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _number(path: str) -> Optional[int]:
    try:
        with open(path, "rb") as stream:
            return int(stream.read())
    except (OSError, ValueError):  # "max" is no number, and no limit
        return None
