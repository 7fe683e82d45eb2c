"""``torch.cuda.FloatTensor`` and its like: constructors, and kinds of tensors to ask for."""

from . import torch_private
from .torch_state import gpu_of

__all__ = ["install"]

_DTYPES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}


def install(gpus):
    """Put the types of tensors on GPUs into ``torch.cuda``."""
    torch = gpus.torch
    types = {}
    for name, dtype in _DTYPES.items():
        kind = _kind(gpus, f"{name}Tensor", getattr(torch, dtype))
        types[f"torch.cuda.{name}Tensor"] = kind
        setattr(torch.cuda, f"{name}Tensor", kind)

    def defaults(original):
        def set_default_tensor_type(kind):
            kind = types.get(kind, kind) if isinstance(kind, str) else kind
            if kind in types.values():
                torch.set_default_dtype(kind.dtype)
                torch.set_default_device("cuda")
            else:
                torch.set_default_device(None)
                original(kind)

        return set_default_tensor_type

    torch_private.extend(torch, "set_default_tensor_type", defaults)


def _kind(gpus, name, dtype):
    torch = gpus.torch

    class Kind(type):
        def __instancecheck__(cls, tensor):
            return (
                isinstance(tensor, torch.Tensor)
                and tensor.dtype is dtype
                and gpu_of(tensor) is not None
            )

        def __call__(cls, *given, device="cuda"):
            if len(given) == 1 and isinstance(given[0], torch.Tensor):
                return given[0].to(device=device, dtype=dtype)
            if len(given) == 1 and not isinstance(given[0], (int, torch.Size)):
                return torch.tensor(given[0], dtype=dtype, device=device)
            shape = given[0] if given and isinstance(given[0], torch.Size) else given or (0,)
            return torch.empty(shape, dtype=dtype, device=device)

    return Kind(name, (), {"__module__": "torch.cuda", "dtype": dtype, "is_cuda": True})
