"""A container engine that is absent, not ours to use, or goes away: said at once, and cleanly."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from up import let_go, running

from simgrid_ml.__main__ import main
from simgrid_ml.backends.docker import our_containers
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.errors import HostError
from simgrid_ml.record.run import RunState
from simgrid_ml.testing.processes import RunProcesses, wait_until
from simgrid_ml.testing.runs import Runs, cause, story

DOCKER = {"backend": "docker"}


def refused(workspace: Runs) -> HostError:
    with pytest.raises(HostError) as caught:
        workspace.submit("print(1)", mpi=(2, 1), cluster=DOCKER)
    assert workspace.store.list() == []
    assert caught.value.exit_code == 5
    return caught.value


def test_no_engine_is_told_at_submission_with_the_remedy(
    workspace: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    error = refused(workspace)
    assert error.cause == f"the container engine at unix://{tmp_path}/no.sock does not answer"
    assert "apt-get install docker.io" in error.remedy and "--backend process" in error.remedy


def test_no_engine_is_the_hosts_fault_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text("print(1)")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    script = str(tmp_path / "train.py")
    assert main(["run", "--backend", "docker", "--nodes", "2", script]) == 5
    said = capsys.readouterr().err
    assert "does not answer" in said and "Try: install and start Docker" in said


def test_an_engine_on_another_machine_is_refused(
    workspace: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
    assert "nodes need an engine on this host" in refused(workspace).cause


def as_nobody(work: Callable[[], str]) -> str:
    """What ``work`` says as a user without rights."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


def test_an_engine_that_this_user_may_not_talk_to() -> None:
    def ask() -> str:
        try:
            Engine(f"unix://{path}").version()
        except HostError as error:
            return f"{error.exit_code} {error}"
        return "no error"

    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        path = os.path.join(folder, "engine.sock")
        listening.bind(path)
        listening.listen()
        os.chmod(path, 0)
        os.chmod(folder, 0o755)
        said = as_nobody(ask)
    assert said.startswith(f"5 this user may not talk to the container engine at unix://{path}")
    assert "usermod -aG docker" in said and "--backend process" in said


class OwnEngine:
    """A second engine of this host, with nothing in common with the one that others use."""

    def __init__(self, folder: str, hidden: str = "/none") -> None:
        self.folder = folder
        self.address = f"unix://{folder}/engine.sock"
        self.hidden = hidden
        self.start()

    def start(self) -> None:
        argv = [
            *("dockerd", "--host", self.address, "--pidfile", f"{self.folder}/pid"),
            *("--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"),
            *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
            *("--ip-forward=false", "--storage-driver", "vfs"),
        ]
        # With mounts of its own none of its mounts is left behind, and it can be blinded. With a
        # network of its own it does not remove the bridge of the host's engine.
        hide = '[ ! -d "$0" ] || mount -t tmpfs none "$0"; exec "$@"'
        argv = ["unshare", "--mount", "--net", "sh", "-c", hide, self.hidden, *argv]
        with open(f"{self.folder}/log", "ab") as stream:
            self.process = subprocess.Popen(
                argv, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL
            )
        wait_until(self.answers, "the engine of the test answers")

    def answers(self) -> bool:
        with contextlib.suppress(HostError):
            return bool(Engine(self.address).version())
        return False

    def end(self, number: int) -> None:
        helpers = [
            Path("/proc", Path(path).read_text())
            for path in glob.glob(f"{self.folder}/exec/containerd/*.pid")
        ]
        self.process.send_signal(number)
        self.process.wait(60)
        # The next engine would wait for them in vain.
        wait_until(lambda: not any(each.exists() for each in helpers), "its helpers have ended")


@pytest.fixture
def folder(docker_engine: Engine) -> Iterator[str]:
    """A short one: paths of sockets are."""
    if os.getuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("needs root and dockerd, to start an engine that the test can end")
    with tempfile.TemporaryDirectory(prefix="sgml-") as folder:
        yield folder


@pytest.fixture
def own_engine(folder: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnEngine]:
    engine = OwnEngine(folder)
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    yield engine
    if engine.process.poll() is not None:
        engine.start()
    left = our_containers(Engine(engine.address))
    engine.end(signal.SIGTERM)
    assert left == []


def test_an_engine_that_is_shut_down_takes_the_run_along(
    workspace: Runs, own_engine: OwnEngine
) -> None:
    record = running(workspace, DOCKER)
    own_engine.end(signal.SIGTERM)
    assert workspace.ended(record).state is RunState.FAILED, story(record)
    assert "went away" in cause(record), story(record)
    assert (record.error() or {})["kind"] == "NodeError"
    own_engine.start()  # the janitor waits for that, to look whether it has containers still
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")


def test_nodes_outlive_an_engine_that_crashes_and_the_run_ends_well(
    workspace: Runs, own_engine: OwnEngine
) -> None:
    record = running(workspace, DOCKER)
    own_engine.end(signal.SIGKILL)
    let_go(record)
    assert workspace.ended(record).state is RunState.COMPLETED, story(record)
    own_engine.start()  # it knows of its containers again, and the janitor waits for that
    wait_until(lambda: not our_containers(Engine(own_engine.address)), "they are gone")
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")


def test_an_engine_that_cannot_see_the_run_directory_is_told(
    workspace: Runs, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OwnEngine(folder, hidden=workspace.folder)
    try:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        record = workspace.failed("print(1)", mpi=(2, 1), cluster=DOCKER)
        assert cause(record).startswith("node"), story(record)
        error = record.error() or {}
        assert error["kind"] == "NodeError" and record.path in error["evidence"], story(record)
        assert our_containers(Engine(engine.address)) == []
    finally:
        engine.end(signal.SIGTERM)
