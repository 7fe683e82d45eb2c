"""The leak check finds what is left, by whatever ties it to the folder, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.backends.engine_api import Engine, EngineError
from simgrid_ml.record.run import RunLock, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.testing import leaks
from simgrid_ml.testing.leaks import nothing_left, traces
from simgrid_ml.testing.processes import wait_until


@contextmanager
def sleeper(**how: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps until the end of the block."""
    process = subprocess.Popen(["sleep", "600"], **how)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kinds(folder: Path) -> list[str]:
    return [line.partition(" ")[0].rstrip(":") for line in traces(str(folder))]


def test_a_folder_in_which_nothing_happens_is_clean(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert traces(str(tmp_path)) == []
    with nothing_left(str(tmp_path), 0.1):
        pass


def test_a_process_is_found_by_its_environment(tmp_path: Path) -> None:
    with sleeper(env={"RUN": str(tmp_path / "run")}):
        assert kinds(tmp_path) == ["process"]
    assert kinds(tmp_path) == []


def test_a_process_is_found_by_its_working_directory(tmp_path: Path) -> None:
    with sleeper(env={}, cwd=tmp_path):
        assert kinds(tmp_path) == ["process"]


def test_a_process_is_found_by_an_open_file_alone(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as log, sleeper(env={}, cwd="/", stdout=log):
        log.close()
        assert kinds(tmp_path) == ["process"]


def test_a_process_is_found_by_its_command_line(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(600)", f"--run={tmp_path}/run"]
    process = subprocess.Popen(argv, env={}, cwd="/")
    try:
        wait_until(lambda: kinds(tmp_path) == ["process"], "it is found")
    finally:
        process.kill()
        process.wait()


def test_a_process_of_a_neighbour_is_none_of_ours(tmp_path: Path) -> None:
    neighbour = f"{tmp_path}-2"
    with sleeper(env={"RUN": f"{neighbour}/run", "LIST": f"{neighbour}:/x"}):
        assert kinds(tmp_path) == []


def test_a_bound_socket_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "control.sock"))
        server.listen()
        assert kinds(tmp_path) == ["socket"]


def test_a_held_lock_is_found(tmp_path: Path) -> None:
    lock = RunLock.take(str(tmp_path))
    assert lock is not None
    assert kinds(tmp_path) == ["lock"]
    lock.close()
    assert kinds(tmp_path) == []


def test_a_run_that_has_not_ended_is_found_and_so_are_its_leftovers(tmp_path: Path) -> None:
    run = RunStore(str(tmp_path)).create("test", {})
    assert traces(str(tmp_path)) == [f"run {run.id} has not ended"]
    run.advance(RunState.CANCELED)
    for name in (wire.SOCKET, wire.RESERVE):
        Path(run.file(name)).touch()
    os.mkdir(run.file(wire.TMP))
    assert [os.path.basename(line) for line in traces(str(tmp_path))] == [
        wire.SOCKET,
        wire.TMP,
        wire.RESERVE,
    ]
    run.tidy()
    assert traces(str(tmp_path)) == []


def test_a_shared_memory_segment_that_nobody_uses_is_found(tmp_path: Path) -> None:
    segment = Path("/dev/shm") / f"sm_segment.node0.{os.getpid()}.leak"
    try:
        with (
            pytest.raises(AssertionError, match=segment.name),
            nothing_left(str(tmp_path), 0.1),
        ):
            segment.touch()
    finally:
        segment.unlink()


def test_the_message_names_what_is_left(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"process \d+ \(sleep 600 \) by its cwd"),
        sleeper(env={}, cwd=tmp_path),
        nothing_left(str(tmp_path), 0.1),
    ):
        pass


def test_what_ends_in_time_is_no_leak(tmp_path: Path) -> None:
    with nothing_left(str(tmp_path), 30):
        process = subprocess.Popen(["sleep", "0.2"], cwd=tmp_path)
    assert process.wait() == 0


def test_an_engine_that_stopped_answering_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mute(Engine):
        def version(self) -> dict[str, str]:
            return {}

        def containers(self, *_: str) -> list[dict[str, str]]:
            raise EngineError("it does not answer", status=0)

    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    assert kinds(tmp_path) == [], "one that was never there is none"
    monkeypatch.setattr(leaks, "Engine", Mute)
    with (
        pytest.raises(AssertionError, match="containers were not looked at: it does not answer"),
        nothing_left(str(tmp_path), 0.1),
    ):
        pass
