"""Runs an experiment's own module again as a child that has virtual GPUs in host memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from simgrid_ml import wire
from simgrid_ml.node.gpu_ledger import Gpu, create
from simgrid_ml.shim import hooks

__all__ = ["child_with"]


def child_with(gpus: Sequence[Gpu], module: str) -> int:
    """The exit code of ``python -m module --child`` where ``gpus`` are all that there are."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = os.path.join(folder, "ledger")
        create(ledger, gpus)
        environment = {name: v for name, v in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        environment |= {
            "PYTHONPATH": f"{next(iter(hooks.__path__))}:{os.getcwd()}",
            wire.HOOKS_VARIABLE: "virtual_cuda",
            wire.GPU_LEDGER_VARIABLE: ledger,
        }
        return subprocess.run([sys.executable, "-m", module, "--child"], env=environment).returncode
