"""Experiment J: one tenant of the GPU makes an illegal access while another trains.

``faults.py [--mps]``: says whether the neighbour got through.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

from benchmarks.gpu.experiment import Ranks, emit, multi_process_service, require_gpu

_STEPS = 400


def tenant(gate: str) -> None:
    """Rank 0 computes; rank 1 indexes beyond a tensor once rank 0 does."""
    import torch

    torch.manual_seed(0)
    x = torch.randn(1024, 1024, device="cuda")
    torch.cuda.synchronize()
    if os.environ["RANK"] == "1":
        while not os.path.exists(gate):
            time.sleep(0.01)
        try:
            x[torch.full((8,), 1 << 30, device="cuda")]
            torch.cuda.synchronize()
            emit("tenant", fault="none")
        except Exception as error:
            emit("tenant", fault=str(error).splitlines()[0][:200])
        return
    for step in range(_STEPS):
        x = torch.tanh(x @ x * 1e-2)
        if step == 20:
            torch.cuda.synchronize()
            with open(gate, "w"):
                pass
        if step % 20 == 0:
            torch.cuda.synchronize()
            time.sleep(0.05)
    torch.cuda.synchronize()
    emit("tenant", steps=_STEPS, finite=bool(torch.isfinite(x).all()))


def main(words: list[str]) -> int:
    require_gpu()
    if words[:1] == ["--tenant"]:
        tenant(words[1])
        return 0
    if words == ["--mps"]:
        with multi_process_service() as pipe:
            if pipe is None:
                emit("J", mps=True, skipped="no Multi-Process Service can be started")
            else:
                _compute(True, {"CUDA_MPS_PIPE_DIRECTORY": pipe})
        return 0
    _compute(False, {})
    return 0


def _compute(mps: bool, own: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        argv = ["-m", "benchmarks.gpu.faults", "--tenant", os.path.join(folder, "gate")]
        with Ranks(argv, [dict(own), dict(own)]) as ranks:
            neighbour, faulty = ranks.results(90)
    emit("J", mps=mps, neighbour=neighbour, faulty=faulty)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
