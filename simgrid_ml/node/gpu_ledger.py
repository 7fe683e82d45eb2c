"""What a virtual node's GPUs are and who uses how much of them: one small file, mapped by all.

The file describes the node's GPUs, so whoever has its path (variable ``SIMGRID_ML_GPU_LEDGER``)
needs nothing else: the stand-ins in the ranks, ``nvidia-smi``, the NVML library, the supervisor.
Each process that uses a GPU has a row and holds a lock on it; the kernel lets go of the lock when
the process ends, however it does, so that a row counts exactly as long as its process lives, seen
from any PID namespace. ``node/nvml.c`` reads the same layout.

Layout, little-endian::

    0     header: magic, number of GPUs, highest row ever used + 1, driver, CUDA version, node
    256   8 GPUs of 256 bytes: what each is, and the most that was ever used of it
    4096  256 rows of 192 bytes: a process, and its bytes on each GPU
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["MAX_GPUS", "MAX_PROCESSES", "Gpu", "Ledger", "Row", "create"]

MAX_GPUS = 8
"""No VM size has more."""
MAX_PROCESSES = 256

_MAGIC = b"SGMLGPU1"
_HEADER = struct.Struct("<8sII32s16s64s")
_HIGHEST = 12  # offset in the header
_GPU = struct.Struct("<96s48s32sQIHHQQII")
_GPUS_AT, _GPU_SIZE, _PEAK = 256, 256, 192
_ROWS_AT, _ROW_SIZE = 4096, 192
_ROW = struct.Struct(f"<qiiiIII{MAX_GPUS}q{MAX_GPUS}q32s")
_COLLECTIVE, _VISIBLE, _USED_MASK, _BYTES, _PEAKS = 16, 20, 24, 32, 32 + 8 * MAX_GPUS
_SIZE = _ROWS_AT + MAX_PROCESSES * _ROW_SIZE

# F_OFD_*: locks of an open file, not of a process
_GET_LOCK, _SET_LOCK, _SET_LOCK_WAITING = 36, 37, 38
_FLOCK = struct.Struct("hh4xqqi4x")


class Gpu(NamedTuple):
    """One virtual GPU.

    Attributes:
        name: as CUDA and ``nvidia-smi`` show it, ``"Tesla K80"``.
        uuid: ``"GPU-…"``.
        bus_id: ``"00000001:00:00.0"``.
        memory_bytes: all of its memory.
        sms: streaming multiprocessors.
        capability: compute capability, ``(3, 7)``.
        context_bytes: what each process needs before its first tensor.
        power_w: power limit.
    """

    name: str
    uuid: str
    bus_id: str
    memory_bytes: int
    sms: int
    capability: tuple[int, int]
    context_bytes: int = 0
    power_w: int = 0


class Row(NamedTuple):
    """A process that uses GPUs; the sequences have an entry per GPU of the node.

    Attributes:
        pid: in the node's own PID namespace.
        rank, local_rank: -1: it is not a task's.
        collective: the GPU it takes part in collectives with; None: none yet.
        visible: the GPUs it can see.
        used: those it has put anything on.
        bytes, peaks: taken now, and at most.
        name: of its program.
    """

    pid: int
    rank: int
    local_rank: int
    collective: int | None
    visible: tuple[int, ...]
    used: tuple[int, ...]
    bytes: tuple[int, ...]
    peaks: tuple[int, ...]
    name: str


def create(
    path: str, gpus: Sequence[Gpu], *, driver: str = "", cuda: str = "", node: str = ""
) -> None:
    """Write the ledger of a node that has ``gpus``; nobody uses them yet.

    Raises:
        ValueError: a node cannot have so many.
    """
    if len(gpus) > MAX_GPUS:
        raise ValueError(f"{len(gpus)} GPUs on one node: {MAX_GPUS} at most")
    content = bytearray(_SIZE)
    _HEADER.pack_into(
        content, 0, _MAGIC, len(gpus), 0, driver.encode(), cuda.encode(), node.encode()
    )
    for index, gpu in enumerate(gpus):
        _GPU.pack_into(
            content,
            _GPUS_AT + index * _GPU_SIZE,
            gpu.name.encode(),
            gpu.uuid.encode(),
            gpu.bus_id.encode(),
            gpu.memory_bytes,
            gpu.sms,
            *gpu.capability,
            0,
            gpu.context_bytes,
            gpu.power_w,
            0,
        )
    draft = f"{path}.{os.getpid()}"
    with open(draft, "wb") as stream:
        stream.write(content)
    os.chmod(draft, 0o666)  # a job's processes need not be the supervisor's user
    os.replace(draft, path)


class Ledger:
    """A node's ledger, for reading; ``claim`` makes it this process's for writing.

    Attributes:
        gpus: the node's GPUs.
        driver, cuda: versions that they are said to run under.
        node: the node's name.
    """

    def __init__(self, path: str) -> None:
        """
        Raises:
            OSError: there is no such file.
            ValueError: it is not a ledger.
        """
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            access = mmap.ACCESS_WRITE
        except PermissionError:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            access = mmap.ACCESS_READ
        try:
            if os.fstat(self._file).st_size != _SIZE:
                raise ValueError(f"{path} is not a ledger of GPUs")
            self._map = mmap.mmap(self._file, _SIZE, access=access)
        except BaseException:
            os.close(self._file)
            raise
        magic, count, _, driver, cuda, node = _HEADER.unpack_from(self._map)
        if magic != _MAGIC:
            self.close()
            raise ValueError(f"{path} is not a ledger of GPUs")
        self.driver, self.cuda, self.node = _text(driver), _text(cuda), _text(node)
        self.gpus = tuple(self._gpu(index) for index in range(count))
        self._row = -1
        self._lock = -1

    def _gpu(self, index: int) -> Gpu:
        name, uuid, bus, memory, sms, major, minor, _, context, power, _ = _GPU.unpack_from(
            self._map, _GPUS_AT + index * _GPU_SIZE
        )
        identity = (_text(name), _text(uuid), _text(bus))
        return Gpu(*identity, memory, sms, (major, minor), context, power)

    # -- for the process that owns a row ---------------------------------------------------
    def claim(
        self, *, rank: int = -1, local_rank: int = -1, visible: Sequence[int] = (), name: str = ""
    ) -> None:
        """Take a row for this process; it is given back when the process ends.

        Raises:
            OSError: the node has no row left.
        """
        # An open file of its own: neither what is mapped nor a child's copy then holds the lock.
        self._lock = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        for row in self._rows_to_claim():
            if self._locked(self._lock, _SET_LOCK, row) is None:
                continue
            self._row = row
            mask = sum(1 << gpu for gpu in visible)
            none = [0] * MAX_GPUS
            _ROW.pack_into(
                self._map,
                self._at(),
                *(os.getpid(), rank, local_rank, 0, mask, 0, 0, *none, *none),
                name.encode()[:31],
            )
            self._reach(row)
            return
        os.close(self._lock)
        self._lock = -1
        raise OSError(f"{MAX_PROCESSES} processes of this node use its GPUs already")

    def _reach(self, row: int) -> None:
        """Have readers look as far as ``row``; one process at a time, or a higher one is lost."""
        header = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        fcntl.fcntl(self._lock, _SET_LOCK_WAITING, header)
        try:
            if row >= self._highest():
                struct.pack_into("<I", self._map, _HIGHEST, row + 1)
        finally:
            header = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 1, 0)
            fcntl.fcntl(self._lock, _SET_LOCK, header)

    def _rows_to_claim(self) -> Iterator[int]:
        """Those that nobody has had, then those of the last that ended: ranks come first."""
        yield from (row for row in range(MAX_PROCESSES) if not self._pid(row))
        yield from reversed(range(MAX_PROCESSES))

    def put(self, gpu: int, taken: int) -> None:
        """This process now has ``taken`` bytes on the node's GPU number ``gpu``."""
        at = self._at()
        (before,) = struct.unpack_from("<q", self._map, at + _BYTES + 8 * gpu)
        struct.pack_into("<q", self._map, at + _BYTES + 8 * gpu, taken)
        if taken <= before:
            return
        if taken > struct.unpack_from("<q", self._map, at + _PEAKS + 8 * gpu)[0]:
            struct.pack_into("<q", self._map, at + _PEAKS + 8 * gpu, taken)
            (used,) = struct.unpack_from("<I", self._map, at + _USED_MASK)
            struct.pack_into("<I", self._map, at + _USED_MASK, used | 1 << gpu)
        peak_at = _GPUS_AT + gpu * _GPU_SIZE + _PEAK
        # Two may reach for the last of it at once, before either sees that there is no room.
        total = min(taken + self.others(gpu), self.gpus[gpu].memory_bytes)
        if total > struct.unpack_from("<Q", self._map, peak_at)[0]:
            struct.pack_into("<Q", self._map, peak_at, total)

    def put_collective(self, gpu: int) -> None:
        """This process takes part in collectives with ``gpu``."""
        struct.pack_into("<i", self._map, self._at() + _COLLECTIVE, gpu + 1)

    def put_visible(self, visible: Sequence[int]) -> None:
        """This process has chosen among the GPUs that it could see."""
        mask = sum(1 << gpu for gpu in visible)
        struct.pack_into("<I", self._map, self._at() + _VISIBLE, mask)

    def others(self, gpu: int) -> int:
        """Bytes that other living processes have on ``gpu``."""
        total = 0
        for row in range(self._highest()):
            if row == self._row:
                continue
            at = _ROWS_AT + row * _ROW_SIZE
            (taken,) = struct.unpack_from("<q", self._map, at + _BYTES + 8 * gpu)
            if taken and self._lives(row):
                total += taken
        return total

    # -- for everybody ---------------------------------------------------------------------
    def rows(self, *, ended: bool = False) -> Iterator[Row]:
        """All living processes that have a row.

        Args:
            ended: also those that have ended, however they did, with what they had last. The row
                of one is lost when more than ``MAX_PROCESSES`` have used the node's GPUs.
        """
        count = len(self.gpus)
        for row in range(self._highest()):
            at = _ROWS_AT + row * _ROW_SIZE
            pid, rank, local, collective, visible, used, _, *rest = _ROW.unpack_from(self._map, at)
            if pid and (ended or self._lives(row)):
                yield Row(
                    *(pid, rank, local, collective - 1 if collective else None),
                    tuple(gpu for gpu in range(count) if visible >> gpu & 1),
                    tuple(gpu for gpu in range(count) if used >> gpu & 1),
                    tuple(rest[:count]),
                    tuple(rest[MAX_GPUS : MAX_GPUS + count]),
                    _text(rest[-1]),
                )

    def used(self) -> tuple[int, ...]:
        """Bytes taken of each GPU, by all living processes together."""
        taken = [row.bytes for row in self.rows()]
        return tuple(sum(one[gpu] for one in taken) for gpu in range(len(self.gpus)))

    def peaks(self) -> tuple[int, ...]:
        """The most bytes that were ever taken of each GPU, by all processes together."""
        return tuple(
            struct.unpack_from("<Q", self._map, _GPUS_AT + gpu * _GPU_SIZE + _PEAK)[0]
            for gpu in range(len(self.gpus))
        )

    def detach(self) -> None:
        """In a forked child: the row stays the parent's."""
        if self._lock >= 0:
            os.close(self._lock)
        self._row = self._lock = -1

    def close(self) -> None:
        """Give the row back, and the file."""
        self.detach()
        self._map.close()
        os.close(self._file)

    def _at(self) -> int:
        return _ROWS_AT + self._row * _ROW_SIZE

    def _highest(self) -> int:
        highest: int = struct.unpack_from("<I", self._map, _HIGHEST)[0]
        return min(highest, MAX_PROCESSES)

    def _pid(self, row: int) -> int:
        pid: int = struct.unpack_from("<q", self._map, _ROWS_AT + row * _ROW_SIZE)[0]
        return pid

    def _lives(self, row: int) -> bool:
        if row == self._row:
            return True
        held = self._locked(self._file, _GET_LOCK, row)
        return held is None or held != fcntl.F_UNLCK

    def _locked(self, file: int, how: int, row: int) -> int | None:
        """The lock's type afterwards; None: somebody else has it."""
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _ROWS_AT + row * _ROW_SIZE, 1, 0)
        try:
            kind: int = _FLOCK.unpack(fcntl.fcntl(file, how, wanted))[0]
        except (BlockingIOError, PermissionError):
            return None
        return kind


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")
