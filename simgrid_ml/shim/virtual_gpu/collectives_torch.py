"""``torch.distributed`` on real GPUs: NCCL watched, or Gloo in its place.

Gloo takes tensors of GPUs in builds for CUDA: it copies them to the host, reduces there, and copies
back. What it takes from the CPU alone is staged here the same way, at once.

Never run on a GPU.
"""

import functools
import inspect
import os

from simgrid_ml import wire

from . import caps_torch, collectives, torch_meeting
from .gloo_for_nccl import by_gloo

__all__ = ["install"]

_STAGED = (
    *("send", "recv", "reduce_scatter", "reduce_scatter_tensor"),
    *("all_gather_into_tensor", "_all_gather_base", "_reduce_scatter_base"),
    *("all_gather_single", "reduce_scatter_single"),
)
_FIRST = (
    *("all_reduce", "broadcast", "all_gather", "all_gather_into_tensor", "reduce"),
    *("reduce_scatter_tensor", "all_gather_single", "reduce_scatter_single", "barrier"),
)


def install(c10d, host=collectives.on_host):
    """Change ``torch.distributed.distributed_c10d``.

    Args:
        host: gives the copy of a tensor that Gloo cannot take where it is, and None for others.
    """
    how = collectives.carrier()
    if how == "gloo":
        begins = functools.partial(_say_once, c10d, how)
        c10d.init_process_group = by_gloo(c10d.init_process_group, "nccl", begins)
        c10d.new_group = by_gloo(c10d.new_group, None, lambda: None)
        for name in _STAGED:
            if hasattr(c10d, name):
                setattr(c10d, name, _staged(getattr(c10d, name), host))
        c10d.isend = _sent(c10d.isend, host)
        c10d.irecv = _received(c10d.irecv, host)
        met = []
        for name in _FIRST:
            if hasattr(c10d, name):
                setattr(c10d, name, _met(c10d, getattr(c10d, name), met))
        return
    first = []
    c10d.init_process_group = _told(c10d, c10d.init_process_group, how, first)
    for name in _FIRST:
        if hasattr(c10d, name):
            setattr(c10d, name, _watched(getattr(c10d, name), first))


def _say_once(c10d, how):
    if c10d.get_rank() == 0:
        collectives.say(collectives.said(how, os.environ.get(wire.GPU_BACKING_VARIABLE, "")))


# -- Gloo in NCCL's place ----------------------------------------------------------------------
def _met(c10d, function, met):
    """The first collective of all ranks: NCCL would look whether two have the same GPU."""

    @functools.wraps(function)
    def collective(*args, **kwargs):
        if not met and kwargs.get("group") in (None, c10d.GroupMember.WORLD):
            place = next(filter(None, map(_place, (*args, *kwargs.values()))), None)
            if place is not None:
                met.append(place)
                *where, index = place
                torch_meeting.compare(c10d, c10d.GroupMember.WORLD, where, index)
        return function(*args, **kwargs)

    return collective


def _place(value):
    """On which GPU of which node a tensor is: node, bus, UUID and index; None: on none."""
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(_place, value)), None)
    if not getattr(value, "is_cuda", False):
        return None
    return caps_torch.place(value.get_device())


class _Done:
    """The work of an operation that is over."""

    def wait(self, timeout=None):
        return True

    def is_completed(self):
        return True

    def is_success(self):
        return True


class _Copied:
    """Work on a host's copy, which goes where it belongs once it has arrived."""

    def __init__(self, work, host, tensor=None):
        self._work = work
        self._host = host  # until then somebody must hold it
        self._tensor = tensor

    def wait(self, *timeout):
        done = self._work.wait(*timeout)
        if self._tensor is not None:
            self._tensor.copy_(self._host)
            self._tensor = None
        return done

    def __getattr__(self, name):
        return getattr(self._work, name)


def _staged(function, host):
    """``function`` on copies in host memory; what it has changed is copied back."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def through_host(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        copies = []

        def copied(value):
            if isinstance(value, (list, tuple)):
                return type(value)([copied(one) for one in value])
            there = host(value) if hasattr(value, "is_cuda") else None
            if there is None:
                return value
            copies.append((value, there))
            return there

        for name, value in given.arguments.items():
            given.arguments[name] = copied(value)
        if not copies:
            return function(*args, **kwargs)
        waits = not given.arguments.pop("async_op", False)
        result = function(*given.args, **given.kwargs)
        for tensor, there in copies:
            tensor.copy_(there)
        return result if waits else _Done()

    return through_host


def _sent(isend, host):
    @functools.wraps(isend)
    def send(tensor, *args, **kwargs):
        there = host(tensor)
        if there is None:
            return isend(tensor, *args, **kwargs)
        return _Copied(isend(there, *args, **kwargs), there)

    return send


def _received(irecv, host):
    @functools.wraps(irecv)
    def receive(tensor, *args, **kwargs):
        there = host(tensor)
        if there is None:
            return irecv(tensor, *args, **kwargs)
        return _Copied(irecv(there, *args, **kwargs), there, tensor)

    return receive


# -- NCCL, watched -----------------------------------------------------------------------------
def _told(c10d, function, how, first):
    @functools.wraps(function)
    def init_process_group(*args, **kwargs):
        watch = collectives.Watch("init_process_group")
        try:
            group = function(*args, **kwargs)
        finally:
            watch.end()
        if "nccl" in str(c10d.get_backend()):
            _say_once(c10d, how)
            from torch.nn.parallel import DistributedDataParallel as model

            if not first:  # its C++ begins to communicate at once
                model.__init__ = _watched(model.__init__, first)
        return group

    return init_process_group


def _watched(function, first):
    """The first of all collectives makes the communicators, and may wait for ever.

    It returns before it is over: an event behind it on the GPU tells when it is.
    """

    @functools.wraps(function)
    def collective(*args, **kwargs):
        if first:
            return function(*args, **kwargs)
        first.append(function)
        event = []
        watch = collectives.Watch(
            f"the first collective ({function.__qualname__})", lambda: event and event[0].query()
        )
        try:
            result = function(*args, **kwargs)
        except BaseException:
            watch.end()
            raise
        mark = _mark()
        if mark is None:
            watch.end()
        else:
            event.append(mark)
        return result

    return collective


def _mark():
    """An event behind all that was given to the GPU; None: CUDA is not in use."""
    import torch

    if not torch.cuda.is_initialized():
        return None
    mark = torch.cuda.Event()
    mark.record()
    return mark
