"""Gives torch, and Horovod for torch, the virtual GPUs of the node; see ``shim/virtual_gpu``."""

__all__ = ["apply"]


def apply(module):
    """Change ``torch`` itself, or Horovod's ``mpi_ops``, right after their import."""
    if module.__name__ == "torch":
        from simgrid_ml.shim.virtual_gpu import torch_gpus

        torch_gpus.install(module)
    else:
        from simgrid_ml.shim.virtual_gpu import horovod_torch

        horovod_torch.install(module)
