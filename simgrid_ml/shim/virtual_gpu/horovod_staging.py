"""Horovod's build for the CPU with tensors of a real GPU: copied to the host and back at once.

That build takes them, and copies them itself without waiting: its source (0.28.1) asks for a copy
that is not blocking, and the event that tells when it has ended exists in builds for GPUs alone. So
it may reduce what has not arrived. Whether it does is to be seen on a GPU (experiment F in
``benchmarks/gpu``); until then nothing is left to it.

Never run on a GPU.
"""

import functools

from . import collectives

__all__ = ["install"]

_ALONE = ("allreduce", "allgather", "broadcast", "reducescatter")
_GROUPED = ("grouped_allreduce", "grouped_allgather", "grouped_reducescatter")


def install(mpi_ops, host=collectives.on_host):
    """Change ``horovod.torch.mpi_ops`` of a build that has no operations for GPUs.

    Args:
        host: gives the copy of a tensor of a GPU, and None for others.
    """
    if mpi_ops.cuda_built() or mpi_ops.rocm_built():
        return
    places = {}  # by handle: the tensors of GPUs that the results belong to
    for name in _ALONE:
        _replace(mpi_ops, f"_{name}_async", lambda given: _staged(given, host, places))
    for name in _GROUPED:
        _replace(mpi_ops, f"_{name}_async", lambda given: _staged_group(given, host, places))
    _replace(mpi_ops, "_alltoall_async", lambda given: _staged_alltoall(given, host, places))
    _replace(mpi_ops, "synchronize", lambda given: _with_results_placed(given, places))
    _replace(mpi_ops, "init", lambda given: _told(given, mpi_ops))


def _replace(module, name, make):
    original = getattr(module, name, None)  # the grouped ones came with 0.21 and 0.28
    if original is not None:
        setattr(module, name, make(original))


def _told(init, mpi_ops):
    @functools.wraps(init)
    def init_(*args, **kwargs):
        result = init(*args, **kwargs)
        if mpi_ops.rank() == 0:
            collectives.say(
                "Horovod is built for the CPU: tensors of GPUs are reduced in host memory"
            )
        return result

    return init_


def _copies(tensor, output, host):
    """What goes in, and takes the result, in host memory."""
    there = host(tensor)
    if there is None:
        return None
    # Results of a size that is known take their place; the others are made by Horovod.
    return there, there if output is tensor else there.new_empty(output.shape)


def _staged(operation, host, places):
    @functools.wraps(operation)
    def staged(tensor, output, *args, **kwargs):
        copies = _copies(tensor, output, host)
        if copies is None:
            return operation(tensor, output, *args, **kwargs)
        handle = operation(*copies, *args, **kwargs)
        places[handle] = output
        return handle

    return staged


def _staged_group(operation, host, places):
    @functools.wraps(operation)
    def staged(tensors, outputs, *args, **kwargs):
        copies = [_copies(*pair, host) for pair in zip(tensors, outputs)]
        if not copies or copies[0] is None:
            return operation(tensors, outputs, *args, **kwargs)
        inputs, results = ([pair[n] for pair in copies] for n in (0, 1))
        handle = operation(inputs, results, *args, **kwargs)
        places[handle] = tuple(outputs)
        return handle

    return staged


def _staged_alltoall(operation, host, places):
    @functools.wraps(operation)
    def staged(tensor, splits, output, received, *args, **kwargs):
        copies = _copies(tensor, output, host)
        if copies is None:
            return operation(tensor, splits, output, received, *args, **kwargs)
        there, result = copies
        sizes = None if received is None else host(received)
        if hasattr(splits, "cpu"):
            splits = splits.cpu()
        sizes = received if sizes is None else sizes
        handle = operation(there, splits, result, sizes, *args, **kwargs)
        places[handle] = output if received is None else (output, received)
        return handle

    return staged


def _with_results_placed(synchronize, places):
    @functools.wraps(synchronize)
    def synchronize_(handle):
        there = places.pop(handle, None) if isinstance(handle, int) else None
        result = synchronize(handle)
        if there is None:
            return result
        if not isinstance(there, tuple):
            return _placed(result, there)
        return tuple(_placed(*pair) for pair in zip(result, there))

    return synchronize_


def _placed(result, tensor):
    if result is not tensor:
        if tensor.shape != result.shape:
            tensor.resize_(result.shape)
        tensor.copy_(result)
    return tensor
