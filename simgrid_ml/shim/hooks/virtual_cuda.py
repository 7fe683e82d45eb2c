"""Gives torch, and what is built on it, the virtual GPUs of the node; see ``shim/virtual_gpu``."""

import os

from simgrid_ml import wire

__all__ = ["apply"]


def apply(module):
    """Change ``torch`` itself, or a module that is about GPUs, right after its import.

    Nothing happens where no ledger says which GPUs there are.
    """
    if not os.environ.get(wire.GPU_LEDGER_VARIABLE):
        return
    if module.__name__ == "torch":
        from simgrid_ml.shim.virtual_gpu import torch_gpus

        torch_gpus.install(module)
    elif module.__name__ == "horovod.torch.mpi_ops":
        from simgrid_ml.shim.virtual_gpu import horovod_torch

        horovod_torch.install(module)
    else:
        from simgrid_ml.shim.virtual_gpu import torch_kernels

        torch_kernels.change(module)
