"""Runs that want the same real GPU: one has it, the others wait, and a dead one holds nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import uuid
import venv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.backends.process import ProcessBackend
from simgrid_ml.errors import PlacementError, SpecError
from simgrid_ml.gpus.leases import Leases
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.gpu_plan import plan_gpus
from simgrid_ml.spec.gpus import Backing, GpuPlan, GpuSharing, HostGpu, HostGpus
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.nvml import ONE_H200, FakeGpu, FakeHost, variables, write_host
from simgrid_ml.testing.pools import put_cluster, stop_pools
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs, log, story

MIB, GIB = 2**20, 2**30
ONE = HostGpus((HostGpu("GPU-one", "NVIDIA H200", 143771 * MIB, 132, (9, 0)),))


def plan(nodes: int = 1, sharing: str = "auto", size: str = "Standard_NC6") -> GpuPlan:
    cluster = ClusterSpec(name="c", vm_size=size, gpu_sharing=GpuSharing(sharing))
    made = plan_gpus(cluster, [f"node{n}" for n in range(nodes)], ONE, memory_bytes=GIB)
    assert made is not None
    return made


WHOLE, TWO_SLICES = plan(), plan(2, "time-sliced")

# -- leases --------------------------------------------------------------------------------


def test_a_whole_gpu_is_one_runs_and_free_again_afterwards(tmp_path: Path) -> None:
    leases = Leases(str(tmp_path / "leases"))
    assert leases.held() == ()
    with leases.of(WHOLE, "a") as blocking:
        assert blocking == ()
        for other in (WHOLE, TWO_SLICES):
            with leases.of(other, "b") as blocking:
                assert [lease.run for lease in blocking] == ["a"]
        (held,) = leases.held()
        assert (held.device, held.run, held.exclusive) == ("GPU-one", "a", True)
        assert leases.taken()["GPU-one"] > 143771 * MIB
    with leases.of(TWO_SLICES, "b") as blocking:
        assert blocking == ()
    assert os.listdir(tmp_path / "leases") == ["turn"]


def test_slices_are_shared_until_the_device_less_its_reserve_is_full(tmp_path: Path) -> None:
    leases = Leases(str(tmp_path))
    share = TWO_SLICES.nodes[0].shares[0].memory_bytes
    with leases.of(plan(10, "time-sliced"), "a"), leases.of(TWO_SLICES, "b") as none:
        assert none == ()
        assert leases.taken() == {"GPU-one": 12 * share}  # of 12.5 that there is room for
        with leases.of(plan(1, "time-sliced"), "c") as blocking:
            assert {lease.run for lease in blocking} == {"a", "b"}
        with leases.of(WHOLE, "d") as blocking:
            assert len(blocking) == 12
        assert leases.taken() == {"GPU-one": 12 * share}


def test_all_devices_are_taken_or_none(tmp_path: Path) -> None:
    two = HostGpus((*ONE.gpus, replace(ONE.gpus[0], uuid="GPU-two")))
    both = plan_gpus(
        ClusterSpec(name="c", vm_size="Standard_NC12"), ["node0"], two, memory_bytes=GIB
    )
    assert both is not None and both.backing is Backing.WHOLE
    leases = Leases(str(tmp_path))
    with leases.of(WHOLE, "a"), leases.of(both, "b") as blocking:
        assert [lease.device for lease in blocking] == ["GPU-one"]
        assert [lease.run for lease in leases.held()] == ["a"]


def test_nobody_overtakes_who_waits_for_the_same_device(tmp_path: Path) -> None:
    leases = Leases(str(tmp_path / "leases"))
    slices = plan(1, "time-sliced")
    with leases.of(slices, "a"), leases.in_line() as first, leases.in_line() as second:
        with leases.of(WHOLE, "whole", first) as blocking:
            assert [lease.run for lease in blocking] == ["a"]
        with leases.of(slices, "late", second) as blocking:  # which would fit in beside a
            assert [(lease.run, lease.memory_bytes) for lease in blocking] == [("whole", 0)]
        with leases.of(slices, "latest") as blocking:
            assert [lease.run for lease in blocking] == ["whole", "late"]
    with leases.of(slices, "late") as blocking:
        assert blocking == ()
    assert sorted(os.listdir(tmp_path / "leases")) == ["turn"]


def test_a_disk_that_takes_no_lease_is_an_error_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, said: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    leases = Leases(str(tmp_path / "leases"))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"), leases.of(WHOLE, "a"):
        pass
    monkeypatch.undo()
    assert leases.held() == ()
    assert os.listdir(tmp_path / "leases") == ["turn"]


HOLD = """
import sys, time
from simgrid_ml.gpus.leases import Leases
from tests_plan import WHOLE
with Leases(sys.argv[1]).of(WHOLE, "dead"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_kernel_lets_go_of_what_a_killed_run_held(tmp_path: Path) -> None:
    (tmp_path / "tests_plan.py").write_text(Path(__file__).read_text())
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    folder = str(tmp_path / "leases")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], env=environ, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with Leases(folder).of(WHOLE, "b") as blocking:
            assert [lease.run for lease in blocking] == ["dead"]
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert other.stdout.read() == ""
    assert Leases(folder).held() == ()
    assert os.listdir(folder) == ["turn"]


# -- runs with supervisors of their own ----------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with nothing_left(str(tmp_path)):
        yield Machine(tmp_path, monkeypatch.setenv)


class Machine:
    """A host with one H200, as NVML sees it here, and as CUDA does on the nodes."""

    def __init__(self, folder: Path, setenv: Callable[[str, str], None]) -> None:
        self.gpu = f"GPU-{uuid.uuid4()}"
        self.host = FakeHost((replace(ONE_H200.gpus[0], uuid=self.gpu),))
        self._file = str(folder / "host.json")
        write_host(self._file, self.host)
        for name, value in variables(self._file).items():
            setenv(name, value)
        interpreter = self._interpreter(folder / "environment", self.host.gpus[0])
        self.runs = Runs(str(folder), EnvironmentSpec(interpreter=interpreter))

    def _interpreter(self, folder: Path, gpu: FakeGpu) -> str:
        """A Python on nodes whose CUDA driver is the one for tests."""
        venv.create(folder, symlinks=True)
        source = os.path.join(os.path.dirname(__file__), "libcuda.c")
        library = ["cc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), source]
        subprocess.run(library, check=True)
        looks = folder / "bin" / "python3"  # what nodes find on their PATH
        looks.unlink()
        looks.write_text(
            "#!/bin/sh\n"
            f"export LD_LIBRARY_PATH='{folder}' "
            f"FAKE_CUDA='{gpu.uuid[4:]} {gpu.memory_mib * MIB} 132'\n"
            f'exec "{folder}/bin/python" "$@"\n'
        )
        looks.chmod(0o755)
        return str(folder / "bin" / "python")

    def submit(self, until: Path | None = None, **given: Any) -> RunRecord:
        """A run that wants the GPU for itself; it ends when the file ``until`` is there.

        Or after minutes: whoever kills these tests leaves no run for ever.
        """
        script = ""
        if until is not None:
            script = f"""
            import os, time
            end = time.monotonic() + 300
            while not os.path.exists({str(until)!r}) and time.monotonic() < end:
                time.sleep(0.05)
            """
        cluster = {"vm_size": "Standard_NC6", "gpu_sharing": GpuSharing.EXCLUSIVE}
        cluster.update(given.pop("cluster", {}))
        return self.runs.submit(script, cluster=cluster, **given)

    def lose_the_gpu(self) -> None:
        write_host(self._file, self.host.with_lost(self.gpu))


def until_running(record: RunRecord) -> None:
    def runs() -> bool:
        assert not record.state.is_terminal, story(record)
        return record.state is RunState.RUNNING

    wait_until(runs, "the run runs", 90)


def waits(record: RunRecord) -> list[dict[str, Any]]:
    return [event for event in record.events() if event["event"] == "waiting-for-gpus"]


def test_the_second_of_two_runs_waits_and_can_be_cancelled_or_has_its_turn(
    machine: Machine, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    first = machine.submit(done)
    until_running(first)
    second, third = machine.submit(), machine.submit(max_run_s=0.5)
    cancelled = machine.submit()
    wait_until(lambda: all(waits(one) for one in (second, third, cancelled)), "all wait")
    (told,) = waits(second)
    assert (told["devices"], told["runs"]) == ([machine.gpu], [first.id])
    assert second.state is RunState.QUEUED
    cancelled.request_cancel()
    assert machine.runs.ended(cancelled).state is RunState.CANCELED
    assert machine.runs.ended(third).state is RunState.CANCELED
    assert "max_run_duration_seconds" in third.states()[-1]["note"]
    assert first.state is RunState.RUNNING
    done.touch()
    assert machine.runs.ended(first).state is RunState.COMPLETED, first.error()
    assert machine.runs.ended(second).state is RunState.COMPLETED, second.error()
    assert first.document("gpus.json")["nodes"][0]["shares"][0]["device"] == machine.gpu
    assert Leases().taken().get(machine.gpu) is None


def test_a_run_on_a_stored_cluster_waits_with_its_nodes(machine: Machine) -> None:
    stored = put_cluster(machine.runs, vm_size="Standard_NC6", gpu_sharing="exclusive")
    host = ProcessBackend().inventory().gpus
    spec = ClusterSpec(name="c", vm_size="Standard_NC6")
    whole = plan_gpus(spec, ["node0"], host, memory_bytes=GIB)
    assert whole is not None
    try:
        with Leases().of(whole, "somebody"):
            record = machine.submit(cluster=stored)
            (told,) = wait_until(lambda: waits(record), "it waits")
            assert told["runs"] == ["somebody"]
            events = [event["event"] for event in record.events()]
            assert events.index("given") < events.index("waiting-for-gpus")
        assert machine.runs.ended(record).state is RunState.COMPLETED, story(record)
    finally:
        stop_pools(machine.runs.folder)


def test_slices_come_with_what_keeps_frameworks_within_them(machine: Machine) -> None:
    script = "import os\nfor name in sorted(os.environ): print(name, os.environ[name])"
    sliced = {"vm_size": "Standard_NC12"}
    record = machine.runs.completed(script, nodes=2, cluster=sliced)
    plan = record.document("gpus.json")
    assert plan["backing"] == "time-sliced GPU"
    assert "no whole GPU: 4 are needed and the host has 1" in plan["reason"]
    told = dict(line.split(" ", 1) for line in log(record).splitlines() if " " in line)
    assert told["CUDA_VISIBLE_DEVICES"] == machine.gpu
    assert told["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert float(told["XLA_PYTHON_CLIENT_MEM_FRACTION"]) == pytest.approx(0.0755, abs=1e-3)
    assert told["NCCL_NET"] == "Socket"
    assert plan["collectives"] == "gloo"


def test_a_gpu_that_vanishes_is_why_the_run_failed(machine: Machine, tmp_path: Path) -> None:
    record = machine.submit(tmp_path / "never")
    until_running(record)
    machine.lose_the_gpu()
    assert machine.runs.ended(record).state is RunState.FAILED
    error = record.error()
    assert error is not None and error["kind"] == "HostError"
    assert error["cause"] == f"GPU {machine.gpu} of this host was lost during the run"
    assert "fallen off the bus" in error["evidence"]


def test_what_cannot_be_had_is_refused_before_anything_exists(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    with pytest.raises(PlacementError) as mps:
        machine.submit(cluster={"gpu_sharing": GpuSharing.MPS})
    assert f"CUDA_MPS_PIPE_DIRECTORY is {tmp_path}, and no nvidia-cuda-mps" in mps.value.evidence
    with pytest.raises(PlacementError) as large:
        machine.submit(cluster={"vm_size": "Standard_ND40rs_v2"})
    assert "8 are needed and the host has 1" in large.value.evidence
    with pytest.raises(SpecError, match="no VM size 'Standard_NC7'"):
        machine.submit(cluster={"vm_size": "Standard_NC7"})
    assert machine.runs.store.list() == []
