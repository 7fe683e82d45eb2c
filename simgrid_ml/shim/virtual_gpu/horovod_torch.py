"""Horovod for torch: the operations of its CPU build carry tensors of the node's GPUs.

Where Horovod is built with NCCL, two processes of a node cannot use one GPU: this is looked after
here, by the node's ledger. The last that comes sees the others; the launcher ends those.
"""

import functools
import os

from . import torch_meeting, torch_private
from .torch_state import gpu_of, installed

__all__ = ["install"]

_OPERATIONS = (
    *("allreduce", "grouped_allreduce", "allgather", "grouped_allgather", "broadcast", "alltoall"),
    *("reducescatter", "grouped_reducescatter"),
)


def install(mpi_ops):
    """Change ``horovod.torch.mpi_ops``, right after its import."""
    check = _Check(installed(), mpi_ops)
    for name in _OPERATIONS:
        if hasattr(mpi_ops, f"_{name}_async"):  # the grouped ones came with 0.21 and 0.28
            torch_private.extend(mpi_ops, f"_{name}_function_factory", _of_host)
            torch_private.extend(mpi_ops, f"_{name}_async", check.before)
    torch_private.extend(mpi_ops, "synchronize", _with_sizes_counted)


def _of_host(factory):
    """The name of a function in C++, by type of tensor: these are the CPU's there."""

    def function_of(tensor):
        return factory(tensor).replace("_torch_cuda_", "_torch_")

    return function_of


def _with_sizes_counted(synchronize):
    """Results of unknown size, as of ``allgather``, have got their memory in C++."""

    @functools.wraps(synchronize)
    def synchronize_(handle):
        result = synchronize(handle)
        for tensor in result if isinstance(result, (list, tuple)) else (result,):
            if gpu_of(tensor) is None:
                continue
            storage = tensor.untyped_storage()
            if storage._virtual_charge is not None:
                installed().recharge(storage, storage.nbytes())
        return result

    return synchronize_


class _Check:
    """Whether each process of the node has a GPU of its own."""

    def __init__(self, gpus, mpi_ops):
        self._gpus = gpus
        self._mpi_ops = mpi_ops
        self._checked = set()

    def before(self, operation):
        @functools.wraps(operation)
        def checked(tensors, *args, **kwargs):
            tensor = tensors[0] if isinstance(tensors, (list, tuple)) else tensors
            gpu = gpu_of(tensor)
            if gpu is not None and gpu not in self._checked:
                self._checked.add(gpu)
                self._look(gpu)
            return operation(tensors, *args, **kwargs)

        return checked

    def _look(self, gpu):
        """
        Raises:
            HorovodInternalError: another process communicates with this GPU.
        """
        device = self._gpus.devices[gpu]
        ledger = self._gpus.devices.ledger
        ledger.put_collective(device.number)
        for row in ledger.rows():
            if row.collective == device.number and row.pid != os.getpid():
                mine = f"local rank {self._mpi_ops.local_rank()}"
                other = (
                    f"process {row.pid}" if row.local_rank < 0 else f"local rank {row.local_rank}"
                )
                error = self._mpi_ops.HorovodInternalError
                torch_meeting.refuse_twins(error, mine, other, device.gpu.bus_id, ledger.node, gpu)
