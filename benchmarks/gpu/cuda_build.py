"""Experiment H: virtual GPUs in host memory under a torch that is built for CUDA.

``cuda_build.py``: a few dozen lines that scripts for GPUs consist of, with every real GPU hidden.
Needs no GPU, only such a torch.
"""

from __future__ import annotations

import sys

from benchmarks.gpu.experiment import emit

_LINES = (
    "torch.cuda.is_available() and torch.cuda.device_count() == 2",
    "torch.cuda.get_device_name(1) == 'Tesla K80'",
    "torch.zeros(2, device='cuda:1').device == torch.device('cuda:1')",
    "torch.zeros(2).to('cuda').is_cuda and torch.zeros(2).cuda(1).get_device() == 1",
    "torch.tensor([1.0], device='cuda').is_cuda",
    "torch.randn(3, 3, device='cuda').matmul(torch.ones(3, 3).cuda()).is_cuda",
    "not torch.zeros(2).cuda().cpu().is_cuda",
    "torch.cuda.memory_allocated() >= 0 and torch.cuda.mem_get_info()[1] == 11441 << 20",
    "torch.nn.Linear(2, 2).cuda()(torch.rand(3, 2).cuda()).sum().backward() is None",
    "torch.cuda.synchronize() is None and torch.cuda.current_stream() is not None",
    "torch.Generator(device='cuda') is not None",
    "torch.nn.LSTM(3, 4).cuda()(torch.rand(5, 2, 3).cuda())[0].is_cuda",
    "torch.zeros(2).pin_memory().is_pinned()",
    "torch.get_rng_state() is not None and torch.cuda.get_rng_state() is not None",
)


def check() -> None:
    import torch

    wrong = {}
    for line in _LINES:
        try:
            if not eval(line, {"torch": torch}):
                wrong[line] = "False"
        except Exception as error:  # that is the finding
            wrong[line] = f"{type(error).__name__}: {error}"[:200]
    emit("H", torch=torch.__version__, cuda=torch.version.cuda, lines=len(_LINES), wrong=wrong)


def main(words: list[str]) -> int:
    if words == ["--child"]:
        check()
        return 0
    from benchmarks.gpu.in_host_memory import child_with
    from simgrid_ml.node.gpu_ledger import Gpu

    k80s = [
        Gpu("Tesla K80", f"GPU-{n}", f"00000001:{n:02X}:00.0", 11441 << 20, 13, (3, 7))
        for n in (0, 1)
    ]
    return child_with(k80s, "benchmarks.gpu.cuda_build")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
