"""``doctor``, ``clean``, ``python``, ``exec``: the commands that look at this host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_support import COMPLETED, CommandLine, cli

from simgrid_ml import wire
from simgrid_ml.backends import engine_api
from simgrid_ml.backends.container import LABELS
from simgrid_ml.backends.process import shared_folder
from simgrid_ml.cli import clean, doctor
from simgrid_ml.cli.doctor import Answer
from simgrid_ml.errors import UsageError
from simgrid_ml.node import isolation
from simgrid_ml.record.run import RunLock, RunState

__all__ = ["cli"]


def test_doctor_answers_every_check_and_gives_a_remedy_for_each_no(cli: CommandLine) -> None:
    told = cli("doctor", "--json").json
    checks = {one["check"]: one for one in told["checks"]}
    assert {"Python", "uv", "isolation of nodes", "inotify", "cache", "Open MPI settings"} <= set(
        checks
    )
    for one in told["checks"]:
        assert one["answer"] in ("yes", "limited", "no")
        assert one["found"]
        assert one["remedy"] or one["answer"] == "yes"
    assert checks["Open MPI settings"]["answer"] == "yes"
    assert told["ok"] == all(one["answer"] != "no" for one in told["checks"])


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("limited", 0), ("no", 5)])
def test_doctor_fails_only_when_runs_would(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter([Answer("x", answer, "y", "do z")]),))
    said = cli("doctor")
    assert said.code == code
    assert "x: y\n    Try: do z\n" in said.out


def test_a_check_that_crashes_is_a_no(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "CHECKS", (crash,))
    assert cli("doctor", "--json").json["checks"][0]["answer"] == "no"


def test_doctor_notices_that_an_open_mpi_setting_is_missing(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "settings_in_force", lambda: {"btl": "self,sm,tcp"})
    answers = {one.check: one for one in doctor.examine()}
    assert answers["Open MPI settings"].answer == "no"
    assert "bind-to" in answers["Open MPI settings"].found


def test_doctor_says_what_is_lost_without_compiler(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    answers = {one.check: one for one in doctor.examine()}
    assert (answers["C++ compiler"].answer, answers["C++ compiler"].remedy) == (
        "no",
        "apt-get install g++",
    )


@pytest.mark.parametrize(("cap", "found"), [("hostname", "own hostname only"), ("none", "none")])
def test_doctor_answers_for_the_isolation_that_is_wanted(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, cap: str, found: str
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", cap)
    answer = next(one for one in doctor.examine() if one.check == "isolation of nodes")
    assert answer.answer == "limited"
    assert f"SIMGRID_ML_ISOLATION is {cap}" in answer.found
    if doctor.isolation_of_nodes()[0] or cap == "none":
        assert answer.found.startswith(found)


def test_a_cap_of_isolation_that_is_unknown_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", "much")
    with pytest.raises(UsageError, match="'much'"):
        doctor.isolation_of_nodes()


@pytest.fixture
def shared(cli: CommandLine, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """Makes the shared memory of a run's nodes, as a killed nursery leaves it."""

    def make(run_dir: str) -> str:
        folder = shared_folder(run_dir)
        request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
        isolation.shared_folders(folder, os.path.join(run_dir, wire.TMP, "node0"))
        return folder

    return make


def test_clean_removes_the_shared_memory_of_runs_that_are_over(cli: CommandLine, shared) -> None:  # type: ignore[no-untyped-def]
    ended = shared(cli.run("digits_a", *COMPLETED).path)
    gone = shared(str(cli.home / "workspaces" / "local" / "runs" / "gone"))
    live = cli.run("digits_b", RunState.PREPARING)
    lock = RunLock.take(live.path)
    assert lock is not None
    kept = shared(live.path)
    found = cli("clean", "--json").json["found"]
    assert sorted((one["kind"], one["path"]) for one in found) == sorted(
        [("memory", ended), ("memory", gone)]
    )
    assert cli("clean", "--yes").code == 0
    assert [os.path.exists(path) for path in (ended, gone, kept)] == [False, False, True]
    lock.close()


def test_a_cleaned_host_has_nothing_to_clean(cli: CommandLine) -> None:
    cli.run("digits_a", *COMPLETED)
    assert cli("clean").out == "Nothing is left behind.\n"
    assert cli("clean", "--json").json == {"found": [], "removed": False}


def test_clean_does_not_promise_what_it_could_not_see(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    said = cli("clean")
    assert said.code == 5
    assert "Nothing is left" not in said.out
    unseen = f"containers were not looked at: the container engine at unix://{tmp_path}/no.sock"
    assert unseen in said.err
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setattr(engine_api, "_usual_sockets", lambda: [f"{tmp_path}/none.sock"])
    said = cli("clean")
    assert (said.code, said.out) == (0, "Nothing is left behind.\n")


def test_a_container_that_cannot_be_removed_keeps_no_other(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(cli.home / "workspaces" / "local" / "runs" / "gone")
    there = ["stuck", "other"]

    class Stuck(engine_api.Engine):
        def version(self) -> dict[str, str]:
            return {}

        def containers(self, *labels: str) -> list[dict[str, Any]]:
            if labels != (LABELS.DIRECTORY,):
                return []
            return [
                {"Id": one, "Names": [f"/{one}"], "Labels": {LABELS.DIRECTORY: directory}}
                for one in there
            ]

        def remove(self, container: str) -> None:
            if container == "stuck":
                raise engine_api.EngineError("it is stuck", status=500)
            there.remove(container)

    monkeypatch.setattr(clean, "Engine", Stuck)
    monkeypatch.setenv("DOCKER_HOST", "unix:///engine.sock")
    said = cli("clean", "--yes")
    assert there == ["stuck"]
    assert said.code == 5 and "1 of 2 leftovers could not be removed" in said.err
    assert "container stuck" in said.err


@pytest.fixture
def labelled(cli: CommandLine):  # type: ignore[no-untyped-def]
    """Starts processes that carry the label of a run directory."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run_dir: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"],
            env={**os.environ, wire.RUN_DIR_VARIABLE: run_dir},
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_clean_lists_first_and_removes_when_told(cli: CommandLine, labelled) -> None:  # type: ignore[no-untyped-def]
    record = cli.run("digits_a", RunState.PREPARING)
    os.makedirs(record.file(wire.TMP, "node0"))
    Path(record.file(wire.SOCKET)).touch()
    orphan = labelled(record.path)
    of_deleted_run = labelled(str(cli.home / "workspaces" / "local" / "runs" / "gone"))
    found = cli("clean", "--json").json["found"]
    assert sorted(one["kind"] for one in found) == ["file", "file", "process", "process", "run"]
    assert {one["pid"] for one in found if "pid" in one} == {orphan.pid, of_deleted_run.pid}
    assert "simgrid-ml clean --yes" in cli("clean").out
    assert orphan.poll() is None
    assert cli("clean", "--yes").code == 0
    assert orphan.wait() == -15
    assert of_deleted_run.wait() == -15
    assert record.state is RunState.CANCELED
    assert not os.path.exists(record.file(wire.TMP))
    assert not os.path.exists(record.file(wire.SOCKET))
    assert cli("clean").out == "Nothing is left behind.\n"


def test_clean_spares_live_runs_and_other_homes(cli: CommandLine, labelled, tmp_path) -> None:  # type: ignore[no-untyped-def]
    record = cli.run("digits_a", RunState.PREPARING)
    os.makedirs(record.file(wire.TMP))
    lock = RunLock.take(record.path)
    assert lock is not None
    labelled(record.path)
    labelled(str(tmp_path / "other" / "runs" / "x"))
    assert cli("clean", "--json").json["found"] == []
    lock.close()


def test_python_runs_a_driver_with_the_stand_in_first(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(
        "import sys, os\nprint(sys.argv, [p for p in sys.path if p.endswith('shim')])\nsys.exit(3)"
    )
    done = subprocess.run(
        [sys.executable, "-m", "simgrid_ml", "python", "driver.py", "--help", "-x"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3
    assert "['driver.py', '--help', '-x']" in done.stdout
    assert "simgrid_ml/shim'" in done.stdout


def test_exec_into_a_run_that_is_over_says_so(cli: CommandLine) -> None:
    cli.run("digits_a", *COMPLETED)
    said = cli("exec", "latest", "node0", "--", "true")
    assert said.code == 2
    assert "has no nodes: it is Completed" in said.err


def test_a_shell_without_a_terminal_is_refused(cli: CommandLine) -> None:
    cli.run("digits_a", *COMPLETED)
    said = cli("shell", "latest")
    assert said.code == 2
    assert "simgrid-ml exec latest node0" in said.err
