"""Sees every ATen operation: on which GPU its result is, and what it takes of that GPU's memory.

An operation runs on CPU tensors, whatever they are tagged with. A factory's ``device="cuda"`` is
taken out before C++ sees it.
"""

from . import torch_memory, torch_private
from .torch_mixing import (
    Mixing,
    among,
    call_site,
    made_at,
    of_lengths,
    tag_of,
    with_zeros_placed,
)
from .torch_ops import operations
from .torch_random import numbers_of
from .torch_state import STAYS

__all__ = ["install"]

_NO_TENSORS = frozenset({type(None), bool, int, float, complex})
"""What else is given where an operator takes a tensor."""
_LARGE = 64 * 2**20
"""Before a factory writes so many bytes, room is looked for."""


def install(gpus):
    """Prepare the mode; the first use of CUDA switches it on."""
    torch = gpus.torch
    torch.UntypedStorage._virtual_gpu = None
    torch.UntypedStorage._virtual_charge = None
    torch.UntypedStorage._virtual_site = None
    torch.UntypedStorage._virtual_pinned = False
    gpus.make_mode = lambda: _make_mode(gpus)

    def compiles(original):
        def compile(*args, **kwargs):
            if torch_private.compiles_for_cuda(torch):
                return args[0] if args else kwargs.get("model") or (lambda function: function)
            gpus.shielded = True
            if gpus.mode is not None:
                _shield(gpus.torch, type(gpus.mode))
            return original(*args, **kwargs)

        return compile

    torch_private.extend(torch, "compile", compiles)
    function = torch.autograd.function.BackwardCFunction
    torch_private.extend(function, "apply", lambda given: with_zeros_placed(gpus, given))


def _shield(torch, mode):
    """Dynamo must not trace the mode; costs two Python frames per operation."""
    mode.__torch_dispatch__ = torch._disable_dynamo(mode.handle, recursive=True)


def _make_mode(gpus):
    torch, thread = gpus.torch, gpus.thread
    Tensor, host_device = torch.Tensor, torch.device("cpu")
    charge, index_of, learn = gpus.charge, gpus.index_of, operations(torch)
    mixing = Mixing(gpus)
    kinds = {}

    class VirtualGpus(torch_private.mode_base()):
        supports_higher_order_operators = True

        # Attached as ``__torch_dispatch__`` below: PyTorch wraps what it finds in the class with
        # ``_disable_dynamo``, which imports Dynamo (0.9 s) and adds frames to every call.
        def handle(self, func, types, args=(), kwargs=None):
            try:
                op = func._virtual_operation
            except AttributeError:
                op = func._virtual_operation = learn(func)
            if op is None:
                return NotImplemented
            for kind in types:
                if kind is not Tensor:
                    knows = kinds.get(kind)
                    if knows is None:
                        knows = kinds[kind] = _kind(torch, kind)
                    if knows is _WRAPS:
                        return NotImplemented
                    if knows is _FAKE:
                        return op.run(*args, **(kwargs or {}))

            gpu = host = None  # the GPU of the operands; those that are on none
            other = STAYS  # another device
            own_storage = True
            for tensor in (
                args[: op.leading]
                if op.leading is not None
                else [args[position] for position in op.tensors if position < len(args)]
            ):
                if tensor.__class__ in _NO_TENSORS:
                    continue
                try:
                    tag = tensor.untyped_storage()._virtual_gpu
                except Exception:
                    own_storage, tag = False, getattr(tensor, "_virtual_gpu", None)
                if tag is None:
                    if host is None:
                        host = [tensor]
                    else:
                        host.append(tensor)
                elif gpu is None:
                    gpu = tag
                elif tag != gpu:
                    other = tag

            target = gpu
            pinned = False
            if op.special:
                kwargs = kwargs or {}
                for position in op.lists:
                    if position < len(args) and args[position]:
                        gpu, host, other = among(args[position], gpu, host, other)
                for name in op.named:
                    value = kwargs.get(name)
                    if value is not None:
                        several = value if isinstance(value, (list, tuple)) else (value,)
                        gpu, host, other = among(several, gpu, host, other)
                target = gpu
                if op.device:
                    device = kwargs.get("device")
                    if device is not None and device != host_device:
                        target = index_of(device)
                        if target is not None:
                            kwargs = {**kwargs, "device": host_device}
                    if kwargs.get("pin_memory"):
                        pinned = True
                        kwargs = {**kwargs, "pin_memory": False}
                if op.generator:
                    mixing.check_generator(kwargs.get("generator"), target)
                if op.moves and thread.moving is not STAYS:
                    target = thread.moving
                if op.indices:
                    mixing.check_indices(op, args)
                if op.returns_lengths:
                    mixing.check_lengths(args[1])
                if target is not None and (op.size is not None or op.moves):
                    _foresee(gpus, op, args, kwargs, target)
            if gpu is not None and (host is not None or other is not STAYS):
                mixing.check(op, args, gpu, host, other)

            try:
                if op.random and target is not None and gpus.generators[target].differs:
                    with numbers_of(gpus, target):
                        out = op.run(*args, **(kwargs or {}))
                elif kwargs:
                    out = op.run(*args, **kwargs)
                else:
                    out = op.run(*args)
            except RuntimeError as error:
                if target is not None and "DefaultCPUAllocator" in str(error):
                    raise _no_host_memory(gpus, target) from None
                raise

            if op.writes:
                if op.resizes and gpu is not None:
                    _resized(gpus, out)
                return out
            if gpu is not None and op.views and own_storage:
                return out
            if target is not None and out.__class__ is Tensor and own_storage:
                try:
                    storage = out.untyped_storage()
                    if storage._virtual_gpu is None:
                        charge(storage, target)
                    return out
                except NotImplementedError:  # it has none
                    pass
            site = None
            if target is None and not op.views:
                site = call_site(2)
                if host is not None and not made_at(site, host) and not of_lengths(op, host):
                    site = None
            kind = out.__class__
            if kind is tuple or kind is list:
                last = len(out) - 1 if op.returns_lengths else -1
                for position, tensor in enumerate(out):
                    if isinstance(tensor, Tensor) and position != last:
                        own(
                            tensor,
                            tag_of(args[op.lists[0]][position]) if op.foreach else target,
                            site,
                        )
            elif kind is Tensor or isinstance(out, Tensor):
                own(out, target, site)
                if pinned:
                    out.untyped_storage()._virtual_pinned = True
            return out

    def own(tensor, gpu, site):
        """A result is on ``gpu``; what is on none remembers its site."""
        if type(tensor) is not Tensor and _kind(torch, type(tensor)) is _FAKE:
            return
        try:
            storage = tensor.untyped_storage()
        except Exception:
            if gpu is not None:
                tensor._virtual_gpu = gpu
            return
        if storage._virtual_gpu is None:
            if gpu is not None:
                charge(storage, gpu)
            elif site is not None:
                storage._virtual_site = site

    VirtualGpus.__torch_dispatch__ = VirtualGpus.handle
    torch_private.no_rules_for(VirtualGpus)
    if gpus.shielded:
        _shield(torch, VirtualGpus)
    return VirtualGpus()


_PLAIN, _FAKE, _WRAPS = "plain", "fake", "wraps"


def _kind(torch, cls):
    """What to do with a subclass of Tensor: DTensor and its like unwrap first, then come again."""
    if cls.__name__ in ("FakeTensor", "FunctionalTensor"):  # Dynamo's look after their device
        return _FAKE
    dispatch = getattr(cls, "__torch_dispatch__", None)
    own = dispatch is not None and dispatch is not torch._C._disabled_torch_dispatch_impl
    return _WRAPS if own else _PLAIN


def _resized(gpus, out):
    if out is None:  # split_with_sizes_copy.out and its like return nothing
        return
    for tensor in out if isinstance(out, (list, tuple)) else (out,):
        storage = tensor.untyped_storage()
        if storage._virtual_charge is not None:
            gpus.recharge(storage, storage.nbytes())


def _foresee(gpus, op, args, kwargs, target):
    """Before the host's memory is written to: is there room for a large result?

    Raises:
        torch.OutOfMemoryError: the GPU, or the host, has none.
    """
    try:
        if op.moves:
            size = args[0].numel() * args[0].element_size()
        else:
            dtype = kwargs.get("dtype") or gpus.torch.get_default_dtype()
            size = dtype.itemsize
            for extent in args[op.size]:
                size *= extent
    except Exception:  # shapes that are not known, or not held in one piece
        return
    if size >= _LARGE:
        gpus.make_room(target, size)


def _no_host_memory(gpus, gpu):
    text = f"CUDA out of memory.\n{torch_memory.host_message(gpu)}"
    return torch_private.out_of_memory(gpus.torch)(text)
