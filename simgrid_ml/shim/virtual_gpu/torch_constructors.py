"""Ways to a tensor that C++ resolves before any operation: they are led to the GPU in Python."""

from . import torch_private
from .torch_state import gpu_of

__all__ = ["install"]

_FACTORIES = (
    *("empty", "zeros", "ones", "full", "rand", "randn", "randint", "arange", "eye", "linspace"),
    *("logspace", "randperm", "empty_strided", "scalar_tensor", "normal", "tril_indices"),
    *("triu_indices", "hann_window", "hamming_window"),
)
_LIKE = ("empty", "zeros", "ones", "full", "rand", "randn", "randint")
_NEW = ("empty", "zeros", "ones", "full", "empty_strided")
_SPARSE = ("coo", "csr", "csc", "bsr", "bsc", "compressed")


def install(gpus):
    """Change the constructors of ``torch``, ``torch.Generator`` and ``torch.device``."""
    torch = gpus.torch
    torch_private.remember_constructors()
    for name in ("tensor", "as_tensor", "asarray"):
        _change(torch, torch, name, lambda original, name=name: _from(gpus, original, name))
    for name in _FACTORIES:
        _change(torch, torch, name, lambda original: _with_device(gpus, original))
    for name in _LIKE:
        _change(torch, torch, f"{name}_like", lambda original: _like(gpus, original))
    for name in _NEW:
        _change(torch, torch.Tensor, f"new_{name}", lambda original: _like(gpus, original))
    for name in _SPARSE:
        _change(torch, torch, f"sparse_{name}_tensor", lambda original: _sparse(gpus, original))
    torch_private.extend(torch, "from_dlpack", lambda original: _shared(original))
    _modules(torch)
    torch_private.replace(torch, "Generator", _generator(gpus, torch.Generator))
    _device(torch)


def _change(torch, owner, name, make):
    def made(original):
        new = make(original)
        new.__name__ = name
        torch_private.scripts_alike(torch, new, original)
        return new

    torch_private.extend(owner, name, made)


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
        pinned = kwargs.pop("pin_memory", False)
        if gpu is None:
            if device is not None:
                kwargs["device"] = device
            made = original(data, *args, **kwargs)
            if pinned:
                made.untyped_storage()._virtual_pinned = True
            return made
        requires_grad = kwargs.pop("requires_grad", False)
        if name != "tensor" and isinstance(data, torch.Tensor):
            made = data.to(gpus.names[gpu], dtype=kwargs.get("dtype") or (args or (None,))[0])
        else:
            made = original(data, *args, **kwargs, device="cpu")
            if gpu_of(made) != gpu:
                made = gpus.move(made.detach(), gpu)
        return made.requires_grad_() if requires_grad else made

    return construct


def _with_device(gpus, original):
    """``device=1``: C++ asks the accelerator that is built in, and there is none."""
    torch = gpus.torch

    def construct(*args, **kwargs):
        device = kwargs.get("device")
        if device is not None:
            if type(device) is int:
                device = kwargs["device"] = torch.device("cuda", device)
            if torch.device(device).type == "cuda":
                return _on_gpu(gpus, original, args, kwargs)
        return original(*args, **kwargs)

    return construct


def _on_gpu(gpus, original, args, kwargs):
    """C++ asks for a GPU once in a process and its forks; below an operation the mode is off."""
    gpus.lazy_init()
    if torch_private.sees_nothing(gpus.torch):
        return original(*args, **{**kwargs, "device": "cpu"})
    if gpus.is_paused():
        with gpus.mode:
            return original(*args, **kwargs)
    if not torch_private.modes(gpus.torch):
        gpus.watch()  # a thread that is none of ``threading``'s
    return original(*args, **kwargs)


def _like(gpus, original):
    """After the example of a tensor, whose device C++ takes for the host's."""
    torch = gpus.torch

    def construct(*args, **kwargs):
        device = kwargs.get("device")
        if device is None:
            return original(*args, **kwargs)
        device = kwargs["device"] = torch.device(device)
        if device.type == "cuda":
            return _on_gpu(gpus, original, args, kwargs)
        made = original(*args, **kwargs)
        if device.type == "cpu" and gpu_of(made) is not None:
            gpus.release(made.untyped_storage())
        return made

    return construct


def _sparse(gpus, original):
    """The host's is moved: C++ would make one of CUDA."""

    def construct(*args, **kwargs):
        gpu = gpus.index_of(kwargs.get("device"), default=False)
        if gpu is None:
            return original(*args, **kwargs)
        requires_grad = kwargs.pop("requires_grad", False)
        parts = [part.cpu() if isinstance(part, gpus.torch.Tensor) else part for part in args]
        made = original(*parts, **{**kwargs, "device": "cpu"}).to(gpus.names[gpu])
        return made.requires_grad_() if requires_grad else made

    return construct


def _shared(original):
    """From one library to another; between torch and torch it is the same memory."""

    def from_dlpack(ext_tensor, *args, **kwargs):
        if gpu_of(ext_tensor) is not None:
            return ext_tensor.detach()
        return original(ext_tensor, *args, **kwargs)

    return from_dlpack


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
            self.gpu = gpus.index_of(device, default=False)
            gpus.made_generators[self._cdata] = self

        @property
        def device(self):
            return gpus.torch.device("cpu") if self.gpu is None else gpus.names[self.gpu]

    return Generator


def _device(torch):
    """``torch.device(1)``, which C++ answers where it was built with an accelerator alone."""
    original = torch.device
    try:
        if original(0).type == "cuda":
            return
    except RuntimeError:
        pass

    class Kind(type):
        """Its class makes, and is taken for, torch's own."""

        def __call__(cls, *args, **kwargs):
            if len(args) == 1 and type(args[0]) is int:
                args = ("cuda", *args)
            return original(*args, **kwargs)

        def __instancecheck__(cls, instance):
            return isinstance(instance, original)

        def __subclasscheck__(cls, subclass):
            return subclass is cls or issubclass(subclass, original)

        def __eq__(cls, other):
            return other is cls or other is original

        def __hash__(cls):
            return hash(original)

        def __getattr__(cls, name):
            return getattr(original, name)

    new = Kind("device", (), {"__module__": "torch", "__doc__": original.__doc__})
    torch_private.replace(torch, "device", new)
    torch_private.scripts_alike(torch, new, original)
    torch_private.annotation_type(torch, new, original)
