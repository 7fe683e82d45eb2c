"""Experiment A: how much one process can take under each way of limiting it.

``memory_cap.py MODE --cap GIB``: ``none``; ``api``: torch's fraction of its allocator; ``conf``:
the same by PYTORCH_ALLOC_CONF; ``mps``: the Multi-Process Service's limit; ``mps-badlist``: the
same with an entry for a device that the process does not see.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from benchmarks.gpu.experiment import emit, multi_process_service, require_gpu

_BITE = 256 * 2**20
_MODES = ("none", "api", "conf", "mps", "mps-badlist")


def limits(mode: str, cap_gib: int, total_bytes: int) -> dict[str, str]:
    """Variables that limit a process to ``cap_gib``.

    >>> limits("conf", 11, 88 * 2**30)
    {'PYTORCH_ALLOC_CONF': 'per_process_memory_fraction:0.125'}
    """
    if mode == "conf":
        part = cap_gib * 2**30 / total_bytes
        return {"PYTORCH_ALLOC_CONF": f"per_process_memory_fraction:{part:g}"}
    if mode == "mps":
        return {
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"0={cap_gib}G",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
        }
    if mode == "mps-badlist":
        return {"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"0={cap_gib}G,1={cap_gib}G"}
    return {}


def take(mode: str, cap_gib: int) -> None:
    """Take memory until there is none, or four times the cap is taken."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    if mode == "api":
        torch.cuda.set_per_process_memory_fraction(cap_gib * 2**30 / total)
    held, ended = [], "stopped by itself"
    while len(held) * _BITE < min(total, cap_gib * 4 * 2**30):
        try:
            held.append(torch.empty(_BITE, dtype=torch.uint8, device="cuda"))
        except torch.cuda.OutOfMemoryError as error:
            ended = str(error)[:200]
            break
    emit(
        "A",
        mode=mode,
        cap_mib=cap_gib * 1024,
        taken_mib=len(held) * _BITE // 2**20,
        ended=ended,
        shown_mib=torch.cuda.mem_get_info()[1] // 2**20,
        sms=torch.cuda.get_device_properties(0).multi_processor_count,
    )


def main(words: list[str]) -> int:
    asked = argparse.ArgumentParser(prog="benchmarks.gpu.memory_cap")
    asked.add_argument("mode", choices=_MODES)
    asked.add_argument("--cap", type=int, default=11, help="GiB")
    asked.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = asked.parse_args(words)
    require_gpu()
    if given.child:
        take(given.mode, given.cap)
        return 0
    from simgrid_ml.node.cuda_driver import Driver

    total = Driver().devices(context=False)[0]["memory_bytes"]
    variables = limits(given.mode, given.cap, total)
    child = [sys.executable, "-m", "benchmarks.gpu.memory_cap", *words, "--child"]
    if not given.mode.startswith("mps"):
        return subprocess.run(child, env={**os.environ, **variables}).returncode
    with multi_process_service() as folder:
        if folder is None:
            emit("A", mode=given.mode, skipped="no Multi-Process Service can be started")
            return 0
        variables["CUDA_MPS_PIPE_DIRECTORY"] = folder
        return subprocess.run(child, env={**os.environ, **variables}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
