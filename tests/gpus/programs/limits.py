"""Tries what is said to raise; prints, as JSON, what each of them says."""

import json

import torch
from torch.utils import cpp_extension

TRIED = {
    "torch.cuda.CUDAGraph": lambda: torch.cuda.CUDAGraph(),
    "torch.cuda.graph": lambda: torch.cuda.graph(torch.cuda.CUDAGraph()),
    "torch.cuda.MemPool": lambda: torch.cuda.MemPool(),
    "torch.cuda.jiterator": lambda: torch.cuda.jiterator._create_jit_fn(
        "template <typename T> T twice(T x) { return x + x; }"
    )(torch.ones(2, device="cuda")),
    "torch.cuda.gds": lambda: torch.cuda.gds.gds_register_buffer(
        torch.ones(2, device="cuda").untyped_storage()
    ),
    "cpp_extension.load": lambda: cpp_extension.load("kernels", ["kernels.cu"]),
    "cpp_extension.CUDAExtension": lambda: cpp_extension.CUDAExtension("kernels", ["kernels.cu"]),
    "Tensor.__cuda_array_interface__": lambda: (
        torch.ones(2, device="cuda").__cuda_array_interface__
    ),
    "torch.cuda.nccl.init_rank": lambda: torch.cuda.nccl.init_rank(2, b"", 0),
}


def said(call):
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return "nothing"


print(json.dumps({name: said(call) for name, call in TRIED.items()}))
