"""NVML of virtual GPUs, asked by the real ``pynvml`` of nvidia-ml-py: the compiled library, and the
module that stands in for both where there is no compiler. The same questions, the same answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import MIB, UUIDS, two_gpus, used

from simgrid_ml import wire
from simgrid_ml.engine.gpu_programs import nvml_library
from simgrid_ml.native import PACKAGE

ASK = """
import json, pynvml as n

def ask(function, *arguments):
    try:
        value = function(*arguments)
    except n.NVMLError as error:
        return f"{type(error).__name__}: {error}"
    return value.decode() if isinstance(value, bytes) else value

said = {"before": ask(n.nvmlDeviceGetCount)}
n.nvmlInit()
said["driver"] = ask(n.nvmlSystemGetDriverVersion)
said["nvml"] = ask(n.nvmlSystemGetNVMLVersion)
said["cuda"] = ask(n.nvmlSystemGetCudaDriverVersion_v2)
said["count"] = ask(n.nvmlDeviceGetCount)
said["beyond"] = ask(n.nvmlDeviceGetHandleByIndex, 2)
said["unknown"] = ask(n.nvmlDeviceGetHandleByUUID, "GPU-0")
gpu = n.nvmlDeviceGetHandleByIndex(1)
for word in (ask(n.nvmlDeviceGetUUID, gpu),):
    said["by uuid"] = ask(n.nvmlDeviceGetIndex, n.nvmlDeviceGetHandleByUUID(word))
for word in ("00000002:01:00.0", "0002:01:00.0"):
    said["by " + word] = ask(n.nvmlDeviceGetIndex, n.nvmlDeviceGetHandleByPciBusId(word.encode()))
for name in (
    "Name UUID MinorNumber ComputeMode PersistenceMode DisplayActive CudaComputeCapability "
    "EnforcedPowerLimit PerformanceState Temperature PowerUsage FanSpeed Serial MigMode EccMode"
).split():
    arguments = (n.NVML_TEMPERATURE_GPU,) if name == "Temperature" else ()
    said[name] = ask(getattr(n, "nvmlDeviceGet" + name), gpu, *arguments)
pci = n.nvmlDeviceGetPciInfo(gpu)
bus = pci.busId.decode() if isinstance(pci.busId, bytes) else pci.busId
said["pci"] = [pci.domain, pci.bus, pci.device, bus]
for version in (None, getattr(n, "nvmlMemory_v2", None)):
    memory = n.nvmlDeviceGetMemoryInfo(gpu, version) if version else n.nvmlDeviceGetMemoryInfo(gpu)
    said[f"memory {bool(version)}"] = [memory.total, memory.free, memory.used]
said["utilization"] = n.nvmlDeviceGetUtilizationRates(gpu).gpu
processes = n.nvmlDeviceGetComputeRunningProcesses(gpu)
said["processes"] = [[one.pid, one.usedGpuMemory] for one in processes]
said["drawing"] = len(n.nvmlDeviceGetGraphicsRunningProcesses(gpu))
idle = n.nvmlDeviceGetHandleByIndex(0)
said["idle"] = [len(n.nvmlDeviceGetComputeRunningProcesses(idle)),
                n.nvmlDeviceGetMemoryInfo(idle).used]
said["name of process"] = ask(n.nvmlSystemGetProcessName, processes[0].pid)
n.nvmlInit()
n.nvmlShutdown()
said["twice"] = ask(n.nvmlDeviceGetCount)
n.nvmlShutdown()
said["after"] = ask(n.nvmlDeviceGetCount)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library under the name that everybody looks for."""
    found = nvml_library()
    if found is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("lib")
    (folder / "libnvidia-ml.so.1").symlink_to(found)
    return folder


def asked(code: str, ledger: Path, **variables: str) -> str:
    environment = {**os.environ, wire.GPU_LEDGER_VARIABLE: str(ledger), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def with_module(folder: Path) -> dict[str, str]:
    """Variables by which the stand-in in Python is found before the real module."""
    (folder / "python").mkdir()
    (folder / "python" / "pynvml.py").symlink_to(os.path.join(PACKAGE, "shim/nvml/pynvml.py"))
    return {"PYTHONPATH": f"{folder / 'python'}:{os.path.dirname(PACKAGE)}"}


@pytest.mark.parametrize("by", ["library", "module"])
def test_pynvml_reads_the_ledger(by: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    ledger = two_gpus(tmp_path / "node1")
    if by == "library":
        variables = {"LD_LIBRARY_PATH": str(request.getfixturevalue("library"))}
    else:
        variables = with_module(tmp_path)
    with used(ledger, (0, 300)):
        said: dict[str, Any] = json.loads(asked(ASK, ledger, **variables))
    assert 0 <= said.pop("utilization") <= 100
    total = 11441 * MIB
    unsupported = "NVMLError_NotSupported: Not Supported"
    uninitialized = "NVMLError_Uninitialized: Uninitialized"
    assert said == {
        "before": uninitialized,
        "driver": "470.256.02",
        "nvml": "11.470.256.02",
        "cuda": 11040,
        "count": 2,
        "beyond": "NVMLError_InvalidArgument: Invalid Argument",
        "unknown": "NVMLError_NotFound: Not Found",
        "by uuid": 1,
        "by 00000002:01:00.0": 1,
        "by 0002:01:00.0": 1,
        "Name": "Tesla K80",
        "UUID": UUIDS[1],
        "MinorNumber": 1,
        "ComputeMode": 0,
        "PersistenceMode": 0,
        "DisplayActive": 0,
        "CudaComputeCapability": [3, 7],
        "EnforcedPowerLimit": 149000,
        "PerformanceState": 0,
        **dict.fromkeys(
            ("Temperature", "PowerUsage", "FanSpeed", "Serial", "MigMode", "EccMode"), unsupported
        ),
        "pci": [2, 1, 0, "00000002:01:00.0"],
        "memory False": [total, total - 300 * MIB, 300 * MIB],
        "memory True": [total, total - 300 * MIB, 300 * MIB],
        "processes": [[os.getpid(), 300 * MIB]],
        "drawing": 0,
        "idle": [0, 0],
        "name of process": "python",
        "twice": 2,
        "after": uninitialized,
    }


def test_a_process_that_has_ended_uses_nothing(library: Path, tmp_path: Path) -> None:
    ledger = two_gpus(tmp_path / "node1")
    with used(ledger, (300, 0)):
        pass
    code = (
        "import pynvml as n; n.nvmlInit(); g = n.nvmlDeviceGetHandleByIndex(0)\n"
        "print(n.nvmlDeviceGetMemoryInfo(g).used, n.nvmlDeviceGetComputeRunningProcesses(g))"
    )
    assert asked(code, ledger, LD_LIBRARY_PATH=str(library)) == "0 []\n"


@pytest.mark.parametrize("by", ["library", "module"])
def test_without_a_ledger_the_driver_is_not_loaded(
    by: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if by == "library":
        variables = {"LD_LIBRARY_PATH": str(request.getfixturevalue("library"))}
    else:
        variables = with_module(tmp_path)
    broken = tmp_path / "node1"
    code = (
        "import pynvml\ntry: pynvml.nvmlInit()\n"
        "except pynvml.NVMLError_DriverNotLoaded as error: print(error)"
    )
    assert asked(code, broken, **variables) == "Driver Not Loaded\n"
    broken.write_bytes(bytes(100))
    assert asked(code, broken, **variables) == "Driver Not Loaded\n"


def test_a_function_that_is_not_there_is_not_found_and_nobody_may_change_a_gpu(
    library: Path, tmp_path: Path
) -> None:
    code = """
import pynvml as n
n.nvmlInit()
gpu = n.nvmlDeviceGetHandleByIndex(0)
for call in (lambda: n.nvmlDeviceGetGspFirmwareMode(gpu, False),
             lambda: n.nvmlDeviceSetPersistenceMode(gpu, 1),
             lambda: n.nvmlDeviceGetName(0)):
    try:
        call()
    except n.NVMLError as error:
        print(error)
print(n.nvmlDeviceGetMigMode(gpu), n.nvmlDeviceGetCudaComputeCapability(gpu))
print(n.nvmlDeviceGetNumGpuCores(gpu), n.nvmlDeviceGetArchitecture(gpu))
other = n.nvmlDeviceGetHandleByIndex(1)
print(n.nvmlDeviceGetTopologyCommonAncestor(gpu, other) == n.NVML_TOPOLOGY_SYSTEM)
"""
    ledger = two_gpus(tmp_path / "node0", "A100 80GB")
    assert asked(code, ledger, LD_LIBRARY_PATH=str(library)).splitlines() == [
        "Function Not Found",
        "Insufficient Permissions",
        "Invalid Argument",
        "[0, 0] (8, 0)",
        "6912 7",
        "True",
    ]


def test_the_library_needs_no_other_and_no_version_of_the_c_library(library: Path) -> None:
    """So that it loads in images older than the host, and in those of another C library."""
    told = subprocess.run(
        ["objdump", "-p", str(library / "libnvidia-ml.so.1")],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    if not told:
        pytest.skip("no objdump")
    assert "libnvidia-ml.so.1" in told
    assert not re.search("NEEDED|GLIBC", told), told
