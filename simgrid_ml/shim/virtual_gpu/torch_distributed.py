"""``torch.distributed``: Gloo carries what a script gives to NCCL, and NCCL's own errors remain.

A tensor on a GPU of the node is a CPU tensor to C++, so that a group of backend "nccl" gets one of
Gloo's under NCCL's name: ``get_backend()`` says "nccl". What Gloo lacks is made of what it has.
"""

import functools
import importlib
import inspect

from . import torch_batch_norm, torch_meeting, torch_private, torch_workers
from .torch_state import gpu_of

__all__ = ["install"]

_COLLECTIVES = (
    *("all_reduce", "all_reduce_coalesced", "reduce", "broadcast", "gather", "scatter"),
    *("all_gather", "all_gather_into_tensor", "all_gather_single", "all_gather_coalesced"),
    *("reduce_scatter", "reduce_scatter_tensor", "reduce_scatter_single"),
    *("all_to_all", "all_to_all_single"),
)
_IN_ONE_PIECE = (
    *("all_gather_into_tensor", "all_gather_single"),
    *("reduce_scatter_tensor", "reduce_scatter_single"),
)
_POINT_TO_POINT = (("send", "recv"), ("isend", "irecv"))
_NO_BACKEND = (
    "No backend type associated with device type cpu\n"
    '[simgrid-ml] a group of backend "nccl" carries tensors of GPUs alone: move this one with '
    '.cuda(), or use init_process_group("cpu:gloo,cuda:nccl")'
)


def install(gpus):
    """Change ``torch.distributed``, if this torch has it."""
    torch = gpus.torch
    torch_batch_norm.install(gpus)
    if not torch.distributed.is_available():
        return
    c10d = importlib.import_module("torch.distributed.distributed_c10d")
    groups = torch_meeting.Groups(gpus, c10d)
    _give_backend(gpus, c10d, groups)
    dist = torch.distributed
    torch_private.extend(dist, "all_gather", lambda given: _of_any_length(dist, given))
    torch_private.extend(dist, "all_reduce", lambda given: _of_integers(dist, groups, given))
    for name in filter(dist.__dict__.__contains__, _IN_ONE_PIECE):
        torch_private.extend(dist, name, _of_any_shape)
    # In ``torch.distributed`` alone: c10d's own calls, for objects, have CPU tensors.
    for name in filter(dist.__dict__.__contains__, _COLLECTIVES):
        torch_private.extend(dist, name, lambda given: _checked(c10d, groups, given, meets=True))
    blocking, batched = _POINT_TO_POINT
    for name in (*blocking, *batched):
        torch_private.extend(dist, name, lambda given: _checked(c10d, groups, given, meets=False))
    for name in batched:  # P2POp asks whether it was given the very one
        torch_private.replace(c10d, name, getattr(dist, name))
    torch_private.extend(dist.GradBucket, "buffer", lambda given: _on_its_gpu(gpus, given))
    parallel = importlib.import_module("torch.nn.parallel.distributed")
    model = parallel.DistributedDataParallel
    torch_private.extend(model, "__init__", lambda given: _with_model_checked(groups, given))


def _give_backend(gpus, c10d, groups):
    dist = gpus.torch.distributed

    class ProcessGroupNCCL(c10d.ProcessGroupGloo):
        """Gloo, with the constructor of NCCL's."""

        class Options:
            def __init__(self, is_high_priority_stream=False):
                self.is_high_priority_stream = is_high_priority_stream
                self._timeout = c10d.default_pg_timeout
                self.global_ranks_in_group = []
                self.group_name = ""
                self.config = _Settings()

        def __init__(self, store, rank, size, options=None):
            if not gpus.devices:
                raise ValueError("ProcessGroupNCCL is only supported with GPUs, no GPUs found!")
            timeout = getattr(options, "_timeout", c10d.default_pg_timeout)
            super().__init__(store, rank, size, timeout=timeout)

    def available():
        gpus.devices.look_again()
        return bool(gpus.devices)

    for module in (dist, c10d):
        module.ProcessGroupNCCL = ProcessGroupNCCL
        torch_private.replace(module, "is_nccl_available", available)
    if getattr(c10d, "default_pg_nccl_timeout", None) is None:
        c10d.default_pg_nccl_timeout = c10d.default_pg_timeout

    def helper(original):
        signature = inspect.signature(original)

        def new_process_group(*args, **kwargs):
            given = signature.bind(*args, **kwargs)
            # What is bound to a device creates tensors there, in C++.
            device = given.arguments.pop("device_id", None)
            made = original(*given.args, **given.kwargs)
            group = made[0]
            torch_workers.outlive()
            if isinstance(group, c10d.ProcessGroup) and groups.is_nccl(group):
                groups.serve(group)
                if device is not None:
                    groups.meet(group, gpus.index_of(device))
            return made

        return new_process_group

    torch_private.extend(c10d, "_new_process_group_helper", helper)


class _Settings:
    """Options of a communicator: they are kept, and change nothing."""


def _checked(c10d, groups, function, *, meets):
    """``function`` of torch.distributed for tensors that NCCL would carry.

    Args:
        meets: whether all of the group take part, for whom this may be the first time.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        group = given.get("group") or c10d.GroupMember.WORLD
        if group is not None and groups.carries_gpus_alone(group):
            gpu = None
            for tensor in _tensors(given.values()):
                gpu = gpu_of(tensor)
                if gpu is None:
                    raise RuntimeError(_NO_BACKEND)
            if meets and gpu is not None:
                groups.meet(group, gpu)
        elif meets and group is not None and groups.is_nccl(group):
            gpu = next(filter(None.__ne__, map(gpu_of, _tensors(given.values()))), None)
            if gpu is not None:
                groups.meet(group, gpu)
        return function(*args, **kwargs)

    return checked


def _of_any_length(dist, all_gather):
    """As NCCL's, which takes pieces of different lengths."""

    @functools.wraps(all_gather)
    def gather(tensor_list, tensor, group=None, async_op=False):
        if len({piece.numel() for piece in tensor_list}) == 1:
            return all_gather(tensor_list, tensor, group, async_op)
        tensor_list[dist.get_rank(group)].copy_(tensor)
        for rank, piece in enumerate(tensor_list):
            root = rank if group is None else dist.get_global_rank(group, rank)
            work = dist.broadcast(piece, root, group, async_op)
        return work

    return gather


def _of_integers(dist, groups, all_reduce):
    """As NCCL's, which averages integers too."""

    @functools.wraps(all_reduce)
    def reduce(tensor, op=dist.ReduceOp.SUM, group=None, async_op=False):
        averages = op == dist.ReduceOp.AVG and not tensor.is_floating_point()
        if not averages or not groups.is_nccl(group or groups.default()):
            return all_reduce(tensor, op, group, async_op)
        work = all_reduce(tensor, dist.ReduceOp.SUM, group, async_op)
        if work is not None:
            work.wait()
        tensor.div_(dist.get_world_size(group), rounding_mode="trunc")
        return work

    return reduce


def _of_any_shape(function):
    """As NCCL's, to which the pieces of one tensor are only its elements in order."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def flat(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            if hasattr(value, "untyped_storage") and value.is_contiguous():
                given.arguments[name] = value.view(-1)
        return function(*given.args, **given.kwargs)

    return flat


def _on_its_gpu(gpus, original):
    """What a communication hook gets of DistributedDataParallel, made in C++ on the host."""

    @functools.wraps(original)
    def buffer(self):
        gradients = original(self)
        if gpu_of(gradients) is None:
            gpu = next(map(gpu_of, self.parameters()), None)
            if gpu is not None:
                gpus.charge(gradients.untyped_storage(), gpu)
        return gradients

    return buffer


def _tensors(values):
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif hasattr(value, "untyped_storage"):
            yield value


def _with_model_checked(groups, original):
    """DistributedDataParallel: its C++ begins to communicate at once."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def __init__(self, module, *args, **kwargs):
        given = signature.bind(self, module, *args, **kwargs).arguments
        group = given.get("process_group") or groups.default()
        if group is not None and groups.is_nccl(group):
            gpu = next(map(gpu_of, module.parameters()), None)
            if gpu is not None:
                groups.meet(group, gpu)
            elif groups.carries_gpus_alone(group):
                raise RuntimeError(_NO_BACKEND)
        original(self, module, *args, **kwargs)

    return __init__
