"""Gives torch the GPUs of the node, in host memory; nothing of a script changes.

What is changed, and in which order: what Python sees of a tensor and where it can be moved, its
storage, ``torch.cuda`` and what is built on it. Operations are seen from the first use of CUDA on.
"""

import threading

from simgrid_ml.node.gpu_devices import Devices

from . import (
    torch_amp,
    torch_constructors,
    torch_cuda,
    torch_distributed,
    torch_kernels,
    torch_mode,
    torch_parallel,
    torch_private,
    torch_profiler,
    torch_state,
    torch_storages,
    torch_tensors,
)

__all__ = ["install"]


def install(torch):
    """Change ``torch``, right after its import.

    Raises:
        KeyError, OSError, ValueError: no ledger says which GPUs there are.
    """
    gpus = torch_state.Gpus(torch, Devices())
    for part in (
        *(torch_mode, torch_tensors, torch_constructors, torch_storages, torch_kernels),
        *(torch_cuda, torch_amp, torch_parallel, torch_distributed, torch_profiler),
    ):
        torch_private.attempt(part, gpus)
    _watch_threads(gpus)
    torch_private.report(torch)


def _watch_threads(gpus):
    """A mode is seen by the thread that enters it alone; Python's threads all do."""

    def bootstrap(original):
        def _bootstrap_inner(self):
            gpus.watch()
            return original(self)

        return _bootstrap_inner

    torch_private.extend(threading.Thread, "_bootstrap_inner", bootstrap)
