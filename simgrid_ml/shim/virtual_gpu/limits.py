"""What GPUs in host memory cannot do, and what happens instead: the table of ``docs/gpus.md``.

``python -m simgrid_ml.shim.virtual_gpu.limits`` prints it. A test holds the page against it, and
tries what is said to raise.
"""

from typing import NamedTuple

__all__ = ["LIMITS", "Limit", "table"]


class Limit(NamedTuple):
    """Something that a real GPU does.

    Attributes:
        what: in words.
        happens: in its place.
        raises: whether that is an error that says so.
    """

    what: str
    happens: str
    raises: bool = False


LIMITS = (
    Limit("CUDA graphs: `torch.cuda.CUDAGraph`, `torch.cuda.graph`", "error", True),
    Limit("memory pools and allocators of one's own: `torch.cuda.MemPool`", "error", True),
    Limit("kernels from source: `torch.cuda.jiterator`", "error", True),
    Limit("GPUDirect Storage: `torch.cuda.gds`", "error", True),
    Limit("communicators of NCCL itself: `torch.cuda.nccl.init_rank`", "error", True),
    Limit("extensions in CUDA: `cpp_extension.load`, `cpp_extension.CUDAExtension`", "error", True),
    Limit("addresses of GPU memory: `Tensor.__cuda_array_interface__`", "error", True),
    Limit("Triton's kernels", "error where they are started"),
    Limit("CuPy, Numba's kernels, extensions that are built", "they find no driver of CUDA's"),
    Limit("extensions in C++ that are no CUDA", "a GPU's tensor is one of the CPU to them"),
    Limit(
        "`torch.compile`, TensorFlow's `jit_compile`",
        "`torch.compile` runs the operations one by one; Keras's optimizers are not compiled by "
        "XLA, whose sums differ",
    ),
    Limit(
        "asynchrony",
        "every operation has ended when its call returns: a missing `synchronize()`, or a batch "
        "overwritten while a `non_blocking` copy reads it, is not found",
    ),
    Limit("the speed of a GPU", "that of the host's cores; `elapsed_time` is time on them"),
    Limit(
        "CUDA's random numbers",
        "the CPU's generator, so that numbers are those of the CPU run; a GPU that is seeded by "
        "itself has its own, of the same kind. Threads that draw from the CPU's at once, as those "
        "of `DataParallel` with dropout, do so in any order",
    ),
    Limit(
        "CUDA's kernels: TF32, atomics whose order differs, other attention kernels",
        "the CPU's kernels, so results are the CPU run's, to the last digit",
    ),
    Limit(
        "CUDA's lists of operations for `torch.autocast`",
        "the CPU's, within the block for the host's tensors too",
    ),
    Limit(
        "memory besides tensors: contexts, workspaces of cuDNN and cuBLAS, NCCL's buffers, "
        "fragmentation",
        "not counted; a real GPU has some hundred MiB less room for each process",
    ),
    Limit(
        "memory of TensorFlow's tensors, GPU by GPU",
        "TensorFlow's allocator for the host counts them: those of all GPUs of a process, and "
        "the host's, together",
    ),
    Limit(
        "NCCL",
        "Gloo carries it, under its name; variables `NCCL_*` do nothing, no GPU is nearer to "
        "another, and collectives take the time of the nodes' network",
    ),
    Limit("NVLink, peer access", "all GPUs of a node can access each other; nothing is faster"),
    Limit("GPU activity in profilers", "CPU activity alone"),
    Limit("temperatures, clocks, fans, ECC counters in `nvidia-smi`", "`[N/A]`"),
)
"""Checked against torch 2.13 and TensorFlow 2.15."""


def table():
    """LIMITS as lines of Markdown."""
    rows = [f"| {limit.what} | {limit.happens} |" for limit in LIMITS]
    return "\n".join(["| of a real GPU | here |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())
