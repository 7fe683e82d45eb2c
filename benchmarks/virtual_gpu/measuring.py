"""Where the measured programs run: the job's interpreter, with what a node with GPUs gives it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import benchmarks
import simgrid_ml
from benchmarks.overhead.jobs import Bench
from simgrid_ml import wire
from simgrid_ml.engine.gpus import HOOKS
from simgrid_ml.node.gpu_ledger import Gpu, create
from simgrid_ml.spec.gpus import GPU_MODELS

__all__ = ["Node"]

_PACKAGE = os.path.dirname(os.path.abspath(simgrid_ml.__file__))
_DEADLINE_S = 500.0


class Node:
    """What a program finds on a node with two K80s, without the node.

    Attributes:
        ledger: the node's.
        plain: a program's variables without GPUs.
        variables: with them, the hooks on.
    """

    def __init__(self, bench: Bench) -> None:
        self._python = bench.environment.python
        folder = os.path.join(bench.folder, "node")
        os.makedirs(os.path.join(folder, "python"))
        for name, target in {
            "simgrid_ml": _PACKAGE,
            "benchmarks": os.path.dirname(os.path.abspath(benchmarks.__file__)),
            "sitecustomize.py": os.path.join(_PACKAGE, "shim", "hooks", "sitecustomize.py"),
        }.items():
            os.symlink(target, os.path.join(folder, "python", name))
        self.ledger = os.path.join(folder, "ledger")
        model = GPU_MODELS["K80"]
        gpus = [
            Gpu(
                name=model.name,
                uuid=f"GPU-{index}",
                bus_id=f"00000001:{index:02X}:00.0",
                memory_bytes=model.memory_bytes,
                sms=model.sms,
                capability=model.capability,
                power_w=model.power_w,
            )
            for index in range(2)
        ]
        create(self.ledger, gpus, driver=model.driver, cuda=model.cuda, node="node0")
        self.plain = {**bench.variables, "OMP_NUM_THREADS": "1"}
        self.variables = {
            **self.plain,
            "PYTHONPATH": os.path.join(folder, "python"),
            wire.GPU_LEDGER_VARIABLE: self.ledger,
            wire.HOOKS_VARIABLE: ",".join(HOOKS),
        }

    def run(self, *words: str, variables: Mapping[str, str]) -> str:
        """What the interpreter prints.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [self._python, *words],
            env=dict(variables),
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def measured(self, program: str, *words: str) -> Any:
        """What one of the programs beside this file tells; it installs the hook itself."""
        variables = {**self.variables, wire.HOOKS_VARIABLE: ""}
        module = f"{__package__}.{program}"
        return json.loads(self.run("-m", module, *words, variables=variables))
