"""Experiment G: two virtual GPUs of a node on the one GPU, as ranks of torch use them.

``two_parts.py``: each of two processes uses the part with its own number, through the hook that a
run would load. Says what it saw, where its cap bit, and what a step costs with and without.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time

from benchmarks.gpu.experiment import Ranks, emit, require_gpu

_PART = 4 * 2**30
_MODEL = "Tesla K80"


def rank() -> None:
    import torch

    me = int(os.environ["RANK"])
    plain = "SIMGRID_ML_HOOKS" not in os.environ
    torch.cuda.set_device(0 if plain else me)
    own = "cuda:0" if plain else f"cuda:{me}"
    found = {"rank": me, "hook": not plain, "count": torch.cuda.device_count()}
    found["name"] = torch.cuda.get_device_name(own)
    found["shown_mib"] = torch.cuda.get_device_properties(own).total_memory // 2**20
    x = torch.ones(1024, device=own)
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(1000):
            x = x * 1.0
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begun) / 1000)
    found["us_per_operation"] = round(1e6 * statistics.median(times), 3)
    if not plain:
        held = []
        try:
            while len(held) < 64:
                held.append(torch.empty(128 * 2**20, dtype=torch.uint8, device=own))
        except torch.cuda.OutOfMemoryError:
            found["full_at_mib"] = 128 * len(held)
        held.clear()
        torch.cuda.empty_cache()
        try:
            torch.zeros(1, device=f"cuda:{1 - me}")
            found["second"] = "taken"
        except RuntimeError as error:
            found["second"] = str(error).splitlines()[0]
        found["after"] = float(torch.ones(2, device=own).sum())
    emit("G", **found)


def main(words: list[str]) -> int:
    require_gpu()
    if words == ["--rank"]:
        rank()
        return 0
    from simgrid_ml import wire
    from simgrid_ml.node.cuda_driver import Driver
    from simgrid_ml.node.gpu_ledger import Gpu, create
    from simgrid_ml.node.gpu_slices import Part, encode
    from simgrid_ml.shim import hooks

    device = Driver().devices(context=False)[0]
    own = {"CUDA_VISIBLE_DEVICES": device["uuid"]}
    argv = ["-m", "benchmarks.gpu.two_parts", "--rank"]
    with tempfile.TemporaryDirectory() as folder:
        ledger = os.path.join(folder, "ledger")
        size = _PART + 600 * 2**20
        create(ledger, [Gpu(_MODEL, f"GPU-{n}", "", size, 13, (3, 7)) for n in range(2)])
        sliced = {
            **own,
            "PYTHONPATH": f"{next(iter(hooks.__path__))}:{os.getcwd()}",
            wire.HOOKS_VARIABLE: "gpu_caps",
            wire.GPU_LEDGER_VARIABLE: ledger,
            wire.GPU_BACKING_VARIABLE: "TIME_SLICED",
            wire.GPU_DEVICES_VARIABLE: encode(
                [Part(device["uuid"], _PART, device["memory_bytes"])] * 2
            ),
        }
        for variables in ([own], [sliced, sliced]):
            with Ranks(argv, [dict(one) for one in variables]) as ranks:
                for result in ranks.results(120):
                    emit("G", **{k: v for k, v in result.items() if k != "experiment"})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
