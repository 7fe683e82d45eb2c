"""Which part of a real GPU is behind each virtual GPU of this node, as a process sees it.

CUDA cannot list a device twice. Where two virtual GPUs of a node are parts of one device, or of
one that CUDA shows a process alone (MIG), a process uses one of them: the first that it touches.
Knows no framework; what follows from it for torch and TensorFlow is in ``shim/virtual_gpu``.
"""

from __future__ import annotations

import os
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

from simgrid_ml import wire
from simgrid_ml.node.gpu_devices import visible_gpus
from simgrid_ml.node.gpu_ledger import Gpu, Ledger

__all__ = [
    "Part",
    "SecondGpu",
    "Slice",
    "Slices",
    "decode",
    "encode",
    "fraction",
    "of_process",
    "room",
]


class Part(NamedTuple):
    """Of a real GPU.

    Attributes:
        device: its UUID.
        process_bytes: what the allocator of each process may take.
        device_bytes: all of its memory.
    """

    device: str
    process_bytes: int
    device_bytes: int


def encode(parts: Iterable[Part]) -> str:
    """``decode`` of it gives the same.

    >>> encode([Part("GPU-a", 5, 9), Part("GPU-a", 5, 9)])
    'GPU-a:5:9,GPU-a:5:9'
    """
    return ",".join(":".join(map(str, part)) for part in parts)


def decode(text: str) -> List[Part]:
    """
    Raises:
        ValueError: it is not what ``encode`` gives.
    """
    parts = []
    for word in text.split(","):
        device, process_bytes, device_bytes = word.rsplit(":", 2)
        parts.append(Part(device, int(process_bytes), int(device_bytes)))
    return parts


def room(memory_bytes: int, taken: int, free_bytes: int) -> int:
    """Bytes free of a virtual GPU.

    Args:
        memory_bytes: all that it has.
        taken: by the node's processes.
        free_bytes: of the real GPU, which has other tenants too.

    >>> room(11, 4, 100), room(11, 4, 3), room(11, 12, 100)
    (7, 3, 0)
    """
    return max(0, min(free_bytes, memory_bytes - taken))


def fraction(process_bytes: int, total_bytes: int) -> float:
    """Of all memory of a device, what a framework's allocator is told that it may take.

    >>> fraction(11 * 2**30, 88 * 2**30), fraction(5, 4)
    (0.125, 1.0)
    """
    return min(1.0, process_bytes / total_bytes)


class Slice(NamedTuple):
    """A virtual GPU that this process sees.

    Attributes:
        number: its ordinal on the node.
        gpu: what it shows.
        part: what is behind it.
        ordinal: of its device among those that CUDA shows the process.
    """

    number: int
    gpu: Gpu
    part: Part
    ordinal: int


class SecondGpu(Exception):
    """A process has used one part of a device and now touches another.

    Attributes:
        used, touched: their ordinals in this process.
    """

    def __init__(self, used: int, touched: int) -> None:
        super().__init__(
            f"this process uses cuda:{used}, and cuda:{touched} is another part of the same real "
            "GPU\n[simgrid-ml] a process has one of a node's slices of a GPU: use cuda:"
            "<local rank> alone, with a process per GPU; DataParallel and models over several GPUs "
            "need gpu_sharing=emulated, or a host with a GPU for each"
        )
        self.used = used
        self.touched = touched


class Slices(List[Slice]):
    """The virtual GPUs that this process sees, by ordinal.

    Args:
        ledger: the node's.
        parts: what is behind its GPUs.
        visible: ``CUDA_VISIBLE_DEVICES`` as the script has it.
        given: the same as the node gives it: the real devices.
        alone: a process sees one device at a time.

    Attributes:
        devices: UUIDs for CUDA, in the order of their ordinals.
    """

    def __init__(
        self,
        ledger: Ledger,
        parts: Sequence[Part],
        visible: Optional[str],
        given: Optional[str],
        *,
        alone: bool = False,
    ) -> None:
        super().__init__()
        self.ledger = ledger
        self.alone = alone
        self._used: Dict[int, int] = {}  # CUDA's ordinal: ours
        numbers = list(range(len(parts)))
        if visible is not None and visible != given:
            numbers = _chosen(visible, [gpu.uuid for gpu in ledger.gpus], parts)
        self.devices = list(dict.fromkeys(parts[number].device for number in numbers))
        for number in numbers:
            part = parts[number]
            ordinal = 0 if alone else self.devices.index(part.device)
            self.append(Slice(number, ledger.gpus[number], part, ordinal))

    @property
    def is_shifted(self) -> bool:
        """Whether an ordinal here is another one for CUDA."""
        return any(index != one.ordinal for index, one in enumerate(self))

    @property
    def visible(self) -> str:
        """``CUDA_VISIBLE_DEVICES`` for CUDA: of devices that it shows alone, the one in use."""
        if not self.alone:
            return ",".join(self.devices)
        return self[self._used.get(0, 0)].part.device if self else ""

    def use(self, index: int) -> Slice:
        """The slice with this ordinal, which the process uses from here on.

        Raises:
            IndexError: there is none.
            SecondGpu: it uses another part of the same device, or of one that hides this one.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        one = self[index]
        used = self.used_on(one.ordinal)
        if used is not None and used != index:
            raise SecondGpu(used, index)
        self._used[one.ordinal] = index
        return one

    def resolve(self, index: int) -> int:
        """CUDA's ordinal for a GPU that a script names by ``index``; the process uses it.

        What CUDA itself says of a tensor is its own ordinal, and comes back as an index: one that
        is in use for CUDA, and is not in use here, is taken for that.

        Raises:
            IndexError, SecondGpu: as ``use`` does.
        """
        if index not in self._used.values() and index in self._used:
            return index
        return self.use(index).ordinal

    def look(self, index: int) -> int:
        """As ``resolve``, for somebody who only asks: the process does not use it for that.

        Raises:
            IndexError: there is none.
        """
        if index not in self._used.values() and index in self._used:
            return index
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self[index].ordinal

    def shown(self, ordinal: int) -> int:
        """The script's index for an ordinal of CUDA's; the first of them until one is used."""
        used = self._used.get(ordinal)
        if used is not None:
            return used
        return next(i for i, one in enumerate(self) if one.ordinal == ordinal)

    def used_on(self, ordinal: int) -> Optional[int]:
        """Which slice this process uses of the device with CUDA's ``ordinal``; None: none yet."""
        return self._used.get(ordinal)

    def taken(self, one: Slice) -> int:
        """Bytes that all processes of the node have said they took of a slice."""
        return self.ledger.used()[one.number]


def _chosen(visible: str, uuids: List[str], parts: Sequence[Part]) -> List[int]:
    """What a script has chosen: ordinals or UUIDs of virtual GPUs, or real devices."""
    words = [word.strip() for word in visible.split(",")]
    devices = {part.device for part in parts}
    if words and all(word in devices for word in words):
        return [n for word in words for n, part in enumerate(parts) if part.device == word]
    return visible_gpus(visible, uuids)


def of_process() -> Slices:
    """Those of this process.

    Raises:
        KeyError, OSError, ValueError: the node says nothing of parts, or has no ledger.
    """
    parts = decode(os.environ[wire.GPU_DEVICES_VARIABLE])
    backing = os.environ.get(wire.GPU_BACKING_VARIABLE, "")
    given = ",".join(dict.fromkeys(part.device for part in parts))
    return Slices(
        Ledger(os.environ[wire.GPU_LEDGER_VARIABLE]),
        parts,
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        given,
        # MPS ignores all limits of a process that does not see just what they are for.
        alone=backing in ("MIG", "MPS"),
    )
