"""Experiment F: does Horovod's build for the CPU reduce a tensor before it has arrived?

``horovod_race.py [--staged]``, under ``horovodrun -np 2``: each tensor is what a slow kernel
leaves, and is handed over while that still runs. A wrong sum says that Horovod did not wait.
``--staged`` does the same through simgrid-ml's copies.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

from benchmarks.gpu.experiment import emit, require_gpu

_TRIES = 200
_SIZE = 4096


def reduce(staged: bool) -> None:
    """One rank."""
    import torch

    if staged:
        import importlib

        mpi_ops = importlib.import_module("horovod.torch.mpi_ops")
        from simgrid_ml.shim.virtual_gpu import horovod_staging

        horovod_staging.install(mpi_ops)
    import horovod.torch as hvd
    from horovod.torch import mpi_ops as operations

    hvd.init()
    torch.cuda.set_device(0)
    me, n = hvd.rank(), hvd.size()
    wrong = 0
    slow = torch.randn(_SIZE, _SIZE, device="cuda")
    for number in range(_TRIES):
        tensor = torch.zeros(_SIZE * _SIZE, device="cuda")
        product = slow
        for _ in range(4):
            product = product @ slow * 1e-3
        tensor += product.flatten() * 0 + (me + 1 + number)
        handle = operations.allreduce_async(tensor, op=hvd.Sum, name=f"x{number % 4}")
        total = operations.synchronize(handle)
        expected = n * (n + 1) / 2 + n * number
        wrong += int(not bool((total == expected).all()))
    built = {"nccl": hvd.nccl_built(), "cuda": hvd.cuda_built()}
    if me == 0:
        emit("F", staged=staged, tries=_TRIES, wrong=wrong, built=built)


def main(words: list[str]) -> int:
    asked = argparse.ArgumentParser(prog="benchmarks.gpu.horovod_race")
    asked.add_argument("--staged", action="store_true")
    asked.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    given = asked.parse_args(words)
    require_gpu()
    if given.rank:
        reduce(given.staged)
        return 0
    horovodrun = shutil.which(
        "horovodrun", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    )
    if horovodrun is None:
        emit("F", staged=given.staged, skipped="this Python has no Horovod")
        return 0
    argv = [horovodrun, "-np", "2", sys.executable, "-m", "benchmarks.gpu.horovod_race"]
    return subprocess.run([*argv, *words, "--rank"]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
