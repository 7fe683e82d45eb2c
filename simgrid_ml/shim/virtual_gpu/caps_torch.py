"""Torch on slices of real GPUs: takes no more than its own, and shows what the node has.

Everything is decided at CUDA's first use, as scripts choose their GPU up to then. Torch's own
allocator enforces the cap; contexts, libraries and extensions allocate beside it, so the cap is
smaller than the slice. Nothing is added to an operation; where an ordinal of the node is another
for CUDA, functions that take a device are wrapped, see ``caps_torch_devices``.

Never run on a GPU.
"""

import os
import sys

from simgrid_ml.node.gpu_slices import SecondGpu, fraction, room

from . import caps_ledger, caps_torch_devices

__all__ = ["install", "place"]

_installed = []


class _Properties:
    """A real GPU's properties under the name and size of the slice."""

    def __init__(self, real, gpu):
        self._real = real
        self.name = gpu.name
        self.total_memory = gpu.memory_bytes
        self.uuid = gpu.uuid[len("GPU-") :]

    def __getattr__(self, name):
        return getattr(self._real, name)

    def __repr__(self):
        size = self.total_memory // 2**20
        return f"_CudaDeviceProperties(name='{self.name}', total_memory={size}MB)"


class Caps:
    """What torch is told of this process's slices.

    Args:
        torch: the module.
        find: gives the slices as the environment is when it is called.
    """

    def __init__(self, torch, find):
        self.torch = torch
        self.find = find
        self.slices = find()
        self.settled = False
        self.capped = set()  # CUDA's ordinals
        self.known = False  # on the node, as a process that uses GPUs
        os.environ["CUDA_VISIBLE_DEVICES"] = self.written = self.slices.visible

    # -- what torch does not promise to keep -------------------------------------------------
    def total(self, ordinal):
        """Bytes of a real device."""
        return self.torch.cuda._get_device_properties(ordinal).total_memory

    def limit(self, ordinal, size):
        """Let torch's allocator take ``size`` bytes of a real device, which gets a context."""
        before = self.torch._C._cuda_getDevice()
        self.torch._C._cuda_setMemoryFraction(fraction(size, self.total(ordinal)), ordinal)
        self.torch._C._cuda_setDevice(before)  # that may leave another one
        self.capped.add(ordinal)

    def reserved(self, ordinal):
        """Bytes that the allocator has of a real device: at most, and now."""
        stats = self.torch._C._cuda_memoryStats(ordinal)["reserved_bytes"]["all"]
        return stats["peak"], stats["current"]

    # -- before CUDA's first use -----------------------------------------------------------
    def look_again(self):
        """Scripts may choose among GPUs until CUDA is used."""
        if not self.settled and os.environ.get("CUDA_VISIBLE_DEVICES") != self.written:
            self.slices = self.find()
            os.environ["CUDA_VISIBLE_DEVICES"] = self.written = self.slices.visible

    def settle(self):
        """CUDA is in use from here on: keep to the caps, and be known on the node."""
        self.settled = True
        try:
            # A limit costs a context of some hundred MiB, so a device gets it when it is used.
            if len({one.ordinal for one in self.slices}) == 1:
                self.cap(0)
            caps_ledger.tell(self.slices, self.taken)
            self.known = True
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            sys.stderr.write(f"simgrid-ml: torch is not kept to its slice of the GPU: {what}\n")

    def cap(self, ordinal):
        """Keep to the slice that this process has of a device."""
        if self.settled and ordinal not in self.capped:
            self.limit(ordinal, self.slices[self.slices.shown(ordinal)].part.process_bytes)

    # -- ordinals ---------------------------------------------------------------------------
    def ordinal(self, index):
        """CUDA's ordinal for the script's, which the process uses from here on.

        Raises:
            RuntimeError: there is no such GPU, or the process uses another part of the same.
        """
        ordinal = self._found(self.slices_now().resolve, index)
        if self.slices.alone and not self.settled:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.written = self.slices.visible
        return ordinal

    def slices_now(self):
        self.look_again()
        return self.slices

    def seen(self, index):
        """As ``ordinal``, for somebody who only asks."""
        return self._found(self.slices_now().look, index)

    def _found(self, how, index):
        try:
            return how(index)
        except IndexError:
            count = len(self.slices)
            text = (
                "CUDA error: invalid device ordinal\n"
                f"[simgrid-ml] this node has {count} GPU{'s' * (count != 1)}: use the local rank, "
                "not the global one, and no more processes than GPUs on a node"
            )
            raise RuntimeError(text) from None
        except SecondGpu as second:
            raise RuntimeError(str(second)) from None

    def one(self, device):
        """The slice that a script asks for; None and "cuda": the current one."""
        if isinstance(device, str):
            device = self.torch.device(device)
        index = getattr(device, "idx", getattr(device, "index", device))
        if index is None or index < 0:
            ordinal = self.torch._C._cuda_getDevice()
        else:
            ordinal = self.seen(index)
            if self.slices[index].ordinal == ordinal:
                return self.slices[index]
        return self.slices[self.slices.shown(ordinal)]

    def taken(self):
        """Number of each GPU on the node, and bytes of it: at most, and now."""
        for ordinal in {one.ordinal for one in self.slices}:
            number = self.slices[self.slices.shown(ordinal)].number
            most, now = self.reserved(ordinal)
            if now:
                self.cap(ordinal)  # it was not chosen by ``set_device``
            yield number, most, now


def place(ordinal):
    """Which GPU of the node is on CUDA's device: node, bus, UUID and index; None: not known."""
    if not _installed or not _installed[0].known:
        return None
    slices = _installed[0].slices
    index = slices.shown(ordinal)
    gpu = slices[index].gpu
    slices.ledger.put_collective(slices[index].number)
    return slices.ledger.node, gpu.bus_id, gpu.uuid, index


def install(torch, find):
    """Change ``torch.cuda`` of a torch that has one.

    Args:
        find: gives the slices of this process; raises OSError, KeyError or ValueError.
    """
    if not hasattr(torch._C, "_cuda_getDeviceCount"):
        return  # a build for the CPU
    cuda = torch.cuda
    caps = Caps(torch, find)
    _installed[:] = [caps]
    lazy_init, choose = cuda._lazy_init, cuda.set_device

    def _lazy_init():
        caps.look_again()
        lazy_init()

    def set_device(device):
        choose(device)
        if caps.settled:
            caps.cap(torch._C._cuda_getDevice())

    def device_count():
        return len(caps.slices_now())

    def get_device_properties(device=None):
        _lazy_init()
        one = caps.one(device)
        return _Properties(cuda._get_device_properties(one.ordinal), one.gpu)

    def get_device_name(device=None):
        return caps.one(device).gpu.name

    def mem_get_info(device=None):
        _lazy_init()
        one = caps.one(device)
        free, _ = cuda.cudart().cudaMemGetInfo(one.ordinal)
        size = one.gpu.memory_bytes
        return room(size, caps.slices.taken(one), free), size

    def set_per_process_memory_fraction(fraction, device=None):
        """Of the slice, and never more than the cap."""
        if not isinstance(fraction, float):
            raise TypeError("Invalid type for fraction argument, must be `float`")
        if not 0 <= fraction <= 1:
            raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
        _lazy_init()
        one = caps.one(device)
        wanted = int(fraction * one.gpu.memory_bytes)
        caps.limit(one.ordinal, min(wanted, one.part.process_bytes))

    # Not of ``cuda.random``: it counts generators, and CUDA has one for each of its own devices.
    for module in (cuda, cuda.memory):
        for new in (
            *(_lazy_init, device_count, get_device_properties, get_device_name),
            *(mem_get_info, set_per_process_memory_fraction),
        ):
            if hasattr(module, new.__name__):
                setattr(module, new.__name__, new)
    cuda.set_device = set_device
    cuda.random._lazy_init = _lazy_init
    cuda._lazy_call(caps.settle)
    if caps.slices.is_shifted:
        caps_torch_devices.install(torch, caps)
