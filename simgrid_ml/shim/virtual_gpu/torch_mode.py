"""Sees every ATen operation: on which GPU its result is, and whether its operands may meet.

An operation runs on CPU tensors, whatever they are tagged with. A factory's ``device="cuda"`` is
taken out before C++ sees it. What has no tag and meets a GPU's tensor is either the script's
mistake or a helper that C++ itself made inside the same call, with the options of a tensor that
is a CPU tensor to C++. The *site* tells them apart: the Python instruction that entered C++.
A helper is used at the site where it was made, from nothing or from other helpers.
"""

import os
import sys
import warnings

from . import torch_memory, torch_private
from .torch_ops import operations
from .torch_state import STAYS

__all__ = ["install"]

STRICT_VARIABLE = "SIMGRID_ML_GPU_STRICT"
"""0: tensors of several devices that meet are warned of, and the operation runs."""

_IN_BACKWARD = -1
"""Instruction of a site in C++'s own part of ``backward()``: it never mixes devices itself."""
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
            gpus.shielded = True
            if gpus.mode is not None:
                _shield(gpus.torch, type(gpus.mode))
            return original(*args, **kwargs)

        return compile

    torch_private.extend(torch, "compile", compiles)


def _shield(torch, mode):
    """Dynamo must not trace the mode; costs two Python frames per operation."""
    mode.__torch_dispatch__ = torch._disable_dynamo(mode.handle, recursive=True)


def _site(depth):
    """The Python instruction that entered C++, ``depth`` frames above."""
    frame = sys._getframe(depth)
    while frame.f_code.co_filename.endswith(("eval_frame.py", "_compile.py")):
        frame = frame.f_back
    code = frame.f_code
    if code.co_name == "_engine_run_backward":
        return None, 0, _IN_BACKWARD
    return code, id(frame), frame.f_lasti


def _make_mode(gpus):
    torch, thread = gpus.torch, gpus.thread
    Tensor, host_device = torch.Tensor, torch.device("cpu")
    charge, index_of, learn = gpus.charge, gpus.index_of, operations(torch)
    check = _Check(gpus)
    known, kinds = {}, {}

    class VirtualGpus(torch_private.mode_base()):
        supports_higher_order_operators = True

        # Attached as ``__torch_dispatch__`` below: PyTorch wraps what it finds in the class with
        # ``_disable_dynamo``, which imports Dynamo (0.9 s) and adds frames to every call.
        def handle(self, func, types, args=(), kwargs=None):
            op = known.get(func)
            if op is None:
                op = learn(func)
                if op is None:
                    return NotImplemented
                known[func] = op
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
            count = len(args)
            for position in op.tensors:
                if position >= count:
                    break
                tensor = args[position]
                if tensor is None:
                    continue
                try:
                    tag = tensor.untyped_storage()._virtual_gpu
                except Exception:
                    if not isinstance(tensor, Tensor):  # a number
                        continue
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
            for position in op.lists:
                if position < count and args[position]:
                    gpu, host, other = _among(args[position], gpu, host, other)

            target = gpu
            pinned = False
            if kwargs:
                for name in op.named:
                    value = kwargs.get(name)
                    if value is not None:
                        several = value if isinstance(value, (list, tuple)) else (value,)
                        gpu, host, other = _among(several, gpu, host, other)
                        target = gpu
                if op.device:
                    device = kwargs.get("device")
                    if device is not None and device.type == "cuda":
                        target = index_of(device)
                        kwargs = {**kwargs, "device": host_device}
                    if kwargs.get("pin_memory"):
                        pinned = True
                        kwargs = {**kwargs, "pin_memory": False}
            else:
                kwargs = {}
            if op.moves and thread.moving is not STAYS:
                target = thread.moving
            if op.indices:
                check.indices(op, args)
            if gpu is not None and (host is not None or other is not STAYS):
                check.operands(op, args, gpu, host, other)
            if target is not None and (op.size is not None or op.moves):
                _foresee(gpus, op, args, kwargs, target)

            try:
                out = op.run(*args, **kwargs)
            except RuntimeError as error:
                if target is not None and "DefaultCPUAllocator" in str(error):
                    raise _no_host_memory(gpus, target) from None
                raise

            if op.writes:
                if op.resizes and gpu is not None:
                    _resized(out)
                return out
            if op.views and own_storage and gpu is not None:
                return out
            site = None
            if target is None and not op.views:
                site = _site(2)
                if host is not None and not _made_at(site, host) and not _of_lengths(op, host):
                    site = None
            kind = type(out)
            if kind is tuple or kind is list:
                last = len(out) - 1 if op.returns_lengths else -1
                for position, tensor in enumerate(out):
                    if isinstance(tensor, Tensor) and position != last:
                        own(tensor, _tag(args[0][position]) if op.foreach else target, site)
            elif kind is Tensor or isinstance(out, Tensor):
                own(out, target, site)
                if pinned:
                    out.untyped_storage()._virtual_pinned = True
            return out

    def own(tensor, gpu, site):
        """A result is on ``gpu``; what is on none remembers its site."""
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


def _tag(tensor):
    try:
        return tensor.untyped_storage()._virtual_gpu
    except Exception:
        return getattr(tensor, "_virtual_gpu", None)


def _among(tensors, gpu, host, other):
    """The GPU, the operands on none and another device, with ``tensors`` counted in."""
    for tensor in tensors:
        if tensor is None:
            continue
        tag = _tag(tensor)
        if tag is None:
            if host is None:
                host = []
            host.append(tensor)
        elif gpu is None:
            gpu = tag
        elif tag != gpu:
            other = tag
    return gpu, host, other


def _made_at(site, tensors):
    """Whether all were made by the very call that is going on."""
    return all(
        tensor.dim() == 0 or tensor.untyped_storage()._virtual_site == site for tensor in tensors
    )


def _of_lengths(op, tensors):
    """``ctc_loss`` divides by the lengths, which may be on the host; they are nobody's mistake."""
    return op.name == "aten::clamp_min" and not tensors[0].is_floating_point()


def _resized(out):
    for tensor in out if isinstance(out, (list, tuple)) else (out,):
        storage = tensor.untyped_storage()
        charge = storage._virtual_charge
        if charge is not None:
            charge.resize(storage.nbytes())


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


class _Check:
    """Whether operands may meet."""

    def __init__(self, gpus):
        self._gpus = gpus
        self._strict = os.environ.get(STRICT_VARIABLE, "1") != "0"

    def operands(self, op, args, gpu, host, other):
        """Some are not on ``gpu``.

        Raises:
            RuntimeError: and that is not C++'s own doing.
        """
        if not op.checked:
            # pad_sequence and others fill a helper: it is the result
            if op.copies and host is not None and host[0] is args[0]:
                storage = args[0].untyped_storage()
                if storage._virtual_site is not None and storage._virtual_site == _site(3):
                    self._gpus.charge(storage, gpu)
            return
        if op.foreach:
            lists = [args[position] for position in op.lists if position < len(args)]
            for together in zip(*lists):
                here, host, other = _among(together, None, None, STAYS)
                if here is not None:
                    self._together(op, here, host, other, _site(3))
        else:
            self._together(op, gpu, host, other, _site(3))

    def _together(self, op, gpu, host, other, site):
        if other is not STAYS:
            self._complain(op.name, gpu, other)
            return
        for tensor in host or ():
            storage = tensor.untyped_storage()
            made_here = storage._virtual_site == site
            if made_here or (site[2] == _IN_BACKWARD and tensor.dim()):
                self._gpus.charge(storage, gpu)
            elif tensor.dim():
                self._complain(op.name, gpu, None)
                return

    def indices(self, op, args):
        """Those of a GPU's tensor may be on the host, not the other way round."""
        indexed = _tag(args[0])
        for index in args[1]:
            tag = None if index is None else _tag(index)
            if tag is not None and tag != indexed:
                self._complain(op.name, indexed, tag, indices=True)
                return

    def _complain(self, name, first, second, indices=False):
        names = ["cpu" if gpu is None else f"cuda:{gpu}" for gpu in (first, second)]
        if indices:
            text = (
                "indices should be either on cpu or on the same device as the indexed tensor "
                f"({names[0]})"
            )
        else:
            kernel = name.replace("aten::", "wrapper_CUDA_")
            text = (
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{names[0]} and {names[1]}! (when checking arguments in method {kernel})"
            )
        text += (
            f"\n[simgrid-ml] move one of them: .to({names[0]!r}); a model is moved by "
            "model.to(device), each batch by batch.to(device)"
        )
        if self._strict:
            raise RuntimeError(text)
        warnings.warn(text, RuntimeWarning, stacklevel=4)
