"""Functions of ``torch.distributed`` that are given a backend, with Gloo where it is to be NCCL."""

import functools
import inspect

from . import torch_workers

__all__ = ["by_gloo"]

_OF_NCCL_ALONE = ("device_id", "pg_options")
"""Arguments that are about GPUs, and refused without."""


def by_gloo(function, default, told, is_wanted=lambda: True):
    """``init_process_group`` or ``new_group``.

    Args:
        default: the backend where none is given; None: that of all ranks.
        told: called after a group that Gloo has instead of NCCL.
        is_wanted: asked whether Gloo is to have one that NCCL was asked for.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def with_gloo(*args, **kwargs):
        torch_workers.outlive()
        given = signature.bind(*args, **kwargs)
        backend = str(given.arguments.get("backend") or default).lower()
        if "nccl" not in backend or not is_wanted():
            return function(*args, **kwargs)
        given.arguments["backend"] = backend.replace("nccl", "gloo")
        for name in _OF_NCCL_ALONE:
            given.arguments.pop(name, None)
        group = function(*given.args, **given.kwargs)
        told()
        return group

    return with_gloo
