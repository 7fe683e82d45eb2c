"""What torch is told of the node's GPUs: which there are, which one a thread uses, who owns what.

A tensor stays a CPU tensor for C++. Which GPU it is on is a tag of its storage: PyTorch keeps the
Python object of a storage as long as the memory lives, so views, saved tensors and parameters
share the tag. ``Gpus`` is passed to whatever changes torch; there is one in a process.
"""

import os
import threading
import weakref

from simgrid_ml.node.gpu_devices import OutOfMemory

from . import torch_memory, torch_private
from .torch_memory import Charge

__all__ = ["STAYS", "Gpus", "gpu_of", "installed"]

STAYS = object()
"""``Thread.moving`` outside of a move."""

_installed = []


def installed():
    """This process's ``Gpus``."""
    return _installed[0]


def gpu_of(tensor):
    """The ordinal of the GPU that a tensor is on; None: it is not on one."""
    try:
        gpu = tensor.untyped_storage()._virtual_gpu
        if gpu is not None or tensor.__class__.__module__ == "torch":
            return gpu
    except Exception:  # sparse, batched and wrapping tensors have no storage of their own
        gpu = None
    if gpu is None:
        gpu = getattr(tensor, "_virtual_gpu", None)
        if gpu is None:
            inner = torch_private.inner_of(tensor)
            if inner is not None:
                return gpu_of(inner)
    return gpu


class _Thread(threading.local):
    """What a thread has chosen.

    Attributes:
        current: the GPU that "cuda" means.
        moving: where the tensor that is being copied goes; None: to the host.
        watched: whether the mode sees this thread's operations.
    """

    current = 0
    moving = STAYS
    watched = False


class Gpus:
    """The GPUs that this process sees.

    Attributes:
        torch: the module.
        devices: ``node.gpu_devices.Devices``; what is allocated, and how much there is.
        names: a ``torch.device`` for each that the node has.
        thread: what this thread has chosen.
        initialized: whether CUDA has been used.
        forked: whether it had been when this process was forked.
        mode: what sees every operation; None: CUDA has not been used.
        shielded: whether Dynamo is used, which must not look into the mode.
        made_generators: by ``torch.Generator``, by their address: C++ takes all for the host's.
        generators: a GPU's own each.
        move: ``move(tensor, gpu, dtype=None, memory_format=None)``; gpu None: to the host.
    """

    def __init__(self, torch, devices):
        self.torch = torch
        self.devices = devices
        self.names = tuple(torch.device("cuda", n) for n in range(len(devices.ledger.gpus)))
        self.thread = _Thread()
        self.initialized = self.forked = False
        self.mode = None
        self.shielded = False
        self.make_mode = None
        self.move = None
        self.made_generators = weakref.WeakValueDictionary()
        self.generators = ()
        self._lock = threading.RLock()
        os.register_at_fork(after_in_child=self._after_fork)
        _installed[:] = [self]

    # -- ordinals ---------------------------------------------------------------------------
    def index_of(self, device, default=True):
        """The ordinal that a ``torch.device``, string, int or None means.

        Args:
            default: what None means: the current GPU, or (False) no GPU.

        Returns:
            None: a device that is no GPU.

        Raises:
            RuntimeError: the node has no such GPU.
        """
        if device is None:
            return self.thread.current if default else None
        if isinstance(device, int):
            index = device if device >= 0 else self.thread.current
        else:
            if not isinstance(device, self.torch.device):
                device = self.torch.device(device)
            if device.type != "cuda":
                return None
            index = self.thread.current if device.index is None else device.index
        if not 0 <= index < len(self.devices):
            raise self.ordinal_error()
        return index

    def ordinal_error(self):
        """What is raised for a GPU that is not there."""
        if not self.devices:
            return RuntimeError("No CUDA GPUs are available")
        count = len(self.devices)
        there = ", ".join(map(str, self.names))
        several = f"{count} GPUs" if count > 1 else "1 GPU"
        text = (
            f"CUDA error: invalid device ordinal\n[simgrid-ml] this node has {several} ({there}): "
            "use the local rank, not the global one, and no more processes than GPUs on a node"
        )
        error = getattr(self.torch, "AcceleratorError", RuntimeError)
        try:
            return error(text)
        except Exception:
            return RuntimeError(text)

    def at(self, device=None):
        """The ``Device`` that is meant; CUDA is in use from here on."""
        self.lazy_init()
        return self.devices[self.index_of(device)]

    # -- use --------------------------------------------------------------------------------
    def lazy_init(self):
        """CUDA is used: be known on the node, and see every operation from here on.

        Raises:
            RuntimeError: there is no GPU, or this is the fork of a process that used one.
        """
        if self.initialized:
            if self.forked:
                raise RuntimeError(
                    "Cannot re-initialize CUDA in forked subprocess. To use CUDA with "
                    "multiprocessing, you must use the 'spawn' start method\n[simgrid-ml] the "
                    "workers of a DataLoader are forked: let them load on the CPU, and move each "
                    "batch to the GPU in the loop that trains"
                )
            return
        with self._lock:
            if self.initialized:
                return
            self.devices.look_again()
            if not self.devices:
                raise RuntimeError("No CUDA GPUs are available")
            self.devices.attach()
            torch_memory.keep_freed()
            self.initialized = True
            self.mode = self.make_mode()
        self.watch()

    def watch(self):
        """See this thread's operations, if CUDA is in use."""
        if self.mode is not None and not self.thread.watched:
            self.thread.watched = True
            self.mode.__enter__()

    def is_paused(self):
        """Whether this is inside of an operation, which the mode lets run unseen."""
        watched = self.mode is not None and self.thread.watched and not self.forked
        return watched and not torch_private.modes(self.torch)

    def _after_fork(self):
        if not self.initialized:
            return
        self.forked = True
        if self.thread.watched:  # a child that stays away from CUDA is as fast as any other
            try:
                self.mode.__exit__(None, None, None)
            except Exception:
                pass

    # -- memory -----------------------------------------------------------------------------
    def charge(self, storage, gpu):
        """A fresh storage is on ``gpu`` from here on, and counted.

        Raises:
            torch.OutOfMemoryError: the GPU is full.
        """
        device = self.devices[gpu]
        try:
            storage._virtual_charge = Charge(device, device.take(storage.nbytes()))
        except OutOfMemory as full:
            raise self.full(full) from None
        storage._virtual_gpu = gpu

    def recharge(self, storage, size):
        """A storage on a GPU becomes, or is, ``size`` bytes large.

        Raises:
            torch.OutOfMemoryError: the GPU is full.
        """
        try:
            storage._virtual_charge.resize(size)
        except OutOfMemory as full:
            raise self.full(full) from None

    def release(self, storage):
        """What was charged to a GPU is on the host from here on."""
        storage._virtual_gpu = storage._virtual_charge = None

    def make_room(self, gpu, size):
        """``size`` bytes are about to be written that belong on ``gpu``.

        Raises:
            torch.OutOfMemoryError: there is no room.
        """
        try:
            self.devices[gpu].require(size)
        except OutOfMemory as full:
            raise self.full(full) from None

    def full(self, error):
        """torch's error for ``node.gpu_devices.OutOfMemory``."""
        return torch_private.out_of_memory(self.torch)(torch_memory.message(error))
