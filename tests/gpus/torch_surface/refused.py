"""What needs a real GPU says so."""

import sys

import torch
from checking import check, raises, run

REFUSED = ("is not available", "[simgrid-ml] the GPUs of this node live in host memory")


@check
def what_is_not_asked_for_is_not_imported():
    assert "torch._dynamo" not in sys.modules


@check
def extensions_in_cuda():
    from torch.utils import cpp_extension

    with raises(RuntimeError, *REFUSED, "load"):
        cpp_extension.load("kernels", ["kernels.cpp", "kernels.cu"])
    with raises(RuntimeError, *REFUSED):
        cpp_extension.load_inline("kernels", "", cuda_sources="__global__ void f() {}")
    with raises(RuntimeError, *REFUSED, "CUDAExtension"):
        cpp_extension.CUDAExtension("kernels", ["kernels.cu"])
    assert cpp_extension.CppExtension("kernels", ["kernels.cpp"]).name == "kernels"


@check
def graphs_and_kernels_from_source():
    with raises(RuntimeError, *REFUSED):
        torch.cuda.CUDAGraph()
    with raises(RuntimeError, *REFUSED):
        kernel = torch.cuda.jiterator._create_jit_fn("template <typename T> T f(T x) {return x;}")
        kernel(torch.zeros(2, device="cuda"))


@check
def kernels_of_triton():
    """Where there is Triton: the CPU builds of torch come without."""
    try:
        import triton
    except ImportError:
        return

    @triton.jit
    def kernel(x):
        pass

    with raises(RuntimeError, *REFUSED, "kernel"):
        kernel[(1,)](torch.zeros(2, device="cuda"))


run()
