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
    """Answers one request on the control socket of a run directory.

    Args:
        carries_out: runs the command of the request as an agent does, and answers with its code.
    """

    def __init__(self, run_dir: Path, answer: bytes, *, carries_out: bool = False) -> None:
        self.run_dir = run_dir
        self.carries_out = carries_out
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
            if self.carries_out:
                code = carry_out(self.requests[0]).wait(30)
                connection.sendall(b'{"code": %d}\n' % code)
            else:
                connection.sendall(answer)

    def ask(
        self, command: list[str], typed: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {"SIMGRID_ML_RUN_DIR": str(self.run_dir), **variables}
        try:
            return subprocess.run(
                command,
                env=environment,
                input=typed,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        finally:
            self._thread.join(30)
            self._server.close()


def carry_out(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The command of an ``exec`` request, its streams opened in the order in which agents do."""
    with (
        open(request.get("stdin", os.devnull), "rb") as stdin,
        open(request["stdout"], "ab") as stdout,
        open(request["stderr"], "ab") as stderr,
    ):
        return subprocess.Popen(request["argv"], stdin=stdin, stdout=stdout, stderr=stderr)


@pytest.fixture
def carried_out(tmp_path: Path) -> Supervisor:
    run_dir = tmp_path / "run with 'quotes'\n"
    (run_dir / "tmp").mkdir(parents=True)
    (run_dir / "tmp" / "nodes").write_text("10.1.0.1 node0\n10.1.0.2 node1\n10.1.0.12 node11\n")
    return Supervisor(run_dir, b"", carries_out=True)


@pytest.mark.parametrize("depth", ["", "a long folder name/" * 12])
def test_rsh_asks_the_supervisor_to_run_the_command_through_a_shell(
    tmp_path: Path, program: Program, depth: str
) -> None:
    run_dir = tmp_path / depth
    run_dir.mkdir(parents=True, exist_ok=True)
    supervisor = Supervisor(run_dir, b'{"code": 7}\n')
    words = ["-x", "node3", "export A='1 2' ;", 'prted "x" \\ é\t', "-n", "--y"]
    assert supervisor.ask([*program("rsh"), *words]).returncode == 7
    command = "export A='1 2' ; prted \"x\" \\ é\t -n --y"
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


def test_ssh_carries_the_streams_and_the_code_of_the_command(
    carried_out: Supervisor, program: Program
) -> None:
    command = "read first; echo out $first; echo err >&2; cat; exit 3"
    done = carried_out.ask([*program("rsh"), "--ssh", "node1", command], "one\ntwo\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out one\ntwo\n", "err\n")
    assert carried_out.requests[0]["op"] == "exec"
    assert os.listdir(carried_out.run_dir / "tmp") == ["nodes"], "the pipes are gone"


def test_ssh_carries_more_than_a_pipe_holds_both_ways(
    carried_out: Supervisor, program: Program
) -> None:
    typed = "0123456789abcdef" * 50_000
    done = carried_out.ask([*program("rsh"), "--ssh", "node1", "cat"], typed)
    assert (done.returncode, done.stdout == typed) == (0, True)


def test_ssh_ends_with_a_command_that_does_not_read_its_input(
    carried_out: Supervisor, program: Program
) -> None:
    done = carried_out.ask([*program("rsh"), "--ssh", "node1", "exec <&-; echo bye"], "x" * 500_000)
    assert (done.returncode, done.stdout) == (0, "bye\n")


def test_ssh_does_not_wait_for_what_a_command_leaves_running(
    carried_out: Supervisor, program: Program
) -> None:
    done = carried_out.ask([*program("rsh"), "--ssh", "node1", "sleep 20 & echo $!"])
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "node", "command", "reads"),
    [
        (["node1", "echo", "a  b", "-n"], "node1", "echo a  b -n", True),
        (["-o", "A=b", "-oC=d", "node1", "-p", "22", "-i", "key", "id"], "node1", "id", True),
        (["-nqx", "-tt", "me@node1", "-l", "me", "-4", "id"], "node1", "id", False),
        (["node1", "-o", "ConnectTimeout=10", "--", "-x"], "node1", "-x", True),
        (["10.1.0.2", "id"], "node1", "id", True),
        (["10.1.0.1", "id"], "node0", "id", True),
        (["localhost", "id"], "node7", "id", True),
        (["127.0.0.1", "id"], "node7", "id", True),
        (["elsewhere", "id"], "elsewhere", "id", True),
        (["node1"], "node1", None, True),
    ],
)
def test_ssh_reads_its_options_as_ssh_does(
    carried_out: Supervisor,
    program: Program,
    words: list[str],
    node: str,
    command: str | None,
    reads: bool,
) -> None:
    carried_out.ask([*program("rsh"), "--ssh", *words], "", SIMGRID_ML_NODE="node7")
    (request,) = carried_out.requests
    shell = ["/bin/sh"] if command is None else ["/bin/sh", "-c", command]
    assert (request["node"], request["argv"], "stdin" in request) == (node, shell, reads)


def test_ssh_without_a_host_says_how_it_is_used(tmp_path: Path, program: Program) -> None:
    done = subprocess.run(
        [*program("rsh"), "--ssh", "-p", "22"],
        env={"SIMGRID_ML_RUN_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.split()[:2]) == (255, ["usage:", "ssh"])


def test_ssh_outside_of_a_run_says_so(program: Program) -> None:
    done = subprocess.run(
        [*program("rsh"), "--ssh", "node1", "true"],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "not set" in done.stderr) == (255, True)
