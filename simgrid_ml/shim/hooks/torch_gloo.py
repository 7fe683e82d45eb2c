"""Gloo does the work of NCCL where there are no GPUs, so that a script for GPUs can say "nccl".

Only which backend a process group gets is changed, and that is told once: tensors stay where the
script puts them, and ``get_backend()`` says "gloo".
"""

import sys

from simgrid_ml.shim.virtual_gpu.gloo_for_nccl import by_gloo

__all__ = ["apply"]


def apply(c10d):
    """Change the functions of ``torch.distributed.distributed_c10d`` that are given a backend."""
    told = []

    def tell():
        if not told and c10d.get_rank() == 0:
            sys.stderr.write("simgrid-ml: NCCL needs GPUs and there are none: Gloo is used\n")
        told.append(True)

    c10d.init_process_group = by_gloo(c10d.init_process_group, "nccl", tell, _has_no_gpu)
    c10d.new_group = by_gloo(c10d.new_group, None, tell, _has_no_gpu)


def _has_no_gpu():
    import torch

    return not torch.cuda.is_available()
