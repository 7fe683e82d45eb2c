"""Torch on a node's virtual GPUs: every group of checks is a program that runs once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch_kit import PROGRAMS, Node

from simgrid_ml import wire
from simgrid_ml.environments.build import ensure
from simgrid_ml.spec.job import EnvironmentSpec

WITHOUT_GPUS = {wire.HOOKS_VARIABLE: "", wire.GPU_LEDGER_VARIABLE: ""}
GROUPS = (
    *("operations", "placement", "gradients", "saving", "memory", "processes", "names", "refused"),
)


@pytest.fixture
def node(tmp_path: Path, environment: EnvironmentSpec) -> Node:
    return Node(tmp_path, ensure(environment).python)


@pytest.mark.parametrize("group", GROUPS)
def test_torch_behaves_as_on_gpus(node: Node, group: str) -> None:
    assert {check: why for check, why in node.checks(group).items() if why} == {}


def test_losses_are_those_of_the_cpu_to_the_last_digit(node: Node) -> None:
    program = str(PROGRAMS / "losses.py")
    on_gpu = node.run(program, "cuda:1").stdout.splitlines()
    on_cpu = node.run(program, "cpu", **WITHOUT_GPUS).stdout.splitlines()
    assert on_gpu[:-1] == on_cpu[:-1]
    assert len(on_gpu) == 5
    assert json.loads(on_gpu[-1]) == {"cuda": True, "used": True}
    assert json.loads(on_cpu[-1]) == {"cuda": False, "used": False}


def test_what_a_torch_lacks_is_said_once_and_the_rest_goes_on(node: Node) -> None:
    (node.folder / "script.py").write_text(
        "import sys, types\n"
        "from simgrid_ml.shim.virtual_gpu import torch_gpus\n"
        "install = torch_gpus.install\n"
        "def lacking(torch):\n"
        "    del torch.from_dlpack, torch.random.seed\n"
        "    install(torch)\n"
        "torch_gpus.install = lacking\n"
        "import torch\n"
        "x = torch.ones(3).cuda(1)\n"
        "print((x + torch.ones(3, device='cuda:1')).sum().item(), x.device)\n"
    )
    done = node.run("script.py")
    assert done.stdout == "6.0 cuda:1\n", done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("simgrid-ml: torch 2.") and "has no " in line
    assert "torch.from_dlpack" in line and "torch.random.seed" in line
    assert "the rest" in line


SHOW = "import torch; print(torch.cuda.is_available(), torch.zeros(1).device, torch.cuda.__file__)"


def test_without_a_ledger_torch_is_as_it_is(node: Node) -> None:
    plain = node.run("-c", SHOW, **WITHOUT_GPUS)
    assert plain.stdout.startswith("False cpu"), plain.stderr
    alone = node.run("-c", SHOW, **{wire.GPU_LEDGER_VARIABLE: ""})
    assert (alone.stdout, alone.stderr) == (plain.stdout, plain.stderr)


def test_an_image_keeps_its_own_sitecustomize(node: Node) -> None:
    own = node.folder / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import builtins\nbuiltins.image = 'own'\n")
    path = f"{node.path}:{own}"
    done = node.run("-c", "import torch; print(image, torch.cuda.device_count())", PYTHONPATH=path)
    assert (done.stdout, done.stderr) == ("own 2\n", "")


def test_mixing_can_be_a_warning(node: Node) -> None:
    script = (
        "import warnings, torch\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    print((torch.ones(2).cuda() + torch.ones(2)).device)\n"
        "print(len(said), 'same device' in str(said[0].message))\n"
    )
    done = node.run("-c", script, SIMGRID_ML_GPU_STRICT="0")
    assert done.stdout == "cuda:0\n1 True\n", done.stderr


def test_a_host_that_cannot_back_a_gpu_says_so(
    tmp_path: Path, environment: EnvironmentSpec
) -> None:
    """A GPU of 64 TiB has room that no host has."""
    node = Node(tmp_path, ensure(environment).python, count=1, memory_mib=64 << 20)
    script = (
        "import torch\n"
        "try:\n"
        "    torch.empty(32 << 40, dtype=torch.uint8, device='cuda')\n"
        "except torch.cuda.OutOfMemoryError as error:\n"
        "    print(error)\n"
    )
    done = node.run("-c", script)
    assert "CUDA out of memory. Tried to allocate 32768.00 GiB" in done.stdout, done.stderr
    assert "the host backs GPU 0" in done.stdout and "a real one would have had room" in done.stdout
