"""``torch.backends.cuda`` and ``cudnn``, NVTX and tunable operators: settings that are kept.

The CPU's kernels do the work, so that none of them changes a result; scripts set, ask and print
them.
"""

import importlib
import itertools
import types

from . import torch_cuda, torch_private

__all__ = ["install"]

_CUDNN_VERSION = 8907


def install(gpus):
    """Answer for the libraries that a CUDA build is linked with."""
    torch = gpus.torch
    _cudnn(torch)
    _cublas(torch)
    _cufft(gpus)
    _nvtx(torch)
    _tunable(torch)


def _cudnn(torch):
    kept = {"benchmark_limit": 10}
    torch_cuda.give(
        torch,
        "_cuda_",
        {
            "get_cudnn_benchmark_limit": lambda: kept["benchmark_limit"],
            "set_cudnn_benchmark_limit": lambda limit: kept.update(benchmark_limit=limit),
        },
    )
    if torch._C._has_cudnn:
        return
    torch._C._has_cudnn = True
    cudnn = torch.backends.cudnn
    code = getattr(cudnn, "m", cudnn)  # the module stands behind an object with properties
    torch_private.replace(code, "_init", lambda: True)
    torch_private.replace(code, "version", lambda: _CUDNN_VERSION)
    limit = torch.backends.ContextProp(
        torch._C._cuda_get_cudnn_benchmark_limit, torch._C._cuda_set_cudnn_benchmark_limit
    )
    torch_private.replace(type(cudnn), "benchmark_limit", limit)


def _cublas(torch):
    sizes = {"blas": 8519680, "blas_lt": 1048576}

    def get(name):
        return lambda: sizes[name]

    def put(name):
        return lambda size: sizes.update({name: size})

    torch_cuda.give(
        torch,
        "_cuda_",
        {
            "clearCublasWorkspaces": lambda: None,
            "getCublasWorkspaceSize": get("blas"),
            "setCublasWorkspaceSize": put("blas"),
            "getCublasLtWorkspaceSize": get("blas_lt"),
            "setCublasLtWorkspaceSize": put("blas_lt"),
        },
    )


def _cufft(gpus):
    torch = gpus.torch
    most = {}

    def put(device, size):
        most[gpus.index_of(device)] = size

    functions = {
        "get_plan_cache_max_size": lambda device: most.get(gpus.index_of(device), 4096),
        "set_plan_cache_max_size": put,
        "get_plan_cache_size": lambda device: 0,
        "clear_plan_cache": lambda device: None,
    }
    for name, function in functions.items():
        torch_private.add(torch, "_cufft_" + name, function)
    backend = torch.backends.cuda  # it holds on to the functions that it was made with
    for name, change in (("size", "size is read-only"), ("max_size", put)):
        get = functions[f"get_plan_cache_{name}"]
        setattr(backend.cuFFTPlanCache, name, backend.cuFFTPlanCacheAttrContextProp(get, change))


def _nvtx(torch):
    """Marks of a profiler that is not there; ranges are counted, as their depth is returned."""
    open_ranges = []
    numbers = itertools.count(1)

    def push(message):
        open_ranges.append(message)
        return len(open_ranges) - 1

    def pop():
        if open_ranges:
            open_ranges.pop()
            return len(open_ranges)
        return -2

    nvtx = types.SimpleNamespace(
        rangePushA=push,
        rangePop=pop,
        rangeStartA=lambda message: next(numbers),
        rangeEnd=lambda number: None,
        markA=lambda message: None,
        deviceRangeStart=lambda message, stream: next(numbers),
        deviceRangeEnd=lambda number, stream: None,
    )
    torch_private.replace(importlib.import_module("torch.cuda.nvtx"), "_nvtx", nvtx)


def _tunable(torch):
    kept = {
        "tunableop_enable": False,
        "tunableop_tuning_enable": True,
        "record_untuned_enable": False,
        "tunableop_max_tuning_duration": 30,
        "tunableop_max_tuning_iterations": 100,
        "tunableop_filename": "tunableop_results.csv",
        "tunableop_rotating_buffer_size": -1,
    }

    def get(name):
        return lambda: kept[name]

    def put(name):
        return lambda value, *more: kept.update({name: value})

    functions = {
        "tunableop_get_results": tuple,
        "tunableop_get_validators": tuple,
        "tunableop_read_file": lambda name: False,
        "tunableop_set_numerical_check_tolerances": lambda *tolerances: None,
    }
    for name in ("tunableop_enable", "tunableop_tuning_enable", "record_untuned_enable"):
        functions[name] = put(name)
        functions[name.replace("enable", "is_enabled")] = get(name)
    for name in ("max_tuning_duration", "max_tuning_iterations", "filename"):
        functions["tunableop_get_" + name] = get("tunableop_" + name)
        functions["tunableop_set_" + name] = put("tunableop_" + name)
    size = "rotating_buffer_size"
    functions["tunableop_get_" + size] = get("tunableop_" + size)
    functions["tunableop_set_" + size] = put("tunableop_" + size)
    torch_cuda.give(torch, "_cuda_", functions)
