"""Gloo does the work of NCCL where there are no GPUs, so that a script for GPUs can say "nccl".

Only which backend a process group gets is changed, and that is told once: tensors stay where the
script puts them, and ``get_backend()`` says "gloo".
"""

import functools
import inspect
import sys

__all__ = ["apply"]

_OF_NCCL_ALONE = ("pg_options", "device_id", "device_ids")
"""Arguments that Gloo refuses, as they name GPUs."""


def apply(distributed):
    """Change the functions of ``torch.distributed`` that are told a backend."""
    replaced = []
    wrappers = {
        "init_process_group": _with_gloo(distributed, "init_process_group", "nccl", replaced),
        "new_group": _with_gloo(distributed, "new_group", None, replaced),
        "barrier": _without_devices(distributed.barrier, replaced),
    }
    # The module that defines them calls them by its own names, as new_subgroups does new_group.
    for module in (distributed.distributed_c10d, distributed, distributed.device_mesh):
        for name, wrapper in wrappers.items():
            if hasattr(module, name):
                setattr(module, name, wrapper)


def _with_gloo(distributed, name, default, replaced):
    """Args:
    default: the backend that no backend means.
    replaced: gets an entry with the first group that is over Gloo instead of NCCL.
    """
    function = getattr(distributed, name)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def with_gloo(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        backend = str(bound.arguments.get("backend") or default).lower()
        if "nccl" not in backend or _has_gpu():
            return function(*args, **kwargs)
        for argument in _OF_NCCL_ALONE:
            bound.arguments.pop(argument, None)
        bound.arguments["backend"] = backend.replace("nccl", "gloo")
        group = function(*bound.args, **bound.kwargs)
        if not replaced and distributed.get_rank() == 0:
            sys.stderr.write("simgrid-ml: NCCL needs GPUs and there are none: Gloo is used\n")
        replaced.append(name)
        return group

    return with_gloo


def _without_devices(function, replaced):
    @functools.wraps(function)
    def without_devices(*args, **kwargs):
        if replaced:
            kwargs.pop("device_ids", None)
        return function(*args, **kwargs)

    return without_devices


def _has_gpu():
    import torch

    return torch.cuda.is_available()
