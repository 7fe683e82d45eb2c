"""What containers are asked for, and what people are told, on hosts with GPUs that are values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml
import pytest

from simgrid_ml.azure.lint import odd_for_cluster
from simgrid_ml.backends.base import NodesRequest
from simgrid_ml.backends.container import container_body
from simgrid_ml.backends.docker import DockerBackend
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.image import NodeImage
from simgrid_ml.backends.process import ProcessBackend
from simgrid_ml.cli import doctor_gpus
from simgrid_ml.cli.watch import _text
from simgrid_ml.engine.gpu_requests import devices_for_pool, for_pool, planned, with_devices
from simgrid_ml.engine.nccl import served_by_gloo
from simgrid_ml.engine.pool_nodes import kind_of
from simgrid_ml.engine.prepare import prospect
from simgrid_ml.environments.build import BuiltEnvironment
from simgrid_ml.errors import HostError, PlacementError, SpecError
from simgrid_ml.gpus import mps, nvml
from simgrid_ml.gpus.discover import host_gpus
from simgrid_ml.gpus.leases import Leases
from simgrid_ml.node.config import Config
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.gpus import Backing, GpuSharing
from simgrid_ml.spec.job import EnvironmentSpec, JobSpec, Mpi, TorchDistributed
from simgrid_ml.spec.placement import HostInventory, place
from simgrid_ml.spec.value import from_plain
from simgrid_ml.testing.nvml import (
    EIGHT_A100,
    K80_BOX,
    MISMATCH,
    ONE_H200,
    FakeHost,
    variables,
    write_host,
)

IMAGE = NodeImage("an/image:1", "sha256:1", "host", ("/usr/bin/python3",), ())
RUNTIME = {"NCPU": 8, "MemTotal": 2**35, "Runtimes": {"nvidia": {}}}


@pytest.fixture
def see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a host the one that NVML sees, and an engine's answer that of the engine."""
    path = str(tmp_path / "host.json")
    for name, value in variables(path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SIMGRID_ML_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(mps.DIRECTORY_VARIABLE, raising=False)
    monkeypatch.setattr(mps, "_DEFAULT", str(tmp_path / "no-mps"))

    def see(host: FakeHost, info: dict[str, Any] | None = None) -> None:
        write_host(path, host)
        monkeypatch.setattr(Engine, "__init__", lambda self: None)
        monkeypatch.setattr(Engine, "info", lambda self: {**RUNTIME, **(info or {})})

    return see


def request(nodes: int = 2, **other: Any) -> NodesRequest:
    names = tuple(f"node{n}" for n in range(nodes))
    capacity = Capacity(1.0, None, None, 2**26)
    return NodesRequest("r", "/runs/r", names, "/runs/r/s", capacity, **other)


def asked(wish: NodesRequest, node: str, named: tuple[str, ...] = ()) -> Any:
    """Of devices, for one node's container."""
    body = container_body(wish, IMAGE, Config(socket=wish.socket, nodes=(node,)), "1", named)
    return body["HostConfig"].get("DeviceRequests")


def given(host: HostInventory, nodes: int = 2, size: str = "Standard_NC12", **cluster: Any) -> Any:
    """The plan, and the request with its devices."""
    on = ClusterSpec(name="c", vm_size=size, **cluster)
    job = JobSpec(source="/s", entry_script="t.py", distribution=Mpi(nodes=nodes))
    plan = planned(on, place(job, on, host), host, contained=True)
    return plan, with_devices(request(nodes), plan)


def test_each_container_gets_the_gpus_of_its_node_by_uuid(see: Any) -> None:
    see(K80_BOX)
    plan, wish = given(DockerBackend().inventory())
    assert plan.backing is Backing.WHOLE
    uuids = [gpu.uuid for gpu in K80_BOX.gpus]
    assert [asked(wish, node)[0]["DeviceIDs"] for node in wish.nodes] == [uuids[:2], uuids[2:]]
    (by_cdi,) = asked(wish, "node1", tuple(uuids))
    assert by_cdi == {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={one}" for one in uuids[2:]]}
    assert "which GPUs a process sees: by its container" in plan.hard


def test_two_virtual_gpus_on_one_device_ask_for_it_once(see: Any) -> None:
    see(ONE_H200)
    plan, wish = given(DockerBackend().inventory())
    assert plan.backing is Backing.TIME_SLICED
    assert asked(wish, "node0")[0]["DeviceIDs"] == [ONE_H200.gpus[0].uuid]
    assert wish.gpu_limits == {}


def test_host_memory_asks_for_nothing(see: Any) -> None:
    see(FakeHost())
    plan, wish = given(DockerBackend().inventory())
    assert (plan.backing, asked(wish, "node0")) == (Backing.HOST_MEMORY, None)
    see(K80_BOX, {"Runtimes": {}})  # an engine that cannot give them
    plan, wish = given(DockerBackend().inventory())
    assert plan.backing is Backing.HOST_MEMORY and "nvidia-ctk" in plan.reason
    assert asked(wish, "node0") is None


def test_control_groups_limit_what_all_of_a_nodes_gpus_on_a_device_may_take(see: Any) -> None:
    see(ONE_H200)
    host = DockerBackend().inventory()
    host = replace(host, gpus=replace(host.gpus, mps_directory="/mps", mps_cgroups=True))
    plan, wish = given(host)
    assert plan.backing is Backing.MPS_CGROUP
    both = 2 * plan.model.memory_bytes
    assert wish.gpu_limits == {node: {ONE_H200.gpus[0].uuid: both} for node in wish.nodes}
    assert wish.writable == ("/mps",)


def test_containers_of_a_stored_cluster_get_all_devices_and_no_service(see: Any) -> None:
    see(EIGHT_A100)
    backend = DockerBackend()
    cluster = ClusterSpec(name="c", vm_size="Standard_NC6", backend="docker")
    devices = devices_for_pool(cluster, backend.inventory().gpus)
    assert len(devices) == 6 + 2 and all(one.startswith("MIG-") for one in devices[6:])
    wish = request(gpus=dict.fromkeys(("node0", "node1"), devices))
    assert kind_of(backend, "docker", wish).gpus == devices
    assert kind_of(ProcessBackend(), "process", wish).gpus == ()
    for other in ({"gpu_sharing": GpuSharing.EMULATED}, {"vm_size": "host"}):
        spec = ClusterSpec(**{"name": "c", "vm_size": "Standard_NC6", **other})
        assert devices_for_pool(spec, backend.inventory().gpus) == ()
    host = backend.inventory()
    host = for_pool(replace(host, gpus=replace(host.gpus, mps_directory="/mps")))
    with pytest.raises(PlacementError, match="gpu_sharing is mps") as caught:
        given(host, gpu_sharing=GpuSharing.MPS)
    assert "started before anybody knows a run's share" in caught.value.evidence


# -- doctor --------------------------------------------------------------------------------


def doctor() -> dict[str, tuple[str, str, str]]:
    return {check: rest for check, *rest in doctor_gpus.gpus_checks()}  # type: ignore[misc]


def test_doctor_describes_what_there_is_and_how_it_is_shared(see: Any, tmp_path: Path) -> None:
    see(EIGHT_A100)
    told = doctor()
    answer, found, _ = told["GPUs"]
    assert answer == "yes"
    assert found == (
        "6 x NVIDIA A100-SXM4-40GB (40 GiB), 1 x NVIDIA A100-SXM4-40GB (40 GiB, MIG: 3g.20gb, "
        "2g.10gb), 1 x NVIDIA A100-SXM4-40GB (40 GiB, MIG: no instance), driver 580.159.03, "
        "CUDA 13.0"
    )
    assert told["GPU sharing"][:2] == ["yes", "time slices; no Multi-Process Service runs"]
    assert told["GPUs of containers"][:2] == ["yes", "by NVIDIA's runtime"]
    assert told["GPUs in use"][1] == "by no run of this user"
    plan, _ = given(ProcessBackend().inventory(), 1, "Standard_NC6")
    with Leases().of(plan, "a_run"):
        assert doctor()["GPUs in use"][1] == (
            f"a_run has all of {EIGHT_A100.gpus[0].uuid}; others wait where that is too much"
        )


def test_doctor_names_what_is_lost_and_what_to_do(see: Any, monkeypatch: Any) -> None:
    see(K80_BOX.with_lost(K80_BOX.gpus[3].uuid), {"Runtimes": {}})
    monkeypatch.setenv(mps.DIRECTORY_VARIABLE, "/no/such/folder")
    told = doctor()
    assert told["GPUs"][0] == "limited" and "3 x Tesla K80" in told["GPUs"][1]
    assert "GPU 3: the GPU has fallen off the bus" in told["GPUs"][1]
    assert told["GPU sharing"][0] == "limited" and "/no/such/folder" in told["GPU sharing"][1]
    assert told["GPUs of containers"][0] == "limited"
    assert all(remedy for answer, _, remedy in told.values() if answer == "limited")


def test_doctor_knows_no_driver_from_a_broken_one(see: Any, monkeypatch: Any) -> None:
    see(MISMATCH)
    monkeypatch.setattr(nvml, "_DRIVERS", ("/",))
    answer, found, remedy = doctor()["GPUs"]
    assert answer == "limited" and "different versions" in found and remedy
    see(FakeHost(refuses=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    monkeypatch.setattr(nvml, "_DRIVERS", ())
    assert doctor()["GPUs"][0] == "yes"


def test_doctor_is_silent_about_containers_without_an_engine(see: Any, monkeypatch: Any) -> None:
    see(ONE_H200)

    def refuse(engine: Engine) -> None:
        raise HostError("no engine")

    monkeypatch.setattr(Engine, "__init__", refuse)
    assert "GPUs of containers" not in doctor()
    assert len(host_gpus().gpus) == 1


# -- what users are told -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processes", "use_gpu", "size", "warned"),
    [
        (3, True, "Standard_NC12", True),
        (2, True, "Standard_NC12", False),
        (3, False, "Standard_NC12", False),
        (3, True, "host", False),
    ],
)
def test_more_processes_than_gpus_are_a_warning_at_submission(
    processes: int, use_gpu: bool, size: str, warned: bool
) -> None:
    job = JobSpec(
        source="/s",
        entry_script="t.py",
        distribution=Mpi(nodes=1, processes_per_node=processes),
        environment=EnvironmentSpec(use_gpu=use_gpu),
    )
    told = list(odd_for_cluster(job, ClusterSpec(name="c", vm_size=size)))
    assert (len(told) == 1) == warned
    if warned:
        assert told[0].startswith("3 processes per node and 2 GPUs on each node of Standard_NC12")


@pytest.mark.parametrize(
    ("plain", "values"),
    [
        ({"gpu_sharing": "time_sliced"}, "auto, emulated, exclusive, mig, mps, time-sliced, none"),
        ({"working_directory": "own"}, "shared, private"),  # or None
    ],
)
def test_a_value_that_is_none_of_a_few_is_answered_with_them(
    plain: dict[str, str], values: str
) -> None:
    with pytest.raises(SpecError, match="Invalid enum value") as found:
        from_plain({"name": "c", **plain}, ClusterSpec, "cluster")
    assert found.value.remedy == f"the values there are {values}"


@pytest.mark.parametrize("size", ["host", "Standard_D2_v2", "Standard_NC6"])
def test_a_way_to_share_gpus_is_odd_where_nodes_have_none(size: str) -> None:
    job = JobSpec(source="/s", entry_script="t.py")
    cluster = ClusterSpec(name="c", vm_size=size, gpu_sharing=GpuSharing.EXCLUSIVE)
    told = list(odd_for_cluster(job, cluster))
    assert told == [] if size == "Standard_NC6" else told[0].startswith("gpu_sharing is exclusive")


def test_who_watches_a_run_that_waits_reads_for_what() -> None:
    event = {"event": "waiting-for-gpus", "devices": ["GPU-1"], "runs": ["a"], "behind": ["b"]}
    assert _text(event) == "waiting for GPU-1, which a has, behind b"


@pytest.mark.parametrize(
    ("has_gpu", "build", "sharing", "recorded"),
    [
        (False, "2.13.0", "auto", 1),
        (True, "2.13.0", "auto", 0),
        (True, "2.13.0+cpu", "auto", 1),
        (True, "2.13.0", "emulated", 1),
    ],
)
def test_gloo_is_not_recorded_for_nccl_where_the_plan_decides(
    has_gpu: bool, build: str, sharing: str, recorded: int
) -> None:
    built = BuiltEnvironment("python", "bin", "", True, (), {"torch": build})
    job = JobSpec(source="/s", entry_script="t.py", distribution=TorchDistributed(nodes=2))
    cluster = ClusterSpec(name="c", vm_size="Standard_NC6", gpu_sharing=GpuSharing(sharing))
    found = served_by_gloo(built, job, cluster, host_has_gpu=has_gpu)
    assert (len(found.substitutions), found.hooks) == (recorded, ())


@pytest.mark.parametrize(("backend", "holds"), [("docker", "hard"), ("process", "advisory")])
def test_what_would_be_says_as_a_run_does_what_holds_which_gpus_are_seen(
    see: Any, tmp_path: Path, backend: str, holds: str
) -> None:
    see(ONE_H200)
    (tmp_path / "train.py").write_text("")
    job = JobSpec(source=str(tmp_path), entry_script="train.py")
    cluster = ClusterSpec(name="c", vm_size="Standard_NC6", backend=backend)
    plan = prospect(job, cluster, store=RunStore(str(tmp_path / "workspace"))).gpus
    assert plan is not None
    assert any("which GPUs a process sees" in line for line in getattr(plan, holds))
