"""The command line on live runs: follow, exec, shell, cancel, exit codes."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.testing.leaks import nothing_left

PROGRAM = [sys.executable, "-m", "simgrid_ml"]
FLAGS = ["--interpreter", sys.executable, "--plain", "--nodes", "2"]

UNTIL_TOLD = """\
import os, sys, time
print("up on", os.environ["SIMGRID_ML_NODE"], flush=True)
while not os.path.exists("enough"):
    time.sleep(0.02)
print("down", flush=True)
"""


def program(
    *words: str, cwd: Path, given: str | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PROGRAM, *words],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False, input=given,
    )  # fmt: skip
    assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    ours = [line for line in done.stderr.splitlines() if line.startswith("Traceback")]
    assert not ours, done.stderr
    return done


@contextmanager
def live_run(tmp_path: Path) -> Iterator[RunRecord]:
    """A run of two nodes whose script is up, until the block ends."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "wait.py").write_text(UNTIL_TOLD)
    with nothing_left(str(tmp_path)):
        run_id = program("run", "-d", *FLAGS, "src/wait.py", cwd=tmp_path).stdout.strip()
        record = RunStore.of_workspace("local").open(run_id)
        follower = subprocess.Popen(
            [*PROGRAM, "runs", "logs", "-f", run_id], stdout=subprocess.PIPE, text=True
        )
        assert follower.stdout is not None
        with follower:
            up = {follower.stdout.readline() for _ in range(2)}
            assert up == {"[0] up on node0\n", "[1] up on node1\n"}
            try:
                yield record
            finally:
                Path(record.file("work", "enough")).touch()
                rest = follower.communicate(timeout=60)[0]
        assert "[0] down\n" in rest
        assert "[1] down\n" in rest
        assert record.state is RunState.COMPLETED


def test_exec_reaches_into_the_node_that_was_named(tmp_path: Path) -> None:
    with live_run(tmp_path) as record:
        script = 'cat; echo "$SIMGRID_ML_NODE"; echo oops >&2; pwd; exit 7'
        words = ["exec", "latest", "node1", "--", "sh", "-c", script]
        done = program(*words, cwd=tmp_path, given="through stdin\n", code=7)
        assert done.stdout == f"through stdin\nnode1\n{record.file('work')}\n"
        assert done.stderr == "oops\n"
        size = 3_000_000
        words = ["exec", "latest", "node0", "head", "-c", str(size), "/dev/zero"]
        assert len(program(*words, cwd=tmp_path).stdout) == size
        program("exec", "latest", "node0", "no-such-program", cwd=tmp_path, code=127)
        done = program("exec", "latest", "node7", "true", cwd=tmp_path, code=2)
        assert "node0, node1" in done.stderr
        assert not [n for n in os.listdir(record.file("tmp")) if n.startswith("exec-")]


class Terminal:
    """A program of ours on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [*PROGRAM, *words])
        self._seen = b""

    def until(self, text: bytes) -> None:
        """Read until ``text`` has come."""
        while text not in self._seen:
            ready = select.select([self.fd], [], [], 30)[0]
            assert ready, f"no {text!r} in {self._seen!r}"
            self._seen += os.read(self.fd, 4096)
        self._seen = self._seen.partition(text)[2]

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def wait(self) -> int:
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:  # the other side of the terminal is closed
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_shell_runs_on_the_node_with_a_terminal_of_its_own(tmp_path: Path) -> None:
    with live_run(tmp_path):
        terminal = Terminal("shell", "latest", "node1")
        terminal.until(b"ends with the run")
        terminal.type(b"test -t 0 && echo on $SIMGRID_ML_NODE, terminal-$((40 + 2))\n")
        terminal.until(b"on node1, terminal-42")
        terminal.type(b"exit 3\n")
        assert terminal.wait() == 3


def test_ctrl_c_reaches_the_command_on_the_node(tmp_path: Path) -> None:
    script = (
        "trap 'echo caught-$((1 + 1)); exit 4' INT; echo ready-$((1 + 1)); "
        "while :; do sleep 0.05; done"
    )
    with live_run(tmp_path):
        terminal = Terminal("exec", "--tty", "latest", "node0", "--", "sh", "-c", script)
        terminal.until(b"ready-2")
        terminal.type(b"\x03")
        terminal.until(b"caught-2")
        assert terminal.wait() == 4


@pytest.mark.parametrize(
    ("script", "code"), [("print('fine')", 0), ("raise SystemExit(3)", 1), ("1 / 0", 1)]
)
def test_the_exit_code_tells_how_the_job_ended(tmp_path: Path, script: str, code: int) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "job.py").write_text(script)
    with nothing_left(str(tmp_path)):
        done = program("run", *FLAGS, "--json", "src/job.py", cwd=tmp_path, code=code)
        told = json.loads(done.stdout)
        assert told["exit_code"] == code
        assert told["state"] == ("Completed" if code == 0 else "Failed")
        if code:
            assert "exited with code" in told["error"]["cause"]


def test_a_run_that_exceeds_its_time_is_cancelled_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "wait.py").write_text(UNTIL_TOLD)
    with nothing_left(str(tmp_path)):
        words = ["run", *FLAGS, "--max-run", "1", "src/wait.py"]
        done = program(*words, cwd=tmp_path, code=1)
        assert "Canceled" in done.stdout
        assert "max_run_duration_seconds of 1 s exceeded" in done.stdout


def test_a_refused_job_leaves_no_run(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("")
    program("cluster", "create", "one", "--max-nodes", "1", cwd=tmp_path)
    done = program("run", "--cluster", "one", "--nodes", "2", "job.py", cwd=tmp_path, code=2)
    assert "only has 1 maximum nodes" in done.stderr
    assert json.loads(program("runs", "list", "--json", cwd=tmp_path).stdout) == []
