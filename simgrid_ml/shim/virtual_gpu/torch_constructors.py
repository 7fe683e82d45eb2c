"""Ways to a tensor that C++ resolves before any operation: they are led to the GPU in Python."""

from . import torch_private
from .torch_state import gpu_of

__all__ = ["install"]

_FACTORIES = (
    *("empty", "zeros", "ones", "full", "rand", "randn", "randint", "arange", "eye", "linspace"),
    *("logspace", "randperm", "empty_strided", "scalar_tensor"),
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
)


def install(gpus):
    """Change the constructors of ``torch``, and ``torch.Generator``."""
    torch = gpus.torch
    torch_private.remember_constructors()
    for name in ("tensor", "as_tensor", "asarray"):
        torch_private.extend(torch, name, lambda original, name=name: _from(gpus, original, name))
    for name in _FACTORIES:
        torch_private.extend(torch, name, lambda original: _with_ordinal(torch, original))
    _modules(torch)
    torch_private.replace(torch, "Generator", _generator(gpus, torch.Generator))


def _from(gpus, original, name):
    """``torch.tensor`` and its like, that read data."""
    torch = gpus.torch

    def construct(data, *args, **kwargs):
        device = kwargs.pop("device", None)
        if device is None and name == "as_tensor" and len(args) > 1:
            device, args = args[1], (args[0], *args[2:])
        if device is None:
            if isinstance(data, torch.Tensor):
                device = data.device
            else:
                device = torch_private.default_device(torch)
        gpu = gpus.index_of(device, default=False)
        if gpu is None:
            if device is not None:
                kwargs["device"] = device
            return original(data, *args, **kwargs)
        requires_grad = kwargs.pop("requires_grad", False)
        kwargs.pop("pin_memory", None)
        if name != "tensor" and isinstance(data, torch.Tensor):
            made = data.to(gpus.names[gpu], dtype=kwargs.get("dtype") or (args or (None,))[0])
        else:
            made = original(data, *args, **kwargs, device="cpu")
            if gpu_of(made) != gpu:
                made = gpus.move(made.detach(), gpu)
        return made.requires_grad_() if requires_grad else made

    construct.__name__ = name
    return construct


def _with_ordinal(torch, original):
    """``device=1``: C++ asks the accelerator that is built in, and there is none."""

    def construct(*args, **kwargs):
        if type(kwargs.get("device")) is int:
            kwargs["device"] = torch.device("cuda", kwargs["device"])
        return original(*args, **kwargs)

    construct.__name__ = original.__name__
    return construct


def _modules(torch):
    def parses(original):
        def parse_to(*args, **kwargs):
            """Of ``Module.to``."""
            if args and type(args[0]) is int:
                args = (torch.device("cuda", args[0]), *args[1:])
            if type(kwargs.get("device")) is int:
                kwargs["device"] = torch.device("cuda", kwargs["device"])
            return original(*args, **kwargs)

        return parse_to

    torch_private.extend(torch._C._nn, "_parse_to", parses)


def _generator(gpus, original):
    """A generator says that it is a GPU's; the numbers are the host's."""

    class Kind(type(original)):
        def __instancecheck__(cls, instance):
            return isinstance(instance, original)

    class Generator(original, metaclass=Kind):
        def __new__(cls, device="cpu"):
            gpu = gpus.index_of(device, default=False)
            return original.__new__(cls, device if gpu is None else "cpu")

        def __init__(self, device="cpu"):
            self._virtual_gpu = gpus.index_of(device, default=False)

        @property
        def device(self):
            gpu = self._virtual_gpu
            return gpus.torch.device("cpu") if gpu is None else gpus.names[gpu]

    return Generator
