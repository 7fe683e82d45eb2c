"""Torch on slices of real GPUs: what it is told, and what scripts see.

The torch is a real one for the CPU that is given the functions of a CUDA build which the hook
calls; tensors that go to a GPU stay on the CPU. Nothing here has run on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.environments.build import ensure
from simgrid_ml.node.gpu_ledger import Gpu, create
from simgrid_ml.node.gpu_slices import Part, encode
from simgrid_ml.spec.job import EnvironmentSpec

GIB = 2**30
PART = 11 * GIB - 600 * 2**20
TOTAL = 139 * GIB
PACKAGE = os.path.dirname(simgrid_ml.__file__)

BUILD = """
import json, os, sys, types
import torch

calls = []                       # what the driver was told
state = {"current": 0, "seen": None, "reserved": (0, 0)}
C = torch._C

def start():
    state["seen"] = os.environ.get("CUDA_VISIBLE_DEVICES")

real = types.SimpleNamespace(
    name="NVIDIA H200", total_memory=TOTAL, multi_processor_count=132, major=9, minor=0)
C._cuda_getDeviceCount = lambda: len(state["seen"].split(","))
C._cuda_init = start
def limit(part, ordinal):
    calls.append((ordinal, round(part * TOTAL)))
    state["current"] = ordinal          # torch may leave it so

C._cuda_setMemoryFraction = limit
C._cuda_getDevice = lambda: state["current"]

def choose(ordinal):
    torch.cuda._lazy_init()
    state["current"] = ordinal

C._cuda_setDevice = choose
def exchange(ordinal):
    before, state["current"] = state["current"], ordinal
    return before

torch.cuda._exchange_device = torch.cuda._maybe_exchange_device = exchange
C._cuda_isInBadFork = False
C._cuda_synchronize = lambda: state.setdefault("awaited", []).append(state["current"])
seeds = []
torch.cuda.default_generators = (types.SimpleNamespace(
    manual_seed=seeds.append, clone_state=None, get_state=lambda: torch.zeros(1),
    set_state=lambda new: seeds.append("set")),)
C._cuda_getArchFlags = lambda: ""
C._cuda_memoryStats = lambda ordinal: {"reserved_bytes": {"all": dict(
    zip(("peak", "current"), state["reserved"]))}}
torch.cuda._cudart = types.SimpleNamespace(
    cudaMemGetInfo=lambda ordinal: (100 * 2**30, TOTAL))
torch.cuda._get_device_properties = lambda ordinal: real

from simgrid_ml.node import gpu_slices
from simgrid_ml.shim.virtual_gpu import caps_ledger, caps_torch, caps_torch_devices

cpu = torch.device("cpu")
torch.Tensor.cuda = lambda self, device=None: self.to(device)  # refuses the CPU otherwise
wrap = caps_torch_devices.wrap

def on_cpu(torch, real):
    def real_and_then_cpu(index):
        state["placed"] = real(index)
        return cpu
    wrap(torch, real_and_then_cpu)

caps_torch_devices.wrap = on_cpu
caps_ledger._PERIOD_S = 0.01
caps_torch.install(torch, gpu_slices.of_process)

def fails(call, *args, **kwargs):
    try:
        return "nothing: " + repr(call(*args, **kwargs))
    except Exception as error:
        return type(error).__name__ + ": " + str(error)

said = {}
"""

Torch = Callable[..., "dict[str, Any]"]


@pytest.fixture
def torch(tmp_path: Path, environment: EnvironmentSpec) -> Torch:
    """Runs lines after the hook was applied; what they put into ``said`` is returned."""
    python = ensure(environment).python

    def run(lines: str, *devices: str, backing: str = "TIME_SLICED") -> dict[str, Any]:
        ledger = str(tmp_path / "ledger")
        gpus = [Gpu("Tesla K80", f"GPU-v{n}", "", 11 * GIB, 13, (3, 7)) for n in range(4)]
        create(ledger, gpus[: len(devices)])
        head = BUILD.replace("TOTAL", str(TOTAL))
        script = head + textwrap.dedent(lines) + "\nprint(json.dumps(said))\n"
        done = subprocess.run(
            [python, "-c", script],
            env={
                "PYTHONPATH": os.path.dirname(PACKAGE),
                wire.GPU_LEDGER_VARIABLE: ledger,
                wire.GPU_BACKING_VARIABLE: backing,
                wire.GPU_DEVICES_VARIABLE: encode(Part(d, PART, TOTAL) for d in devices),
                "CUDA_VISIBLE_DEVICES": ",".join(dict.fromkeys(devices)),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    return run


def test_a_slice_is_what_a_script_sees_and_all_that_it_gets(torch: Torch) -> None:
    said = torch(
        """
        said["before"] = list(calls)
        said["count"] = torch.cuda.device_count()
        said["name"] = torch.cuda.get_device_name(0)
        found = torch.cuda.get_device_properties(0)
        said["properties"] = [found.name, found.total_memory, found.multi_processor_count]
        said["capability"] = torch.cuda.get_device_capability()
        said["capped"] = list(calls)
        said["room"] = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(0.5)
        torch.cuda.set_per_process_memory_fraction(1.0)
        said["fractions"] = calls[1:]
        said["beyond"] = fails(torch.cuda.get_device_name, 1)
        state["reserved"] = (3 * 2**30, 2**30)
        import time
        from simgrid_ml.node.gpu_ledger import Ledger
        ledger = Ledger(os.environ["SIMGRID_ML_GPU_LEDGER"])
        while ledger.used() != (2**30,):
            time.sleep(0.01)
        said["peaks"] = ledger.peaks()
        said["left"] = torch.cuda.mem_get_info()[0]
        said["seen"] = state["seen"]
        """,
        "GPU-a",
    )
    assert said["before"] == []
    assert (said["count"], said["name"], said["seen"]) == (1, "Tesla K80", "GPU-a")
    assert said["properties"] == ["Tesla K80", 11 * GIB, 132]
    assert said["capability"] == [9, 0]  # kernels are chosen by it, so it stays the real one's
    assert said["capped"] == [[0, PART]]
    assert said["room"] == [11 * GIB, 11 * GIB]
    half, cap = said["fractions"]
    assert half == [0, 11 * GIB // 2]
    assert cap == [0, PART]  # a script's own fraction is of the slice, and never above the cap
    assert "invalid device ordinal" in said["beyond"]
    assert "this node has 1 GPU:" in said["beyond"]
    assert said["peaks"] == [3 * GIB]
    assert said["left"] == 10 * GIB


def test_a_script_may_choose_its_gpu_until_cuda_is_used(torch: Torch) -> None:
    said = torch(
        """
        os.environ["CUDA_VISIBLE_DEVICES"] = "1"  # as it would be on the VM: after the import
        torch.cuda.init()
        said["seen"] = state["seen"]
        said["count"] = torch.cuda.device_count()
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"
        said["later"] = torch.cuda.device_count()
        said["caps"] = calls
        """,
        "GPU-a",
        "GPU-b",
    )
    assert said == {"count": 1, "seen": "GPU-b", "later": 1, "caps": [[0, PART]]}


def test_with_a_device_each_no_function_that_takes_one_is_wrapped(torch: Torch) -> None:
    said = torch(
        """
        said["plain"] = [type(torch.zeros).__name__, torch.Tensor.to.__class__.__name__]
        said["count"] = [torch.cuda.device_count()]
        for visible in ("1", "7"):
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
            said["count"].append(torch.cuda.device_count())
        del os.environ["CUDA_VISIBLE_DEVICES"]
        torch.cuda.init()
        said["caps"] = [list(calls)]
        torch.cuda.set_device(1)
        said["caps"].append(list(calls))
        state["reserved"] = (1, 1)      # cuda:0 is used as well
        import time
        while len(calls) < 2:
            time.sleep(0.01)
        said["caps"].append(list(calls))
        said["current"] = state["current"]
        """,
        "GPU-a",
        "GPU-b",
    )
    plain = ["builtin_function_or_method", "method_descriptor"]
    # A limit needs a context on the device: who uses one GPU of two takes memory of one.
    caps = [[], [[1, PART]], [[1, PART], [0, PART]]]
    assert said == {"plain": plain, "count": [2, 1, 0], "caps": caps, "current": 1}


TWO_PARTS = """
    torch.manual_seed(3)
    torch.cuda.set_device(1)                        # the local rank
    said["seen"] = [torch.cuda.device_count(), torch.cuda.current_device(), state["seen"]]
    placed = []
    def where(make):
        state.pop("placed", None)
        result = make()
        placed.append(str(state.get("placed")))
        return result
    x = where(lambda: torch.zeros(2, device="cuda:1"))
    where(lambda: torch.ones(2).to("cuda:1"))
    where(lambda: torch.ones(2).to(device=torch.device("cuda", 1), dtype=torch.float64))
    where(lambda: torch.ones(2).to(1))
    where(lambda: torch.ones(2).cuda(1))
    where(lambda: torch.tensor([1.0], device="cuda:1"))
    where(lambda: torch.randn(2, device=1))
    where(lambda: x.new_zeros(3, device="cuda:1"))
    where(lambda: torch.zeros_like(x, device="cuda:1"))
    model = where(lambda: torch.nn.Linear(2, 2).to("cuda:1"))
    where(lambda: torch.nn.Linear(2, 2).cuda(1))
    where(lambda: torch.zeros(2, device=torch.device("cuda:0")))   # as tensors say of themselves
    said["placed"] = placed
    said["plain"] = [str(state.pop("placed", None)), torch.ones(2).to(torch.float16).dtype.itemsize,
                     str(torch.zeros(2, device="cpu").device), str(state.get("placed"))]
    import io
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    loaded = where(lambda: torch.load(file, map_location="cuda:1"))
    said["loaded"] = [placed[-1], loaded.tolist()]
    with torch.cuda.device(1):
        said["inside"] = torch.cuda.current_device()
    said["index"] = [torch.cuda._get_device_index(i) for i in (1, 0, "cuda:1")]
    said["beyond"] = fails(torch.cuda.set_device, 2)
    said["global"] = fails(torch.zeros, 2, device="cuda:3")
    said["caps"] = calls
    for index in range(torch.cuda.device_count()):
        torch.cuda.synchronize(index)
    torch.cuda.synchronize()
    said["awaited"] = state["awaited"]
    with torch.random.fork_rng([0, 1]):
        torch.cuda.get_rng_state("cuda:1")
    said["seeds"] = seeds
    torch.accelerator.set_device_index(1)
    said["accelerator"] = [torch.accelerator.device_count(),
                           torch.accelerator.current_device_index(), state["current"]]
"""


def test_of_two_parts_of_one_gpu_a_rank_uses_its_own_by_its_own_number(torch: Torch) -> None:
    said = torch(TWO_PARTS, "GPU-a", "GPU-a")
    assert said["seen"] == [2, 1, "GPU-a"]
    assert said["placed"] == ["cuda:0"] * 13  # and of the one that was loaded
    assert said["plain"] == ["cuda:0", 2, "cpu", "None"]
    assert said["loaded"] == ["cuda:0", [0.0, 0.0]]
    assert said["inside"] == 1
    assert said["index"] == [0, 0, 0]
    assert said["awaited"] == [0, 0, 0]
    assert said["accelerator"] == [2, 1, 0]
    assert said["seeds"] == [3, "set", "set"]  # CUDA has a generator for its one device
    for error in (said["beyond"], said["global"]):
        assert "invalid device ordinal" in error
        assert "this node has 2 GPUs: use the local rank" in error
    assert set(map(tuple, said["caps"])) == {(0, PART)}


def test_a_process_that_wants_both_parts_is_told_why_it_cannot(torch: Torch) -> None:
    said = torch(
        """
        torch.zeros(2, device="cuda:0")
        said["second"] = fails(torch.zeros, 2, device="cuda:1")
        said["asking"] = torch.cuda.get_device_properties(1).total_memory
        """,
        "GPU-a",
        "GPU-a",
    )
    assert "uses cuda:0, and cuda:1 is another part of the same real GPU" in said["second"]
    assert "gpu_sharing=emulated" in said["second"]
    assert said["asking"] == 11 * GIB


def test_of_two_instances_of_mig_cuda_is_shown_the_one_that_the_rank_takes(torch: Torch) -> None:
    said = torch(
        """
        said["count"] = torch.cuda.device_count()
        torch.cuda.set_device(1)
        torch.cuda.init()
        said["seen"] = state["seen"]
        """,
        "MIG-a",
        "MIG-b",
        backing="MIG",
    )
    assert said == {"count": 2, "seen": "MIG-b"}


def test_a_torch_for_the_cpu_is_left_alone(tmp_path: Path, environment: EnvironmentSpec) -> None:
    script = """
        import torch
        from simgrid_ml.shim.virtual_gpu import caps_torch
        before = dict(vars(torch.cuda))
        caps_torch.install(torch, None)
        assert before == dict(vars(torch.cuda))
    """
    done = subprocess.run(
        [ensure(environment).python, "-c", textwrap.dedent(script)],
        env={"PYTHONPATH": os.path.dirname(PACKAGE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
