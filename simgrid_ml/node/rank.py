"""Starts and outlives one task: ``rank.py RUN_DIR [TASK]``.

What the task runs stands in the run directory (``task.py``), so nothing of the user's (a path
with a newline, an argument with quotes) passes through mpirun or a shell. Where the host has a
compiler, ``rank.c`` does the same in a twentieth of the time. This process

1. works out which task it is, from TASK or from Open MPI's rank;
2. forks a child that opens the task's log as stdout and stderr and becomes the user's program;
3. journals what the task sees of its place and, after it ended, how it ended: a segfault or the
   kernel's OOM killer cannot prevent that;
4. ends with the child's code, never sooner than ``wire.RANK_MIN_LIFE_S`` after its start.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from typing import List, NoReturn

STARTED = time.monotonic()

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from simgrid_ml import wire
from simgrid_ml.node.task import TaskFile
from simgrid_ml.record.journal import Journal


def main(argv: List[str]) -> int:
    run_dir = argv[0]
    name = argv[1] if len(argv) > 1 else "rank-" + os.environ["OMPI_COMM_WORLD_RANK"]
    with open(os.path.join(run_dir, wire.LAUNCH_TASKS, name), "rb") as stream:
        task = TaskFile.decode(stream.read())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    ends = (signal.SIGTERM, signal.SIGINT)
    for number in ends:
        signal.signal(number, lambda *_: None)  # the child gets it as well: same group
    child = os.fork()
    if child == 0:
        for number in ends:
            signal.signal(number, signal.SIG_DFL)
        os.close(ready_write)
        os.read(ready_read, 1)  # not a line of output before the report of the start
        _become(task)
    os.close(ready_read)
    journal = Journal(task.journal)
    journal.append(
        {
            "t": time.time(),
            "event": "started",
            "rank": int(os.environ.get("OMPI_COMM_WORLD_RANK", task.rank)),
            "local_rank": int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", task.local_rank)),
            "world_size": int(os.environ.get("OMPI_COMM_WORLD_SIZE", task.world_size)),
            "node": os.environ.get(wire.NODE_VARIABLE),
            "hostname": os.uname().nodename,
            "pid": child,
            "affinity": sorted(os.sched_getaffinity(0)),
        }
    )
    os.close(ready_write)

    _, status = _wait(child)
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = None if killed_by else os.WEXITSTATUS(status)
    lived = time.monotonic() - STARTED
    try:
        journal.append(
            {
                "t": time.time(),
                "event": "ended",
                "code": code,
                "signal": killed_by,
                "duration_s": round(lived, 6),
            }
        )
    except OSError:
        pass  # a full disk must not hide the code from the launcher
    while lived < task.min_life_s:
        time.sleep(task.min_life_s - lived)
        lived = time.monotonic() - STARTED
    return 128 + killed_by if killed_by else int(code or 0)


def _wait(child: int) -> "tuple[int, int]":
    while True:
        try:
            return os.waitpid(child, 0)
        except InterruptedError:
            continue


def _become(task: TaskFile) -> NoReturn:
    """In the child: the user's program, with its log, folder, arguments and variables."""
    failed = task.log
    try:
        os.environ.update(task.variables)
        log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, children inherit
            signal.signal(number, signal.SIG_DFL)
        failed = task.cwd
        os.chdir(task.cwd)
        words = task.words[: task.literal]
        words += [_expand(word) for word in task.words[task.literal :]]
        failed = words[0]
        os.execvp(words[0], words)
    except OSError as error:
        os.write(2, f"cannot start {failed!r}: {error.strerror}\n".encode())
    os._exit(127)


def _expand(word: str) -> str:
    """``$NAME`` and ``${NAME}`` of the task's own environment; unknown names stay as they are."""
    if "$" not in word:
        return word
    import re

    def value(match: "re.Match[str]") -> str:
        return os.environ.get(match.group(1) or match.group(2), match.group(0))

    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, word, flags=re.ASCII)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
