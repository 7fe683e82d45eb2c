"""Experiments C and D: throughput of N tenants of one GPU that compute at the same time.

``tenants.py --n N [--seconds S] [--mps [PERCENT]]``
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
import tempfile
import time

from benchmarks.gpu.experiment import Ranks, emit, multi_process_service, require_gpu

_READY_S = 90.0


def tenant(gate: str, seconds: float) -> None:
    """Steps per second of a chain of matrix products, from the opening of the gate on."""
    import torch

    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (torch.nn.Linear(4096, 4096), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    x = torch.randn(512, 4096, device="cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with open(f"{gate}.{os.environ['RANK']}", "w"):
        pass
    while not os.path.exists(gate):
        time.sleep(0.01)
    begun, steps = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        step()
        steps += 1
        if steps % 10 == 0:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    emit("tenant", steps_per_s=steps / (time.monotonic() - begun))


def main(words: list[str]) -> int:
    asked = argparse.ArgumentParser(prog="benchmarks.gpu.tenants")
    asked.add_argument("--n", type=int, default=1)
    asked.add_argument("--seconds", type=float, default=8.0)
    asked.add_argument("--mps", type=int, nargs="?", const=100, help="per cent of the SMs each")
    asked.add_argument("--gate", help=argparse.SUPPRESS)
    given = asked.parse_args(words)
    require_gpu()
    if given.gate:
        tenant(given.gate, given.seconds)
        return 0
    if given.mps is None:
        _compute("C", words, given, [{} for _ in range(given.n)])
        return 0
    with multi_process_service() as pipe:
        if pipe is None:
            emit("D", n=given.n, skipped="no Multi-Process Service can be started")
            return 0
        own = {
            "CUDA_MPS_PIPE_DIRECTORY": pipe,
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(given.mps),
        }
        _compute("D", words, given, [dict(own) for _ in range(given.n)])
    return 0


def _compute(name, words, given, own):
    with tempfile.TemporaryDirectory() as folder:
        gate = os.path.join(folder, "gate")
        with Ranks(["-m", "benchmarks.gpu.tenants", *words, "--gate", gate], own) as ranks:
            deadline = time.monotonic() + _READY_S
            while len(glob.glob(gate + ".*")) < given.n and time.monotonic() < deadline:
                time.sleep(0.05)
            with open(gate, "w"):
                pass
            results = ranks.results(given.seconds + 30)
    failed = [one for one in results if "failed" in one]
    rates = [round(one["steps_per_s"], 2) for one in results if "failed" not in one]
    said = {"failed": failed} if failed else {}
    emit(name, n=given.n, mps=given.mps, steps_per_s=rates, total=round(sum(rates), 2), **said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
