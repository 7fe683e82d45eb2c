"""Profilers: GPUs in host memory have no events, and C++ would complain of each that it misses."""

import functools
import importlib

from . import torch_private

__all__ = ["install"]


def install(gpus):
    """Have profiles of CUDA's activity be profiles of the CPU's."""
    profiler = importlib.import_module("torch.autograd.profiler")
    torch_private.extend(profiler.profile, "__init__", _of_cpu)


def _of_cpu(original):
    @functools.wraps(original)
    def __init__(self, enabled=True, *, use_cuda=False, use_device=None, **kwargs):
        if use_cuda or use_device == "cuda":
            use_device, kwargs["use_cpu"] = None, True
        original(self, enabled, use_device=use_device, **kwargs)

    return __init__
