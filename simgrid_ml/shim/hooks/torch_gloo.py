"""Gloo does the work of NCCL where there are no GPUs, so that a script for GPUs can say "nccl".

Only which backend a process group gets is changed, and that is told once: tensors stay where the
script puts them, and ``get_backend()`` says "gloo".
"""

import functools
import inspect
import sys

from simgrid_ml.shim.virtual_gpu import torch_workers

__all__ = ["apply"]

_OF_NCCL_ALONE = ("device_id", "pg_options")
"""Arguments that are about GPUs, and refused without."""


def apply(c10d):
    """Change the functions of ``torch.distributed.distributed_c10d`` that are given a backend."""
    served = []  # those that have given Gloo for NCCL

    def with_gloo(function, default):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def with_gloo(*args, **kwargs):
            torch_workers.outlive()
            given = signature.bind(*args, **kwargs)
            backend = str(given.arguments.get("backend") or default).lower()
            if "nccl" not in backend or _has_gpu():
                return function(*args, **kwargs)
            given.arguments["backend"] = backend.replace("nccl", "gloo")
            for name in _OF_NCCL_ALONE:
                given.arguments.pop(name, None)
            group = function(*given.args, **given.kwargs)
            if not served and c10d.get_rank() == 0:
                sys.stderr.write("simgrid-ml: NCCL needs GPUs and there are none: Gloo is used\n")
            served.append(function)
            return group

        return with_gloo

    c10d.init_process_group = with_gloo(c10d.init_process_group, default="nccl")
    c10d.new_group = with_gloo(c10d.new_group, default=None)


def _has_gpu():
    import torch

    return torch.cuda.is_available()
