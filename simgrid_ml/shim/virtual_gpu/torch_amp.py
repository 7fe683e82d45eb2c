"""Automatic mixed precision of GPUs: the CPU's, with the types of CUDA.

``torch.autocast("cuda")`` is torch's own; what it sets in C++ is set for the CPU, whose kernels do
the work. The lists of operations that stay in float32 are the CPU's.
"""

import functools
import threading

from . import torch_private

__all__ = ["install"]

_REMEDY = (
    "\n[simgrid-ml] a {name} has compute capability {capability} and bfloat16 needs 8.0: use "
    "float16 and a GradScaler, or a VM size with newer GPUs"
)


def install(gpus):
    """Lead what is asked of CUDA's autocast to the CPU's."""
    torch = gpus.torch
    state = _State(torch)
    torch_private.extend(torch, "is_autocast_enabled", lambda given: _of_cuda(given, state.enabled))
    torch_private.extend(torch, "get_autocast_dtype", lambda given: _of_cuda(given, state.dtype))
    torch_private.replace(torch, "get_autocast_gpu_dtype", state.dtype)
    torch_private.extend(torch, "set_autocast_enabled", lambda given: _set(given, state.enable))
    torch_private.extend(torch, "set_autocast_dtype", lambda given: _set(given, state.put_dtype))
    torch_private.replace(torch, "set_autocast_gpu_dtype", state.put_dtype)
    # Recent versions emulate bfloat16 on older GPUs, slowly; most refuse it, as is done here.
    torch_private.add(torch.cuda, "_check_bf16_tensor_supported", lambda device: False)
    autocast = torch.amp.autocast_mode.autocast
    torch_private.extend(autocast, "__init__", lambda given: _with_remedy(gpus, given))


class _State(threading.local):
    """What this thread has set for CUDA, and what the CPU had before."""

    def __init__(self, torch):
        self._is_enabled = torch._C.is_autocast_enabled
        self._get_dtype = torch._C.get_autocast_dtype
        self._enable = torch._C.set_autocast_enabled
        self._put_dtype = torch._C.set_autocast_dtype
        self._on = False
        self._dtype = torch.float16
        self._before = None

    def enabled(self):
        return self._on

    def dtype(self):
        return self._dtype

    def enable(self, on):
        if on and not self._on:
            self._before = self._is_enabled("cpu"), self._get_dtype("cpu")
            self._enable("cpu", True)
            self._put_dtype("cpu", self._dtype)
        elif self._on and not on:
            enabled, dtype = self._before
            self._enable("cpu", enabled)
            self._put_dtype("cpu", dtype)
        self._on = bool(on)

    def put_dtype(self, dtype):
        self._dtype = dtype
        if self._on:
            self._put_dtype("cpu", dtype)


def _of_cuda(original, asked):
    """``original(device_type)``, where none means CUDA."""

    def ask(device_type="cuda"):
        return asked() if device_type == "cuda" else original(device_type)

    return ask


def _set(original, put):
    """``original(device_type, value)``; older scripts give the value alone, and mean CUDA."""

    def set_autocast(*given):
        if len(given) == 1 or given[0] == "cuda":
            put(given[-1])
        else:
            original(*given)

    return set_autocast


def _with_remedy(gpus, original):
    @functools.wraps(original)
    def __init__(self, *args, **kwargs):
        try:
            original(self, *args, **kwargs)
        except RuntimeError as error:
            if "does not support bfloat16" not in str(error):
                raise
            gpu = gpus.at().gpu
            capability = "{}.{}".format(*gpu.capability)
            raise RuntimeError(
                f"{error}{_REMEDY.format(name=gpu.name, capability=capability)}"
            ) from None

    return __init__
