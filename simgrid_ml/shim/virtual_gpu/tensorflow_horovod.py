"""Horovod for TensorFlow: two processes of a node cannot have one GPU where NCCL carries them.

Its CPU build carries the tensors; NCCL's look at who has which GPU is done here, by the ledger. The
last that comes sees the others; the launcher ends those.
"""

from __future__ import annotations

import os
import warnings

from . import tensorflow_private

__all__ = ["operations"]

_CHECK = "SIMGRID_ML_GPU_NCCL_CHECK"
"""What happens when two ranks have the same GPU: "error", "warn" or "off"."""
_OPERATIONS = ("_allreduce", "_grouped_allreduce", "allgather", "broadcast")


def operations(module, process):
    """``horovod.tensorflow.mpi_ops``."""
    met = set()

    def before(original):
        def checked(tensor, *arguments, **named):
            for one in tensor if isinstance(tensor, (list, tuple)) else (tensor,):
                process.when_created(_index(getattr(one, "device", None)), met, _meet)
            return original(tensor, *arguments, **named)

        return checked

    for name in _OPERATIONS:
        if hasattr(module, name):
            tensorflow_private.extend(module, name, before)


def _index(device):
    """Of the GPU with that name; the first where nobody has placed; None: it is no GPU."""
    kind, _, index = (device or "/device:GPU:0").rpartition("/")[2].rpartition(":")
    return int(index) if kind.upper().endswith("GPU") and index.isdigit() else None


def _meet(devices, device):
    """
    Raises:
        tf.errors.UnknownError: another process communicates with ``device``.
    """
    ledger = devices.ledger
    ledger.put_collective(device.number)
    check = os.environ.get(_CHECK, "error")
    for row in ledger.rows():
        if row.collective != device.number or row.pid == os.getpid() or check == "off":
            continue
        other = f"process {row.pid}" if row.local_rank < 0 else f"local rank {row.local_rank}"
        text = (
            "ncclCommInitRank failed: invalid usage\nDuplicate GPU detected : this rank and "
            f"{other} both on CUDA device {device.gpu.bus_id}\n[simgrid-ml] both use GPU "
            f"{device.number} of {ledger.node}. Try: tf.config.set_visible_devices("
            "gpus[hvd.local_rank()], 'GPU') or, in TensorFlow 1, "
            "config.gpu_options.visible_device_list = str(hvd.local_rank())"
        )
        if check == "warn":
            warnings.warn(text, RuntimeWarning, stacklevel=4)
            continue
        from tensorflow.python.framework import errors_impl

        raise errors_impl.UnknownError(None, None, text)
