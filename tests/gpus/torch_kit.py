"""Python programs that see the virtual GPUs of a node, without the node."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.node.gpu_ledger import Gpu, create

PACKAGE = Path(simgrid_ml.__file__).parent
PROGRAMS = Path(__file__).parent / "torch_surface"


class Node:
    """A node with ``count`` K80s, as far as its programs can tell.

    Args:
        folder: for its ledger and the paths of its interpreters.
        python: the interpreter of an environment.
    """

    def __init__(self, folder: Path, python: str, count: int = 2, memory_mib: int = 11441) -> None:
        self.ledger = folder / "ledger"
        gpus = [
            Gpu("Tesla K80", f"GPU-{n}", f"00000001:0{n}:00.0", memory_mib << 20, 13, (3, 7))
            for n in range(count)
        ]
        create(str(self.ledger), gpus, driver="470.256.02", cuda="11.4", node="node0")
        self.path = folder / "python"
        self.path.mkdir()
        (self.path / "simgrid_ml").symlink_to(PACKAGE)
        hook = PACKAGE / "shim" / "hooks" / "sitecustomize.py"
        (self.path / "sitecustomize.py").symlink_to(hook)
        self.folder = folder
        self.python = python

    @property
    def variables(self) -> dict[str, str]:
        """What a program needs in its environment."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.path),
            "OMP_NUM_THREADS": "1",
            wire.HOOKS_VARIABLE: "virtual_cuda",
            wire.GPU_LEDGER_VARIABLE: str(self.ledger),
        }

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Python with ``words``, to its end; a variable that is "" is not set."""
        environment = {k: v for k, v in {**self.variables, **variables}.items() if v}
        return subprocess.run(
            *([self.python, *words],),
            env=environment,
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=250,
        )

    def checks(self, program: str, **variables: str) -> dict[str, str]:
        """Why each check of a program does not hold; "": it holds."""
        done = self.run(str(PROGRAMS / f"{program}.py"), **variables)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert lines, done.stderr
        return {line["check"]: line["why"] for line in lines}
