"""Runs belong to their directory, not to the process that submitted them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml import wire
from simgrid_ml.record.follow import follow
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.spec.value import to_plain
from simgrid_ml.testing.processes import RunProcesses, wait_until
from simgrid_ml.testing.runs import Runs, log, story

DRIVER = """
    import json, sys
    from simgrid_ml.spec.job import EnvironmentSpec
    from simgrid_ml.testing.runs import Runs
    given = json.load(sys.stdin)
    runs = Runs(given["folder"], EnvironmentSpec(**given["environment"]))
    runs._sources = given["number"] * 100
    record = runs.submit(given["script"], mpi=(2, 1))
    print(record.id)
"""


def driver(workspace: Runs, script: str, number: int = 0) -> subprocess.Popen[str]:
    """A process of its own that submits ``script``, prints the run's id and exits."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    environment = {k: v for k, v in to_plain(workspace.environment).items() if v}
    given = {
        "folder": workspace.folder,
        "environment": environment,
        "script": script,
        "number": number,
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    return process


def submitted(workspace: Runs, process: subprocess.Popen[str]) -> RunRecord:
    assert process.stdout is not None
    with process.stdout:
        run_id = process.stdout.read().strip()
    assert process.wait() == 0
    return workspace.store.open(run_id)


def python(code: str, *arguments: str) -> Any:
    """What a process of its own prints as JSON."""
    argv = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


WAITS = """
    import os, time
    from mpi4py import MPI
    print("up", flush=True)
    open(f"logs/rank-{MPI.COMM_WORLD.rank}.txt", "w").write("growing\\n")
    while not os.path.exists("outputs/go"):
        time.sleep(0.02)
    print("went", MPI.COMM_WORLD.allreduce(1))
"""


def until_up(record: RunRecord, ranks: int = 2) -> None:
    wait_until(
        lambda: (
            all(one.bytes for one in record.artifacts() if "70_driver_log_" in one.name)
            and len([a for a in record.artifacts() if "70_driver_log_" in a.name]) == ranks
        ),
        "every rank has printed",
    )


def test_a_run_goes_on_after_its_driver_has_exited(workspace: Runs) -> None:
    record = submitted(workspace, driver(workspace, WAITS))
    until_up(record)
    Path(record.file("work", "outputs", "go")).touch()
    assert workspace.ended(record).state is RunState.COMPLETED, story(record)
    assert log(record, 1) == "up\nwent 2\n"


def test_another_process_lists_follows_and_cancels_a_run(workspace: Runs) -> None:
    record = submitted(workspace, driver(workspace, WAITS))
    until_up(record)
    seen = python(
        """
        import json, sys
        from simgrid_ml.record.follow import follow
        from simgrid_ml.record.store import RunStore
        store = RunStore(sys.argv[1])
        (record,) = store.list()
        name = "azureml-logs/70_driver_log_1.txt"
        first = next(chunk for n, chunk in follow(record, names=[name]) if chunk).decode()
        record.request_cancel()
        print(json.dumps([record.id, record.spec()["experiment"], first]))
        """,
        workspace.store.root,
    )
    assert seen == [record.id, "test", "up\n"]
    assert workspace.ended(record).state is RunState.CANCELED, story(record)


def test_logs_are_visible_while_the_run_lives(workspace: Runs) -> None:
    record = workspace.submit(WAITS, mpi=(2, 1))
    until_up(record)
    seen: dict[str, bytes] = {}
    for name, chunk in follow(record):
        seen[name] = seen.get(name, b"") + chunk
        wanted = {"azureml-logs/70_driver_log_0.txt", "logs/rank-0.txt", "logs/rank-1.txt"}
        if wanted <= set(seen):
            assert record.state is RunState.RUNNING
            break
    assert seen["logs/rank-1.txt"] == b"growing\n"
    Path(record.file("work", "outputs", "go")).touch()
    assert workspace.ended(record).state is RunState.COMPLETED


def test_two_processes_submit_at_once(workspace: Runs) -> None:
    script = "from mpi4py import MPI; print(MPI.COMM_WORLD.allreduce(1))"
    drivers = [driver(workspace, script, number) for number in (1, 2)]
    records = [workspace.ended(submitted(workspace, one)) for one in drivers]
    assert len({record.id for record in records}) == 2
    for record in records:
        assert record.state is RunState.COMPLETED, story(record)
        assert log(record, 1) == "2\n"


@pytest.mark.parametrize("isolation", ["full", "none"])
def test_a_killed_supervisor_takes_its_nodes_along_and_cancel_ends_the_run(
    workspace: Runs, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", isolation)
    record = workspace.submit(WAITS, mpi=(2, 2))
    until_up(record, 4)
    os.kill(RunProcesses(record).supervisor(), signal.SIGKILL)
    wait_until(lambda: record.state is RunState.NOT_RESPONDING, "nobody holds the lock")
    wait_until(lambda: not RunProcesses(record).all(), "its processes are gone")
    assert "up\n" in log(record, 3)
    record.request_cancel()
    assert record.state is RunState.CANCELED
    workspace.store.delete(record)


def test_submitting_leaves_no_zombie_and_no_open_file(workspace: Runs) -> None:
    before = len(os.listdir("/proc/self/fd"))
    record = workspace.run("print(1)")
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert record.state is RunState.COMPLETED


def test_what_a_killed_supervisor_left_is_kept_when_the_run_is_cancelled(
    workspace: Runs,
) -> None:
    record = workspace.submit(
        """
        import time
        open("outputs/model.txt", "w").write("weights")
        open("logs/progress.txt", "w").write("half way")
        time.sleep(600)
        """
    )
    progress = record.file(wire.WORK, "logs", "progress.txt")
    wait_until(lambda: os.path.exists(progress), "the outputs are written")
    supervisor = RunProcesses(record).supervisor()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: record.state is RunState.NOT_RESPONDING, "the run looks abandoned")
    record.request_cancel()
    assert record.state is RunState.CANCELED, story(record)
    names = [artifact.name for artifact in record.artifacts()]
    assert {"outputs/model.txt", "logs/progress.txt"} <= set(names)
    assert os.path.exists(record.file(wire.ARTIFACT_INDEX))
