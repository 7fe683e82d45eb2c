"""Which operands may meet: those of one GPU, and some of the host.

What has no tag and meets a GPU's tensor is either the script's mistake or a helper that C++ itself
made inside the same call, with the options of a tensor that is a CPU tensor to C++. The *site*
tells them apart: the Python instruction that entered C++. A helper is used at the site where it
was made, from nothing or from other helpers.
"""

import functools
import os
import sys
import warnings

from .torch_state import STAYS

__all__ = ["Mixing", "among", "call_site", "made_at", "of_lengths", "tag_of", "with_zeros_placed"]

STRICT_VARIABLE = "SIMGRID_ML_GPU_STRICT"
"""0: tensors of several devices that meet are warned of, and the operation runs."""

_IN_BACKWARD = -1
"""Instruction of a site in C++'s own part of ``backward()``: it never mixes devices itself."""


def call_site(depth):
    """The Python instruction that entered C++, ``depth`` frames above."""
    try:
        frame = sys._getframe(depth)
    except ValueError:  # a thread of C++'s, to which deeply nested backward() calls are handed
        return None, 0, _IN_BACKWARD
    while frame.f_code.co_filename.endswith(("eval_frame.py", "_compile.py")):
        frame = frame.f_back
    code = frame.f_code
    if code.co_name == "_engine_run_backward":
        return None, 0, _IN_BACKWARD
    return code, id(frame), frame.f_lasti


def tag_of(tensor):
    """As ``gpu_of``, of what operations see: no tensor that wraps others."""
    try:
        return tensor.untyped_storage()._virtual_gpu
    except Exception:
        return getattr(tensor, "_virtual_gpu", None)


def among(tensors, gpu, host, other):
    """The GPU, the operands on none and another device, with ``tensors`` counted in."""
    for tensor in tensors:
        if tensor is None:
            continue
        tag = tag_of(tensor)
        if tag is None:
            if host is None:
                host = []
            host.append(tensor)
        elif gpu is None:
            gpu = tag
        elif tag != gpu:
            other = tag
    return gpu, host, other


def made_at(site, tensors):
    """Whether all were made by the very call that is going on."""
    return all(
        tensor.dim() == 0 or tensor.untyped_storage()._virtual_site == site for tensor in tensors
    )


def of_lengths(op, tensors):
    """``ctc_loss`` divides by the lengths, which may be on the host; they are nobody's mistake."""
    return op.name == "aten::clamp_min" and not tensors[0].is_floating_point()


def with_zeros_placed(gpus, apply):
    """``BackwardCFunction.apply``: gradients of outputs that nobody used are zeros made in C++."""

    @functools.wraps(apply)
    def apply_(self, *gradients):
        gpu = None
        made = []
        for gradient in gradients:
            if gradient is not None:
                tag = tag_of(gradient)
                if tag is not None:
                    gpu = tag
                else:
                    made.append(gradient)
        if made and gpu is not None:
            for gradient in made:
                storage = gradient.untyped_storage()
                site = storage._virtual_site
                if site is not None and site[2] == _IN_BACKWARD:
                    gpus.charge(storage, gpu)
        return apply(self, *gradients)

    return apply_


class Mixing:
    """Whether operands may meet."""

    def __init__(self, gpus):
        self._gpus = gpus
        self._strict = os.environ.get(STRICT_VARIABLE, "1") != "0"

    def check(self, op, args, gpu, host, other):
        """Some are not on ``gpu``.

        Raises:
            RuntimeError: and that is not C++'s own doing.
        """
        if not op.checked:
            # pad_sequence and others fill a helper: it is the result
            if op.copies and host is not None and host[0] is args[0]:
                storage = args[0].untyped_storage()
                if storage._virtual_site is not None and storage._virtual_site == call_site(3):
                    self._gpus.charge(storage, gpu)
            return
        if op.foreach:
            lists = [args[position] for position in op.lists if position < len(args)]
            for together in zip(*lists):
                here, host, other = among(together, None, None, STAYS)
                if here is not None:
                    self._together(op, here, host, other, call_site(3))
        else:
            self._together(op, gpu, host, other, call_site(3))

    def _together(self, op, gpu, host, other, site):
        if other is not STAYS:
            self._complain(op.name, gpu, other)
            return
        for tensor in host or ():
            storage = tensor.untyped_storage()
            if not tensor.dim() and not op.writes:
                continue
            made = storage._virtual_site
            by_cpp = made is not None and (made == site or made[2] == _IN_BACKWARD)
            if by_cpp or (site[2] == _IN_BACKWARD and tensor.dim()):
                self._gpus.charge(storage, gpu)
            elif tensor.dim():
                self._complain(op.name, gpu, None)
                return

    def check_indices(self, op, args):
        """Those of a GPU's tensor may be on the host, not the other way round."""
        indexed = tag_of(args[0])
        for index in args[1]:
            tag = None if index is None else tag_of(index)
            if tag is not None and tag != indexed:
                self._complain(op.name, indexed, tag, indices=True)
                return

    def check_lengths(self, lengths):
        """Those of a packed sequence are read on the host."""
        gpu = tag_of(lengths)
        if gpu is not None:
            kind = str(lengths.dtype).replace("torch.int64", "Long").replace("torch.int32", "Int")
            raise RuntimeError(
                "'lengths' argument should be a 1D CPU int64 tensor, but got "
                f"{lengths.dim()}D cuda:{gpu} {kind} tensor\n"
                "[simgrid-ml] lengths stay on the host: lengths.cpu()"
            )

    def check_generator(self, generator, target):
        """Numbers on a GPU come from a generator on one, and the other way round."""
        if generator is None:
            return
        known = self._gpus.made_generators.get(generator._cdata)
        kinds = ["cpu" if gpu is None else "cuda" for gpu in (target, known.gpu if known else None)]
        if kinds[0] != kinds[1]:
            raise RuntimeError(
                f"Expected a {kinds[0]!r} device type for generator but found {kinds[1]!r}"
            )

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
