"""What connects shaped nodes is killed, or finds its place taken."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from up import running

from simgrid_ml.record.run import RunState
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.spec.links import Link, Links
from simgrid_ml.testing.processes import RunProcesses, host_processes, wait_until
from simgrid_ml.testing.runs import Runs, cause, story

SHAPED = Links(default=Link(delay_s=0.02))


pytestmark = pytest.mark.usefixtures("shaped_links")


@pytest.fixture(params=["process", "docker"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return str(request.param)


def relay_of(supervisor: int) -> int:
    """The process that carries the packets; it runs beside the nodes, as nobody's rank."""
    (pid,) = [
        process.pid
        for process in host_processes()
        if process.parent == supervisor and any("relay" in word for word in process.argv[:4])
    ]
    return pid


def test_a_killed_relay_ends_the_run(workspace: Runs, backend: str) -> None:
    record = running(workspace, {"backend": backend, "links": SHAPED})
    os.kill(relay_of(RunProcesses(record).supervisor()), signal.SIGKILL)
    assert workspace.ended(record).state is RunState.FAILED, story(record)
    assert (record.error() or {})["kind"] == "NodeError", story(record)
    assert cause(record) == "the relay that connects the nodes ended with code -9", story(record)
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")


@pytest.mark.parametrize("taken", ["control.sock", "tmp/relay.sock"])
def test_a_socket_whose_place_is_taken(
    workspace: Runs, backend: str, tmp_path: Path, environment: EnvironmentSpec, taken: str
) -> None:
    from simgrid_ml.environments.build import ensure

    go, slow = tmp_path / "go", tmp_path / "slow-python"
    inner = ensure(environment).python
    slow.write_text(f'#!/bin/sh\nwhile [ ! -e "{go}" ]; do sleep 0.05; done\nexec {inner} "$@"\n')
    slow.chmod(0o755)
    record = workspace.submit(
        "print(1)",
        nodes=2,
        cluster={"backend": backend, "links": SHAPED},
        environment=EnvironmentSpec(interpreter=str(slow)),
    )
    os.makedirs(record.file(taken))
    go.touch()
    assert workspace.ended(record).state is RunState.FAILED, story(record)
    error = record.error() or {}
    assert taken in cause(record) and error["exit_code"] == 5 and error["remedy"], story(record)
    if taken == "control.sock":
        os.rmdir(record.file(taken))
