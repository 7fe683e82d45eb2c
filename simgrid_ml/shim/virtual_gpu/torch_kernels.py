"""Kernels that are no CPU kernels of torch's own: those in Python, and those for a real GPU."""

import functools

from . import torch_private
from .torch_refused import refuse
from .torch_state import gpu_of, installed

__all__ = ["change", "install"]


def install(gpus):
    """Have operators in Python seen inside, and programs for GPUs refused."""
    _python_kernels(gpus)
    _refuse_addresses(gpus.torch)


def _python_kernels(gpus):
    """The mode is off below an operation; what is written in Python asks for GPUs again."""
    torch = gpus.torch

    def seen(kernel):
        @functools.wraps(kernel)
        def run(*args, **kwargs):
            if not gpus.is_paused():
                return kernel(*args, **kwargs)
            with gpus.mode:
                return kernel(*args, **kwargs)

        return run

    def registers(original):
        def impl(self, op_name, fn, dispatch_key="", **kwargs):
            key = str(dispatch_key)
            if callable(fn) and not fn.__module__.startswith("torch._C") and "Meta" not in key:
                fn = seen(fn)
            return original(self, op_name, fn, dispatch_key, **kwargs)

        return impl

    torch_private.extend(torch.library.Library, "impl", registers)


def _refuse_addresses(torch):
    def address(self):
        if gpu_of(self) is None:
            raise AttributeError(
                "Can't get __cuda_array_interface__ on non-CUDA tensor type: "
                f"{self.type()} If CUDA data is required use tensor.cuda() to copy tensor to "
                "device memory."
            )
        return refuse("Tensor.__cuda_array_interface__", "what reads a GPU's memory")()

    torch_private.replace(torch.Tensor, "__cuda_array_interface__", property(address))


def change(module):
    """Change a module that builds, or starts, programs for a GPU, right after its import."""
    if module.__name__ == "triton.runtime.jit":
        _refuse_triton(module)
    else:
        _refuse_extensions(module)
    torch_private.report(installed().torch)


def _refuse_triton(jit):
    def run(self, *args, **kwargs):
        refuse(f"the Triton kernel {self.fn.__name__}", "a program for a GPU")()

    torch_private.replace(jit.JITFunction, "run", run)


def _refuse_extensions(extensions):
    """A host without a GPU may have nvcc, and would build for minutes before it fails."""

    def refuses(original, for_gpus):
        @functools.wraps(original)
        def build(*args, **kwargs):
            if for_gpus(*args, **kwargs):
                refuse(original.__name__, "an extension for CUDA")()
            return original(*args, **kwargs)

        return build

    def load(name=None, sources=(), *args, with_cuda=None, **kwargs):
        sources = [sources] if isinstance(sources, str) else sources
        return with_cuda or any(str(source).endswith((".cu", ".cuh")) for source in sources)

    def load_inline(name=None, cpp_sources=(), cuda_sources=None, *args, with_cuda=None, **kwargs):
        return with_cuda or bool(cuda_sources)

    torch_private.extend(extensions, "load", lambda original: refuses(original, load))
    torch_private.extend(extensions, "load_inline", lambda original: refuses(original, load_inline))
    torch_private.extend(
        extensions,
        "CUDAExtension",
        lambda original: refuses(original, lambda *args, **kwargs: True),
    )
