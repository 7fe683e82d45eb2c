"""Storages: where they say they are, how they are saved, loaded and passed between processes."""

from multiprocessing.reduction import ForkingPickler

from . import torch_private
from .torch_state import gpu_of, installed

__all__ = ["install", "rebuild"]


def install(gpus):
    """Change ``UntypedStorage`` and what serialises it."""
    _storages(gpus)
    _loading(gpus)
    _sharing(gpus)


def _storages(gpus):
    storage = gpus.torch.UntypedStorage
    device = torch_private.storage_base(gpus.torch).device.__get__

    def shown(self):
        gpu = self._virtual_gpu
        return device(self) if gpu is None else gpus.names[gpu]

    def copied(self, gpu):
        copy = storage(self.nbytes())
        copy.copy_(self)
        if gpu is not None:
            gpus.charge(copy, gpu)
        return copy

    def cuda(self, device=None, non_blocking=False):
        gpus.lazy_init()
        gpu = gpus.index_of(device)
        return self if self._virtual_gpu == gpu else copied(self, gpu)

    def cpu(self):
        return self if self._virtual_gpu is None else copied(self, None)

    def to(self, *, device, non_blocking=False):
        return cpu(self) if gpus.torch.device(device).type == "cpu" else cuda(self, device)

    def on_gpus(original):
        def new(cls, *args, device=None, **kwargs):
            gpu = gpus.index_of(device, default=False)
            if gpu is None:
                return original(cls, *args, **kwargs, **({"device": device} if device else {}))
            gpus.lazy_init()
            made = original(cls, *args, **kwargs)
            gpus.charge(made, gpu)
            return made

        return staticmethod(new)

    def counted(original):
        def resize_(self, size):
            """FSDP frees, and makes room for, what it gathers so."""
            if self._virtual_charge is not None:
                gpus.recharge(self, size)
            return original(self, size)

        return resize_

    torch_private.extend(storage, "__new__", on_gpus)
    torch_private.extend(storage, "resize_", counted)
    torch_private.replace(storage, "device", property(shown))
    torch_private.replace(storage, "is_cuda", property(lambda self: self._virtual_gpu is not None))
    torch_private.replace(storage, "clone", lambda self: copied(self, self._virtual_gpu))
    torch_private.replace(storage, "cuda", cuda)
    torch_private.replace(storage, "cpu", cpu)
    torch_private.replace(storage, "to", to)


def _loading(gpus):
    serialization = gpus.torch.serialization

    def where(storage):
        return None

    def place(storage, location):
        if not location.startswith("cuda"):
            return None
        validate = torch_private.validate_device(gpus.torch)
        try:
            gpu = (validate or gpus.index_of)(location)
        except RuntimeError as error:
            raise RuntimeError(
                f"{error}\n[simgrid-ml] what was saved on {location} asks for it again: "
                "torch.load(..., map_location=device) puts it on this process's GPU"
            ) from None
        gpus.lazy_init()
        if storage._virtual_gpu is None:
            gpus.charge(storage, gpu)
        return storage

    def scripts(original):
        def validate_map_location(map_location=None):
            """Of ``torch.jit.load``; C++ has no current GPU."""
            there = original(map_location)
            return (
                there if there is None or there.type != "cuda" else gpus.names[gpus.index_of(there)]
            )

        return validate_map_location

    torch_private.extend(gpus.torch.jit._serialization, "validate_map_location", scripts)
    serialization.register_package(5, where, place)  # before those of CUDA proper


def _sharing(gpus):
    """Between processes of a node a GPU's tensor is not copied; who made it pays for it."""
    torch = gpus.torch
    reductions = torch_private.reductions()

    def reduce_tensor(tensor):
        gpu = gpu_of(tensor)
        if gpu is None:
            return reductions.reduce_tensor(tensor)
        with _untagged(tensor.untyped_storage()):
            return rebuild, (gpu, *reductions.reduce_tensor(tensor))

    def reduce_storage(storage):
        with _untagged(storage):
            return reductions.reduce_storage(storage)

    for cls in (torch.Tensor, torch.nn.Parameter):
        ForkingPickler.register(cls, reduce_tensor)
    ForkingPickler.register(torch.UntypedStorage, reduce_storage)


def rebuild(gpu, function, arguments):
    """Of another process's tensor on ``gpu``."""
    installed().lazy_init()
    tensor = function(*arguments)
    tensor.untyped_storage()._virtual_gpu = gpu
    return tensor


class _untagged:
    """What is passed on is the host's memory."""

    def __init__(self, storage):
        self._storage = storage

    def __enter__(self):
        self._gpu, self._storage._virtual_gpu = self._storage._virtual_gpu, None

    def __exit__(self, *error):
        self._storage._virtual_gpu = self._gpu
