"""What a node says of its GPUs, and when that is not what was planned.

The driver's answers come from a small library of ours, so that nothing here has seen a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.engine.gpu_backing import backing_variables, hooks_of, views
from simgrid_ml.engine.gpu_checking import deviations
from simgrid_ml.node.gpu_ledger import Gpu, create
from simgrid_ml.node.gpu_slices import decode
from simgrid_ml.spec.gpus import (
    GPU_MODELS,
    Backing,
    GpuPlan,
    GpuShare,
    HostGpu,
    HostGpus,
    NodeGpus,
)

GIB = 2**30
PROGRAM = os.path.join(os.path.dirname(simgrid_ml.__file__), "node", "gpu_check.py")
H200 = "GPU-5a5a5a5a-1111-2222-3333-444444444444"
OTHER = "GPU-6b6b6b6b-1111-2222-3333-444444444444"
MACHINE = f"{H200[4:]} {139 * GIB} 132\n{OTHER[4:]} {80 * GIB} 108"
HOST = HostGpus(
    gpus=(
        HostGpu(H200, "NVIDIA H200", 139 * GIB, 132, (9, 0)),
        HostGpu(OTHER, "NVIDIA A100", 80 * GIB, 108, (8, 0)),
    )
)

Look = Callable[..., "dict[str, Any]"]


def planned(backing: Backing, *devices: str | None, memory: int = 11 * GIB) -> GpuPlan:
    percent = 25 if backing is Backing.MPS else None
    part = memory - 600 * 2**20
    shares = tuple(
        GpuShare(device, memory, 13, (3, 7), False, device, 139 * GIB, part, percent)
        if backing not in (Backing.WHOLE, Backing.MIG)
        else GpuShare(device, memory, 13, (3, 7))
        for device in devices
    )
    ids = tuple(f"GPU-{number}" for number in range(len(devices)))
    several = len(devices) > 1 and (backing is Backing.MIG or len(set(devices)) < len(devices))
    node = NodeGpus("node0", ids, shares, per_rank=several, variables={"NOTED": "yes"})
    return GpuPlan(GPU_MODELS["K80"], backing, "", (node,))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a CUDA driver."""
    folder = tmp_path_factory.mktemp("cuda")
    source = os.path.join(os.path.dirname(__file__), "libcuda.c")
    library = str(folder / "libcuda.so.1")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-o", library, source], check=True)
    return str(folder)


@pytest.fixture
def look(tmp_path: Path, library: str) -> Look:
    """Runs the program as a node does."""

    def look(plan: GpuPlan, *words: str, machine: str = MACHINE, **variables: str) -> Any:
        node = plan.nodes[0]
        ledger = str(tmp_path / "ledger")
        gpus = [
            Gpu("Tesla K80", uuid, "", share.memory_bytes, share.sms, share.capability)
            for uuid, share in zip(node.ids, node.shares, strict=True)
        ]
        create(ledger, gpus)
        done = subprocess.run(
            [sys.executable, "-I", "-S", PROGRAM, *words],
            env={
                wire.GPU_LEDGER_VARIABLE: ledger,
                "LD_LIBRARY_PATH": library,
                "FAKE_CUDA": machine,
                **backing_variables(plan, node),
                **variables,
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return look


def wrong(plan: GpuPlan, said: dict[str, Any]) -> list[str]:
    node = plan.nodes[0]
    return deviations(plan, HOST, node, (views(plan, node) or ((),))[0], said)


def test_virtual_gpus_are_those_of_the_ledger_and_no_driver_is_asked(look: Look) -> None:
    plan = planned(Backing.HOST_MEMORY, None, None)
    said = look(plan, LD_LIBRARY_PATH="/nowhere")
    assert [gpu["uuid"] for gpu in said["ledger"]] == ["GPU-0", "GPU-1"]
    assert wrong(plan, said) == []


def test_a_ledger_of_another_plan_is_told_with_what_was_asked_and_what_is_there(look: Look) -> None:
    said = look(planned(Backing.HOST_MEMORY, None, memory=4 * GIB))
    assert wrong(planned(Backing.HOST_MEMORY, None, None), said) == [
        "virtual GPUs asked: GPU-0 (11 GiB), GPU-1 (11 GiB); its ledger has: GPU-0 (4 GiB)"
    ]


def test_a_node_without_a_ledger_says_so(look: Look) -> None:
    plan = planned(Backing.HOST_MEMORY, None)
    (line,) = wrong(plan, look(plan, **{wire.GPU_LEDGER_VARIABLE: "/nowhere/ledger"}))
    assert "FileNotFoundError" in line


def test_two_slices_of_one_gpu_are_one_device_for_cuda(look: Look) -> None:
    plan = planned(Backing.TIME_SLICED, H200, H200)
    said = look(plan, "device")
    assert (said["devices"], said["driver"]) == (
        [{"uuid": H200, "memory_bytes": 139 * GIB, "sms": 132}],
        12040,
    )
    assert wrong(plan, said) == []


def test_devices_come_in_the_order_of_the_plan(look: Look) -> None:
    plan = planned(Backing.WHOLE, OTHER, H200)
    assert wrong(plan, look(plan, "device")) == []
    turned = look(plan, "device", CUDA_VISIBLE_DEVICES=f"{H200},{OTHER}")
    assert wrong(plan, turned) == [f"devices asked: {OTHER}, {H200}; CUDA sees: {H200}, {OTHER}"]


def test_a_device_that_has_not_arrived_is_missed(look: Look) -> None:
    plan = planned(Backing.WHOLE, H200, OTHER)
    (line,) = wrong(plan, look(plan, "device", machine=MACHINE.splitlines()[0]))
    assert line == f"devices asked: {H200}, {OTHER}; CUDA sees: {H200}"


def test_a_node_without_a_driver_or_without_any_device_says_so(look: Look) -> None:
    plan = planned(Backing.WHOLE, H200)
    (line,) = wrong(plan, look(plan, "device", LD_LIBRARY_PATH="/nowhere"))
    assert "libcuda.so.1" in line
    (line,) = wrong(plan, look(plan, "device", machine=""))
    assert "CUDA_ERROR_NO_DEVICE (100)" in line


def test_a_device_with_less_memory_than_its_slices_is_refused(look: Look) -> None:
    plan = planned(Backing.TIME_SLICED, OTHER, OTHER, memory=45 * GIB)
    asked = f"{OTHER}: asked for 90 GiB of memory; it has 80 GiB"
    assert wrong(plan, look(plan, "device")) == [asked]


MPS = {
    "CUDA_MPS_PIPE_DIRECTORY": "/run/mps",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=11G",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
}


def test_limits_of_mps_that_are_in_force_pass(look: Look) -> None:
    plan = planned(Backing.MPS, H200, H200)
    said = look(plan, "device", "context", FAKE_MPS="/run/mps", **MPS)
    assert said["devices"][0]["sms"] == 33
    assert wrong(plan, said) == []


def test_a_wrong_directory_of_mps_gives_a_whole_gpu_and_that_is_refused(look: Look) -> None:
    plan = planned(Backing.MPS, H200, H200)
    memory, sms = wrong(plan, look(plan, "device", "context", FAKE_MPS="/elsewhere", **MPS))
    assert "limit of 11 GiB; a process could take 139 GiB, so the limit is not in force" in memory
    assert "25 % of its 132 SMs; a process sees all of them" in sms


def test_of_instances_a_process_sees_one_so_each_is_looked_at_by_itself(look: Look) -> None:
    instances = ("MIG-" + H200[4:], "MIG-" + OTHER[4:])
    plan = planned(Backing.MIG, *instances)
    assert views(plan, plan.nodes[0]) == ((instances[0],), (instances[1],))
    said = look(plan, "device", CUDA_VISIBLE_DEVICES=instances[0])
    assert wrong(plan, said) == []  # CUDA's UUID of it does not say that it is an instance


def test_what_processes_are_told_of_what_is_behind_their_gpus() -> None:
    host = planned(Backing.HOST_MEMORY, None)
    assert backing_variables(host, host.nodes[0]) == {}
    assert hooks_of(host) == ()
    whole = planned(Backing.WHOLE, H200, OTHER)
    assert hooks_of(whole) == ("gpu_caps", "gpu_collectives")
    told = backing_variables(whole, whole.nodes[0])
    assert told["CUDA_VISIBLE_DEVICES"] == f"{H200},{OTHER}"
    assert [part.device for part in decode(told[wire.GPU_DEVICES_VARIABLE])] == [H200, OTHER]
    sliced = planned(Backing.TIME_SLICED, H200, OTHER, H200)
    told = backing_variables(sliced, sliced.nodes[0])
    assert told["CUDA_VISIBLE_DEVICES"] == f"{H200},{OTHER}"
    parts = decode(told[wire.GPU_DEVICES_VARIABLE])
    assert [part.device for part in parts] == [H200, OTHER, H200]
    assert parts[0][1:] == (11 * GIB - 600 * 2**20, 139 * GIB)
    assert told["NOTED"] == "yes"
    assert told[wire.GPU_COLLECTIVES_VARIABLE] == "gloo"
    by_rank = replace(sliced, collectives="nccl", host_identity=True)
    told = backing_variables(by_rank, by_rank.nodes[0])
    assert told[wire.GPU_COLLECTIVES_VARIABLE] == "nccl-by-rank"
