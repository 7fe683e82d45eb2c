"""What is found on hosts with GPUs, written as values; broken drivers are reasons, not crashes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from simgrid_ml.errors import HostError
from simgrid_ml.gpus import mps
from simgrid_ml.gpus.containers import device_request, for_containers
from simgrid_ml.gpus.discover import host_gpus
from simgrid_ml.gpus.nvml import MODULE_VARIABLE, opened
from simgrid_ml.gpus.watch import first_lost, watched
from simgrid_ml.spec.gpus import HostGpus
from simgrid_ml.testing.nvml import (
    EIGHT_A100,
    K80_BOX,
    MISMATCH,
    NO_DRIVER,
    ONE_H200,
    FakeHost,
    FakeNvml,
    variables,
    write_host,
)

GIB = 2**30


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Path of the file with the host that NVML sees; there is no Multi-Process Service."""
    path = str(tmp_path / "host.json")
    for name, value in variables(path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(mps.DIRECTORY_VARIABLE, "")
    monkeypatch.setattr(mps, "_DEFAULT", str(tmp_path / "no-mps"))
    return path


def found(path: str, host: FakeHost) -> HostGpus:
    write_host(path, host)
    return host_gpus()


def test_a_box_of_k80s_is_found_with_what_plans_need(seen: str) -> None:
    host = found(seen, K80_BOX)
    assert (host.driver, host.cuda, len(host.gpus)) == ("470.256.02", "11.4", 4)
    first = host.gpus[0]
    assert (first.name, first.memory_bytes, first.sms) == ("Tesla K80", 11441 * 2**20, 13)
    assert (first.capability, first.mig_enabled, first.bus_id) == (
        (3, 7),
        False,
        "00000000:01:00.0",
    )
    assert len({gpu.uuid for gpu in host.gpus}) == 4
    assert host.why_none == ""


def test_multiprocessors_are_counted_from_cores(seen: str) -> None:
    assert found(seen, ONE_H200).gpus[0].sms == 132
    assert found(seen, EIGHT_A100).gpus[0].sms == 108


def test_instances_of_mig_are_found_with_empty_places_between(seen: str) -> None:
    *_, divided, empty = found(seen, EIGHT_A100).gpus
    assert divided.mig_enabled and empty.mig_enabled
    assert [(one.profile, one.sms, one.memory_bytes) for one in divided.mig] == [
        ("3g.20gb", 42, 19968 * 2**20),
        ("2g.10gb", 28, 9856 * 2**20),
    ]
    assert empty.mig == ()


def test_a_driver_from_before_mig_and_cores_serves_all_the_same(seen: str) -> None:
    old = replace(K80_BOX, lacks=("nvmlDeviceGetMigMode", "nvmlDeviceGetNumGpuCores"))
    first = found(seen, old).gpus[0]
    assert (first.name, first.mig_enabled, first.sms) == ("Tesla K80", False, 1)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        (NO_DRIVER, "the NVIDIA driver is not loaded (NVML: Driver Not Loaded)"),
        (MISMATCH, "have different versions, as after an update: restart the host"),
        (FakeHost(), "the NVIDIA driver finds no GPU"),
        (FakeHost(refuses=pynvml.NVML_ERROR_UNKNOWN), "the NVIDIA driver does not answer"),
    ],
)
def test_a_driver_that_does_not_work_is_a_reason(seen: str, host: FakeHost, why: str) -> None:
    none = found(seen, host)
    assert none.gpus == ()
    assert why in none.why_none


def test_a_lost_gpu_is_left_out_and_named(seen: str) -> None:
    host = found(seen, K80_BOX.with_lost(K80_BOX.gpus[1].uuid))
    assert [gpu.uuid for gpu in host.gpus] == [K80_BOX.gpus[n].uuid for n in (0, 2, 3)]
    assert host.why_none.startswith("GPU 1: the GPU has fallen off the bus")


def test_a_module_that_is_not_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODULE_VARIABLE, "no_such_module")
    assert "no_such_module" in host_gpus().why_none


def test_a_host_without_a_driver_never_loads_nvml() -> None:
    environ = {key: os.environ[key] for key in os.environ if key != MODULE_VARIABLE}
    code = (
        "import sys, os; os.path.exists = lambda path: False\n"
        "from simgrid_ml.gpus.discover import host_gpus\n"
        "print(host_gpus().why_none, {'pynvml', 'yaml', 'ctypes'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.stdout == "the host has no NVIDIA driver set()\n", done.stderr


# -- the Multi-Process Service -------------------------------------------------------------


def daemon(folder: Path, pid: int) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "nvidia-cuda-mps-control.pid").write_text(f"{pid}\n")
    return str(folder)


def test_a_service_is_believed_with_a_living_daemon_of_this_user(tmp_path: Path) -> None:
    folder = daemon(tmp_path / "mps", os.getpid())
    assert mps.find_service({mps.DIRECTORY_VARIABLE: folder}) == (folder, "")


def test_a_wrong_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def why(folder: str) -> str:
        directory, reason = mps.find_service({mps.DIRECTORY_VARIABLE: folder})
        assert directory is None
        return reason

    missing = str(tmp_path / "missing")
    assert why(missing) == f"CUDA_MPS_PIPE_DIRECTORY is {missing}, and there is no such folder"
    assert "no nvidia-cuda-mps-control runs there" in why(str(tmp_path))
    assert "no nvidia-cuda-mps-control runs there" in why(daemon(tmp_path / "dead", 2**22))
    another = daemon(tmp_path / "another", os.getpid())
    monkeypatch.setattr(mps.os, "geteuid", lambda: 4321)
    assert "belongs to user" in why(another)
    monkeypatch.setattr(mps, "_DEFAULT", missing)
    assert mps.find_service({}) == (None, "")


def test_limits_by_control_group_need_a_driver_a_group_and_root(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "615 or later, and this is 580.1" in mps.why_no_cgroups("580.1", True, True)
    assert "no control group of their own" in mps.why_no_cgroups("615.02", False, True)
    monkeypatch.setattr(mps.os.path, "exists", lambda path: True)
    monkeypatch.setattr(mps.os, "geteuid", lambda: 1000)
    assert mps.why_no_cgroups("615.02", True, True) == "root alone may set them"
    monkeypatch.setattr(mps.os, "geteuid", lambda: 0)
    assert "older than 13.615" in mps.why_no_cgroups("615.02", True, False)
    assert mps.why_no_cgroups("615.02", True, True) == ""


def test_a_limit_is_set_hard_and_guarantees_nothing(tmp_path: Path) -> None:
    nvml = FakeNvml(ONE_H200)
    nvml.nvmlInit()
    uuid = ONE_H200.gpus[0].uuid
    mps.limit_memory(nvml, str(tmp_path), {uuid: 11 * GIB})
    assert nvml.limits == {(uuid, str(tmp_path)): 11 * GIB}
    with pytest.raises(pynvml.NVMLError):
        mps.limit_memory(nvml, str(tmp_path / "no-group"), {uuid: 1})


# -- containers ----------------------------------------------------------------------------


def with_specification(folder: Path, text: str, name: str = "nvidia.yaml") -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return {"CDISpecDirs": [str(folder), "/no/such/folder"]}


YAML = "kind: nvidia.com/gpu\ndevices:\n- name: '0'\n- name: {}\n- name: all\n"


def test_containers_get_gpus_that_a_specification_names(seen: str, tmp_path: Path) -> None:
    host = found(seen, K80_BOX)
    second = host.gpus[1].uuid
    given = for_containers(host, with_specification(tmp_path / "cdi", YAML.format(second)))
    assert [gpu.uuid for gpu in given.gpus] == [second]
    assert device_request([second], given.cdi) == {
        "Driver": "cdi",
        "DeviceIDs": [f"nvidia.com/gpu={second}"],
    }
    text = json.dumps({"kind": "nvidia.com/gpu", "devices": [{"name": second}]})
    as_json = with_specification(tmp_path / "json", text, "nvidia.json")
    assert for_containers(host, as_json).gpus == given.gpus


def test_else_the_runtime_gives_them_by_uuid_and_never_by_count(seen: str) -> None:
    host = for_containers(found(seen, K80_BOX), {"Runtimes": {"runc": {}, "nvidia": {}}})
    assert (len(host.gpus), host.runtime) == (4, True)
    request = device_request([host.gpus[2].uuid], host.cdi)
    assert (request["Driver"], request["DeviceIDs"]) == ("nvidia", [host.gpus[2].uuid])
    assert "Count" not in request


def test_an_engine_that_knows_no_gpus_gives_none_and_says_what_to_do(
    seen: str, tmp_path: Path
) -> None:
    host = found(seen, K80_BOX)
    broken = with_specification(tmp_path / "cdi", "kind: [", "broken.yaml")
    for info in ({}, {"Runtimes": {"runc": {}}}, broken):
        given = for_containers(host, info)
        assert given.gpus == ()
        assert "nvidia-ctk cdi generate --device-name-strategy=uuid" in given.why_none


# -- vanishing -----------------------------------------------------------------------------


def test_every_way_to_vanish_is_noticed_and_other_trouble_is_not() -> None:
    uuids = [gpu.uuid for gpu in K80_BOX.gpus]
    now = [K80_BOX]
    nvml = FakeNvml(lambda: now[0])
    nvml.nvmlInit()
    assert first_lost(nvml, uuids) is None
    now[0] = K80_BOX.with_lost(uuids[2])
    error = first_lost(nvml, uuids)
    assert error is not None and uuids[2] in error.cause and "fallen off the bus" in error.evidence
    now[0] = replace(K80_BOX, gpus=K80_BOX.gpus[1:])
    error = first_lost(nvml, uuids)
    assert error is not None and uuids[0] in error.cause
    nvml.nvmlShutdown()
    assert first_lost(nvml, uuids) is None  # our own fault


def test_a_watch_tells_of_the_loss_and_ends_with_its_block(seen: str) -> None:
    uuid = ONE_H200.gpus[0].uuid
    write_host(seen, ONE_H200)

    async def watch() -> None:
        async with watched([uuid], period_s=0.02) as lost:
            await asyncio.sleep(0.1)
            assert not lost.done()
            write_host(seen, ONE_H200.with_lost(uuid))
            with pytest.raises(HostError, match=uuid):
                await asyncio.wait_for(lost, 20)
        async with watched([]) as never:
            pass
        assert never.cancelled()

    asyncio.run(watch())


def test_the_fake_must_be_initialised_as_the_real_one(seen: str) -> None:
    nvml = FakeNvml(ONE_H200)
    with pytest.raises(pynvml.NVMLError, match="Uninitialized"):
        nvml.nvmlDeviceGetCount()
    write_host(seen, ONE_H200)
    with opened() as module:
        assert module.nvmlDeviceGetCount() == 1
    with pytest.raises(pynvml.NVMLError):
        module.nvmlDeviceGetCount()
