"""Scripts as people write them, unchanged, on two virtual GPUs without a node."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.engine.gpus import HOOKS
from simgrid_ml.environments.build import ensure
from simgrid_ml.node.gpu_ledger import Gpu, create
from simgrid_ml.shim.virtual_gpu.limits import LIMITS
from simgrid_ml.spec.job import EnvironmentSpec

PROGRAMS = Path(__file__).parent / "programs"
PACKAGE = os.path.dirname(simgrid_ml.__file__)
GIB = 2**30

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(environment: EnvironmentSpec, tmp_path: Path) -> Run:
    """Runs a program to its end; ``gpus`` 0: without the hooks."""
    path = tmp_path / "python"
    path.mkdir()
    (path / "simgrid_ml").symlink_to(PACKAGE)
    (path / "sitecustomize.py").symlink_to(f"{PACKAGE}/shim/hooks/sitecustomize.py")
    python = ensure(environment).python

    def run(program: str, *words: str, gpus: int = 2) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        if gpus:
            ledger = tmp_path / "ledger"
            there = [
                Gpu("Tesla V100-PCIE-16GB", f"GPU-{n}", f"00000001:0{n}:00.0", GIB, 80, (7, 0))
                for n in range(gpus)
            ]
            create(str(ledger), there, node="node0")
            variables |= {
                "PYTHONPATH": str(path),
                wire.HOOKS_VARIABLE: ",".join(HOOKS),
                wire.GPU_LEDGER_VARIABLE: str(ledger),
            }
        done = subprocess.run(
            [python, str(PROGRAMS / program), *words],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith("simgrid-ml")]
        assert all("Gloo carries" in line for line in said), said  # no hook failed
        return done

    return run


def test_the_mixed_precision_recipe_trains_saves_and_resumes(run: Run) -> None:
    assert run("recipe.py").stdout.endswith("done\n")


def test_a_language_model_gives_on_a_gpu_what_it_gives_without_to_the_last_digit(run: Run) -> None:
    on_gpu = run("language.py").stdout
    assert on_gpu.count("\n") == 5
    assert on_gpu == run("language.py", gpus=0).stdout


def test_a_gan_and_an_autoencoder_train_on_the_second_gpu_and_on_both(run: Run) -> None:
    lines = run("adversaries.py").stdout.splitlines()
    assert [line.rpartition(":")[0] for line in lines] == [
        *("gan on cuda:1, 1 GPU", "gan on cuda:0, 2 GPU"),
        "vae on cuda:1",
    ]


def test_spawned_processes_train_together_over_nccl_with_synchronized_batch_norm(
    run: Run, tmp_path: Path
) -> None:
    out = run("spawned.py", f"file://{tmp_path}/meeting").stdout
    assert out.startswith("cuda:0 cuda:1 ")


def test_what_is_said_to_raise_does_and_says_why(run: Run) -> None:
    said = json.loads(run("limits.py").stdout)
    named = {name for limit in LIMITS if limit.raises for name in re.findall("`(.*?)`", limit.what)}
    assert set(said) == named
    assert all("\n[simgrid-ml] " in text for text in said.values()), said
