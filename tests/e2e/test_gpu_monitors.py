"""What monitors see inside nodes with virtual GPUs: ``nvidia-smi`` and NVML, in processes,
containers and images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import image_kit
import pytest

from simgrid_ml import wire
from simgrid_ml.native import PROGRAMS_VARIABLE
from simgrid_ml.record.journal import read_journal
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.runs import Runs, log, story

MIB = 2**20
GPUS = {"vm_size": "Standard_NC12"}
HELD = 300 * MIB

USE = f"""
import json, os, subprocess, sys
from simgrid_ml.node.gpu_devices import Devices

devices = Devices()
devices.attach()
devices[1].take({HELD})

def smi(*argv):
    return subprocess.run(["nvidia-smi", *argv], capture_output=True, text=True, check=True).stdout

saw = {{
    "pid": os.getpid(),
    "list": smi("-L").splitlines(),
    "table": smi().splitlines()[3],
    "used": smi("--query-gpu=memory.used", "--format=csv,noheader,nounits").split(),
    "apps": smi("--query-compute-apps=pid,used_memory", "--format=csv,noheader").splitlines(),
}}
"""
BY_PYNVML = """
import pynvml
pynvml.nvmlInit()
gpus = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
saw["module"] = pynvml.__file__
saw["uuids"] = [pynvml.nvmlDeviceGetUUID(gpu) for gpu in gpus]
saw["memory"] = [pynvml.nvmlDeviceGetMemoryInfo(gpu).used for gpu in gpus]
saw["processes"] = [[p.pid, p.usedGpuMemory]
                    for gpu in gpus for p in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)]
"""
BY_CTYPES = """
import ctypes
nvml = ctypes.CDLL("libnvidia-ml.so.1")
assert nvml.nvmlInit_v2() == 0
gpu, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()
assert nvml.nvmlDeviceGetHandleByIndex_v2(1, ctypes.byref(gpu)) == 0
assert nvml.nvmlDeviceGetMemoryInfo(gpu, memory) == 0
saw["memory"] = list(memory)
"""
TELL = """
print("SAW", json.dumps(saw))
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Runs]:
    with nothing_left(str(tmp_path)):
        yield Runs(str(tmp_path), EnvironmentSpec(pip=("nvidia-ml-py",)), GPUS)


def saw(record: RunRecord, node: int | str = "") -> dict[str, Any]:
    """What the script on a node has printed; "": on the only one."""
    lines = log(record, node).splitlines()
    told = [line[4:] for line in lines if line.startswith("SAW ")]
    assert told, story(record)
    seen: dict[str, Any] = json.loads(told[0])
    return seen


def check_smi(seen: dict[str, Any], node: str, uuids: list[str]) -> None:
    names = [f"GPU {n}: Tesla K80 (UUID: {uuid})" for n, uuid in enumerate(uuids)]
    assert seen["list"] == names
    assert seen["table"].startswith(f"| simgrid-ml: GPUs of {node} are virtual")
    assert seen["used"] == ["0", "300"]
    assert seen["apps"] == [f"{seen['pid']}, 300 MiB"]


@pytest.mark.parametrize("backend", ["process", "docker", "no compiler"])
def test_a_script_sees_its_own_use_of_the_nodes_gpus(
    jobs: Runs, backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "docker":
        request.getfixturevalue("docker_engine")
        jobs.cluster["backend"] = "docker"
    elif backend == "no compiler":
        monkeypatch.setenv(PROGRAMS_VARIABLE, "python")
    own = {"LD_LIBRARY_PATH": "/nowhere"}  # as many a job sets it
    record = jobs.completed(USE + BY_PYNVML + TELL, nodes=2, variables=own)
    planned = record.document(wire.GPUS)["nodes"]
    for number, node in enumerate(("node0", "node1")):
        seen = saw(record, number)
        uuids = planned[number]["ids"]
        check_smi(seen, node, uuids)
        assert seen["uuids"] == uuids
        assert seen["memory"] == [0, HELD]
        assert seen["processes"] == [[seen["pid"], HELD]]
        ours = seen["module"].startswith(record.path)
        assert ours == (backend == "no compiler"), seen["module"]
    last = read_journal(record.file(wire.GPU_MEMORY))[-1]
    assert last["peaks"] == {"node0": [0, HELD], "node1": [0, HELD]}
    assert [
        (node, row["rank"], row["peaks"])
        for node, rows in last["processes"].items()
        for row in rows
    ] == [("node0", 0, [0, HELD]), ("node1", 1, [0, HELD])]


def test_an_image_of_another_system_has_them_too(jobs: Runs, docker_engine: Any) -> None:
    with image_kit.image(docker_engine, "python", image_kit.python()) as image:
        own = EnvironmentSpec(interpreter="python3", image=image)
        record = jobs.completed(
            USE + BY_CTYPES + TELL, environment=own, cluster={"backend": "docker"}
        )
    seen = saw(record)
    check_smi(seen, "node0", record.document(wire.GPUS)["nodes"][0]["ids"])
    total = 11441 * MIB
    assert seen["memory"] == [total, total - HELD, HELD]


def test_nodes_of_a_cpu_size_have_neither(jobs: Runs) -> None:
    script = """
        import os, shutil
        print("SMI", shutil.which("nvidia-smi"), os.environ.get("SIMGRID_ML_GPU_LEDGER"))
    """
    record = jobs.completed(script, cluster={"vm_size": "Standard_D2_v2"})
    smi, ledger = log(record, "").split("SMI ", 1)[1].split()[:2]
    assert not smi.startswith(record.path)
    assert ledger == "None"
    assert not os.path.exists(record.file(wire.GPU_MEMORY))
