"""What runs code of its own on a GPU: it says that there is none to run it."""

import importlib

from . import torch_cuda, torch_private

__all__ = ["install", "refuse"]

_FUNCTIONS = {
    "_cuda_customAllocator": "an allocator of one's own",
    "_cuda_changeCurrentAllocator": "an allocator of one's own",
    "_cuda_getAllocator": "an allocator of one's own",
    "_cuda_beginAllocateToPool": "a memory pool",
    "_cuda_beginAllocateCurrentThreadToPool": "a memory pool",
    "_cuda_endAllocateToPool": "a memory pool",
    "_cuda_releasePool": "a memory pool",
    "_cuda_jiterator_compile_and_launch_kernel": "a CUDA kernel",
    "_cuda_cudaHostAllocator": "CUDA's allocator of pinned memory",
    "_graph_pool_handle": "a CUDA graph",
    "_gds_register_buffer": "GPUDirect Storage",
    "_gds_deregister_buffer": "GPUDirect Storage",
    "_gds_register_handle": "GPUDirect Storage",
    "_gds_deregister_handle": "GPUDirect Storage",
    "_gds_load_storage": "GPUDirect Storage",
    "_gds_save_storage": "GPUDirect Storage",
    "_nccl_unique_id": "a communicator of NCCL's own",
    "_nccl_init_rank": "a communicator of NCCL's own",
    "_cuda_record_memory_viz": "CUDA's allocator",
}
_CLASSES = {
    "_CUDAGraph": ("torch.cuda", "graphs", "CUDAGraph", "a CUDA graph"),
    "_MemPool": ("torch.cuda", "memory", "MemPool", "a memory pool"),
    "_acceleratorGraph": ("torch.accelerator", "graphs", "Graph", "a CUDA graph"),
}
_REMEDY = (
    "[simgrid-ml] the GPUs of this node live in host memory, and nothing can run {what} there; "
    "leave it out here, or use a host with a GPU"
)


def install(gpus):
    """Have all that needs a real GPU raise one error."""
    torch = gpus.torch
    torch_cuda.give(torch, "", {name: refuse(name, what) for name, what in _FUNCTIONS.items()})
    for base, (package, module, name, what) in _CLASSES.items():
        refusing = _refusing(f"{package}.{name}", what)
        setattr(torch._C, base, refusing)
        try:
            owners = [importlib.import_module(f"{package}.{module}")]
        except ImportError:  # older than this
            continue
        for owner in (*owners, importlib.import_module(package)):
            torch_private.add(owner, base, refusing)
            torch_private.add(owner, name, refusing)
    for module in (torch.cuda.memory, torch.cuda.graphs):
        for name in _FUNCTIONS:
            torch_private.add(module, name, getattr(torch._C, name))


def refuse(name, what):
    """Gives a function that raises whatever it is called with.

    Args:
        name: of what is called.
        what: it would need.
    """

    def refused(*args, **kwargs):
        raise RuntimeError(f"{name.lstrip('_')} is not available\n{_REMEDY.format(what=what)}")

    return refused


def _refusing(name, what):
    class Refusing:
        def __new__(cls, *args, **kwargs):
            refuse(name, what)()

    Refusing.__name__ = Refusing.__qualname__ = name.rpartition(".")[2]
    return Refusing
