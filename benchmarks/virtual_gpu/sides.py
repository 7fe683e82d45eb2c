"""Forks of one interpreter that has imported torch: with virtual GPUs, and as it is.

A process in which virtual GPUs are in use pays for them with CPU tensors too, so that it cannot be
its own base line; two that were started apart differ by several per cent, because their libraries
and buffers lie elsewhere. Forks lie at the same addresses, and the one is stock torch, of which
nothing was changed. Pipes say whose turn it is, so that never two compute.
"""

from __future__ import annotations

import os
import traceback
from multiprocessing import Pipe

import torch

__all__ = ["fork", "install", "keep_freed"]

_LEDGER = os.environ.pop("SIMGRID_ML_GPU_LEDGER")  # a plain side must not find it


def install():
    """Do in this fork what the hook ``virtual_cuda`` does after ``import torch``."""
    from simgrid_ml.shim.virtual_gpu import torch_gpus

    os.environ["SIMGRID_ML_GPU_LEDGER"] = _LEDGER
    torch_gpus.install(torch)


def keep_freed():
    """Have this fork keep freed memory for its next step, as one with virtual GPUs does."""
    from simgrid_ml.shim.virtual_gpu import torch_memory

    torch_memory.keep_freed()


def fork(serve, *arguments):
    """A process that serves a pipe until it has nothing more to say; gives our end of the pipe."""
    ours, its = Pipe()
    if os.fork() == 0:
        ours.close()
        try:
            serve(*arguments, its)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    its.close()
    return ours
