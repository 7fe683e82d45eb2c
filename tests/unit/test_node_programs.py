"""The rank wrapper and the remote-shell client, in Python and in C: both do the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.native import PACKAGE, compiled
from simgrid_ml.node.task import TaskFile
from simgrid_ml.record.journal import read_journal

KINDS = ["python", "c"] if shutil.which("cc") or shutil.which("gcc") else ["python"]
NAMES = ("rank", "rsh")
Program = Callable[[str], list[str]]

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Program]:
    found: dict[str, Program] = {
        "python": lambda name: [sys.executable, "-I", "-S", f"{PACKAGE}/node/{name}.py"]
    }
    if "c" in KINDS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SIMGRID_ML_CACHE", str(tmp_path_factory.mktemp("cache")))
            paths = {
                name: compiled(f"node/{name}.c", "-Wall", "-Wextra", "-Werror") for name in NAMES
            }
        found["c"] = lambda name: [paths[name]]
    return found


@pytest.fixture(params=KINDS)
def program(request: pytest.FixtureRequest, programs: dict[str, Program]) -> Program:
    found: Program = programs[request.param]
    return found


class Task:
    """A run directory with one task; ``run`` executes it under the wrapper."""

    def __init__(self, folder: Path, wrapper: list[str]) -> None:
        self.folder = folder / "run with 'quotes'\nand a newline"
        self.wrapper = wrapper
        for name in ("launch", "tasks", "work"):
            (self.folder / name).mkdir(parents=True)
        self.log = self.folder / "log.txt"
        self.journal = self.folder / "tasks" / "rank-3.jsonl"

    def start(self, words: list[str], **fields: Any) -> subprocess.Popen[bytes]:
        variables = fields.pop("variables", {})
        file = TaskFile(
            **{
                "journal": str(self.journal),
                "log": str(self.log),
                "cwd": str(self.folder / "work"),
                "min_life_s": 0.0,
                "rank": 3,
                "local_rank": 1,
                "world_size": 4,
                "literal": 0,
                "words": words,
                "variables": variables,
                **fields,
            }
        )
        (self.folder / "launch" / "rank-3").write_bytes(file.encode())
        environment = {"PATH": os.environ["PATH"], "SIMGRID_ML_NODE": "node1", "FROM_NODE": "n"}
        environment["OMPI_COMM_WORLD_RANK"] = "3"
        return subprocess.Popen(
            [*self.wrapper, str(self.folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, words: list[str], **fields: Any) -> int:
        with self.start(words, **fields) as process:
            said, _ = process.communicate(timeout=30)
        assert said == b"", "the wrapper itself is silent"
        return process.returncode

    def events(self) -> list[dict[str, Any]]:
        return read_journal(str(self.journal))


@pytest.fixture
def task(tmp_path: Path, program: Program) -> Task:
    return Task(tmp_path, program("rank"))


@given(st.lists(text), st.dictionaries(text.filter(lambda t: t and "=" not in t), text))
def test_a_task_file_gives_back_what_was_written(
    words: list[str], variables: dict[str, str]
) -> None:
    file = TaskFile("/j", "/l", "/c", 0.3, 1, 0, 2, 1, words, variables)
    assert TaskFile.decode(file.encode()) == file


def test_a_task_file_refuses_what_no_process_can_be_given() -> None:
    with pytest.raises(ValueError, match="NUL"):
        TaskFile("/j", "/l", "/c", 0.3, 1, 0, 2, 1, ["a\0b"], {}).encode()


def test_the_program_gets_its_words_folder_log_and_variables(task: Task) -> None:
    show = (
        "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), "
        "os.environ['MINE'], os.environ['FROM_NODE'], sys.stdin.read()]))"
    )
    words = [sys.executable, "-c", show, "a b", 'quo"te', "ü", "", "line\nbreak"]
    assert task.run(words, variables={"MINE": "x=y z"}) == 0
    assert json.loads(task.log.read_text()) == [
        words[3:],
        str(task.folder / "work"),
        "x=y z",
        "n",
        "",
    ]


def test_names_in_words_stand_for_the_variables_of_the_task(task: Task) -> None:
    words = [
        "printf",
        "%s\\n",
        "$MINE",
        "a${MINE}b$FROM_NODE.",
        "$NONE",
        "${NONE}",
        "$",
        "${",
        "$1",
    ]
    words += ["${MINE", "$MINEü", "$ü", "\\$MINE"]
    assert task.run(words, variables={"MINE": "me"}, literal=2) == 0
    assert task.log.read_text().splitlines() == [
        *("me", "ameb" + "n.", "$NONE", "${NONE}", "$", "${", "$1"),
        *("${MINE", "meü", "$ü", "\\me"),
    ]


def test_the_first_words_are_taken_as_they_are(task: Task) -> None:
    assert task.run(["echo", "$MINE", "$MINE"], variables={"MINE": "me"}, literal=2) == 0
    assert task.log.read_text() == "$MINE me\n"


def test_start_and_end_are_journalled(task: Task) -> None:
    assert task.run(["sh", "-c", "exit 3"]) == 3
    start, end = task.events()
    assert start.pop("t") <= end.pop("t")
    assert start.pop("pid") > 1
    assert start == {
        "event": "started",
        "rank": 3,
        "local_rank": 1,
        "world_size": 4,
        "node": "node1",
        "hostname": os.uname().nodename,
        "affinity": sorted(os.sched_getaffinity(0)),
    }
    assert end.pop("duration_s") >= 0
    assert end == {"event": "ended", "code": 3, "signal": None}


def test_the_start_is_journalled_before_the_program_says_anything(task: Task) -> None:
    assert task.run(["cat", str(task.journal)]) == 0
    assert json.loads(task.log.read_text())["event"] == "started"


def test_a_torn_line_of_a_killed_predecessor_swallows_nothing(task: Task) -> None:
    task.journal.write_text('{"event": "star')
    assert task.run(["true"]) == 0
    assert [line["event"] for line in task.events()] == ["started", "ended"]


def test_a_killed_program_is_reported_with_its_signal(task: Task) -> None:
    assert task.run(["sh", "-c", "kill -SEGV $$"]) == 128 + signal.SIGSEGV
    end = task.events()[-1]
    assert (end["code"], end["signal"]) == (None, signal.SIGSEGV)


def test_the_end_of_a_program_is_reported_when_its_whole_group_is_terminated(task: Task) -> None:
    process = task.start(
        ["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"]
    )
    with process:
        deadline = time.monotonic() + 30
        while not task.log.exists() or not task.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 7
    assert task.events()[-1]["code"] == 7


def test_no_task_ends_sooner_than_the_launcher_can_bear(task: Task) -> None:
    begun = time.monotonic()
    assert task.run(["true"], min_life_s=0.2) == 0
    assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize("words", [["no-such-program"], ["/etc/passwd"]])
def test_a_program_that_cannot_be_started_says_so_in_the_log(task: Task, words: list[str]) -> None:
    assert task.run(words) == 127
    assert task.log.read_text().startswith(f"cannot start '{words[0]}': ")
    assert task.events()[-1]["code"] == 127


def test_a_missing_folder_is_named(task: Task) -> None:
    assert task.run(["true"], cwd="/no/such/folder") == 127
    assert "'/no/such/folder'" in task.log.read_text()


def test_programs_do_not_inherit_an_ignored_broken_pipe(task: Task) -> None:
    last_digits = r"s/^SigIgn:.*\(.\{4\}\)$/\1/p"
    assert task.run(["sed", "-n", last_digits, "/proc/self/status"], literal=3) == 0
    assert int(task.log.read_text(), 16) & 1 << signal.SIGPIPE - 1 == 0


# -- rsh -----------------------------------------------------------------------------------
class Supervisor:
    """Answers one request on the control socket of a run directory."""

    def __init__(self, run_dir: Path, answer: bytes) -> None:
        self.run_dir = run_dir
        self.requests: list[Any] = []
        folder = os.open(run_dir, os.O_RDONLY)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(f"/proc/self/fd/{folder}/control.sock")
        os.close(folder)
        self._server.listen()
        self._thread = threading.Thread(target=self._serve, args=(answer,))
        self._thread.start()

    def _serve(self, answer: bytes) -> None:
        connection, _ = self._server.accept()
        with connection, connection.makefile("rb") as stream:
            self.requests.append(json.loads(stream.readline()))
            connection.sendall(answer)

    def ask(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        environment = {"SIMGRID_ML_RUN_DIR": str(self.run_dir)}
        try:
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=30, check=False
            )
        finally:
            self._thread.join(30)
            self._server.close()


@pytest.mark.parametrize("depth", ["", "a long folder name/" * 12])
def test_rsh_asks_the_supervisor_to_run_the_command_through_a_shell(
    tmp_path: Path, program: Program, depth: str
) -> None:
    run_dir = tmp_path / depth
    run_dir.mkdir(parents=True, exist_ok=True)
    supervisor = Supervisor(run_dir, b'{"code": 7}\n')
    words = ["-x", "node3", "export A='1 2' ;", 'prted "x" \\ é\t', "-n", "--y"]
    assert supervisor.ask([*program("rsh"), *words]).returncode == 7
    command = "export A='1 2' ; prted \"x\" \\ é\t --y"
    expected = {"op": "rsh", "node": "node3", "argv": ["/bin/sh", "-c", command]}
    assert supervisor.requests == [expected]


def test_rsh_says_what_the_supervisor_refused(tmp_path: Path, program: Program) -> None:
    answer = b'{"code": 255, "error": "no node \'node9\'; there are: node0"}\n'
    done = Supervisor(tmp_path, answer).ask([*program("rsh"), "node9", "true"])
    assert (done.returncode, done.stderr) == (255, "no node 'node9'; there are: node0\n")


def test_rsh_fails_when_the_supervisor_goes_away(tmp_path: Path, program: Program) -> None:
    assert Supervisor(tmp_path, b"").ask([*program("rsh"), "node1", "true"]).returncode == 255


def test_rsh_fails_where_no_supervisor_is(tmp_path: Path, program: Program) -> None:
    done = subprocess.run(
        [*program("rsh"), "node1", "true"],
        env={"SIMGRID_ML_RUN_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 255
    assert "cannot reach the supervisor" in done.stderr
