"""A node that is stopped keeps its connection, and is noticed all the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from up import let_go, running

from simgrid_ml.backends.docker import LABELS
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.record.run import RunRecord
from simgrid_ml.testing.processes import RunProcesses, wait_until
from simgrid_ml.testing.runs import Runs, cause, story


def stop_process(record: RunRecord, node: str) -> Callable[[], None]:
    pid = RunProcesses(record).agent(node)
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def pause_container(record: RunRecord, node: str) -> Callable[[], None]:
    engine = Engine()
    label = f"{LABELS.DIRECTORY}={record.path}"
    (found,) = engine.containers(label, f"{LABELS.NODE}={node}")
    engine.pause(found["Id"])
    return lambda: engine.unpause(found["Id"])


@pytest.fixture(params=["process", "docker"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return str(request.param)


def stop(record: RunRecord, node: str, backend: str) -> Callable[[], None]:
    return (stop_process if backend == "process" else pause_container)(record, node)


def test_a_node_that_stays_paused_fails_the_run_and_is_named(workspace: Runs, backend: str) -> None:
    record = running(workspace, {"backend": backend})
    stop(record, "node1", backend)
    workspace.ended(record)
    assert cause(record) == "node1 has not answered for 10 s: it is paused or hangs", story(record)
    assert (record.error() or {})["kind"] == "NodeError"
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")


def test_a_node_that_is_paused_for_a_moment_goes_on(workspace: Runs, backend: str) -> None:
    record = running(workspace, {"backend": backend})
    go_on = stop(record, "node1", backend)
    time.sleep(4)
    go_on()
    let_go(record)
    workspace.ended(record)
    assert record.state.value == "Completed", story(record)


def test_a_supervisor_that_is_killed_leaves_no_paused_node(workspace: Runs, backend: str) -> None:
    record = running(workspace, {"backend": backend})
    stop(record, "node1", backend)
    os.kill(RunProcesses(record).supervisor(), signal.SIGKILL)
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")
    record.request_cancel()
    assert record.state.value == "Canceled"
