"""Experiment I: is the memory that a virtual GPU counts what a real one needs?

``memory_fidelity.py``: on a GPU, or with ``--virtual`` on one in host memory, where it makes the
predictions. Both print the most that was allocated in two steps of each model.
"""

from __future__ import annotations

import sys

from benchmarks.gpu.experiment import emit, require_gpu

_BATCHES = {"cnn": 64, "transformer": 8, "resnet18": 16, "resnet50": 8}


def measure(side: str) -> None:
    """Two steps of each model; weights, and the most that was allocated, in MiB."""
    import torch
    import torch.nn.functional as F

    from benchmarks.virtual_gpu.models import MODELS

    for name, size in _BATCHES.items():
        make, batch, _ = MODELS[name]
        torch.manual_seed(0)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model = make().cuda()
        weights = torch.cuda.memory_allocated() - before
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        x, y = (part.cuda() for part in batch(size))
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        torch.cuda.synchronize()
        emit(
            "I",
            side=side,
            model=name,
            batch=size,
            weights_mib=round(weights / 2**20, 1),
            peak_mib=round((torch.cuda.max_memory_allocated() - before) / 2**20, 1),
            reserved_mib=round(torch.cuda.max_memory_reserved() / 2**20, 1),
        )
        del model, optimizer, x, y


def main(words: list[str]) -> int:
    if words == ["--virtual"]:
        return _on_host_memory()
    if words == ["--child"]:
        measure("virtual")
        return 0
    require_gpu()
    measure("real")
    return 0


def _on_host_memory() -> int:
    from benchmarks.gpu.in_host_memory import child_with
    from simgrid_ml.node.gpu_ledger import Gpu

    h200 = Gpu("NVIDIA H200", "GPU-0", "", 139 * 2**30, 132, (9, 0))
    return child_with([h200], "benchmarks.gpu.memory_fidelity")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
