"""Finds the processes of a run on this host by their role, and waits for what is to become true.

A process belongs to a run when its command line or its environment names the run's directory.
Processes inside virtual nodes are seen too: process-id namespaces nest, the host sees them all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from simgrid_ml import wire
from simgrid_ml.record.run import RunRecord

__all__ = ["HostProcess", "RunProcesses", "host_processes", "wait_until"]

T = TypeVar("T")
_LOOK_S = 0.01


def wait_until(condition: Callable[[], T], what: str, deadline_s: float = 30.0) -> T:
    """The first true value of ``condition``.

    Raises:
        AssertionError: it stayed false for ``deadline_s`` seconds; names ``what`` was awaited.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s in vain until {what}"
        time.sleep(_LOOK_S)


@dataclass(frozen=True)
class HostProcess:
    """A process as the host sees it; zombies are none."""

    pid: int
    parent: int
    argv: tuple[str, ...]
    environment: dict[str, str]

    @property
    def node(self) -> str | None:
        """The virtual node it was spawned on."""
        return self.environment.get(wire.NODE_VARIABLE)

    def runs(self, *names: str) -> bool:
        """Whether its program, or the script of its interpreter, has one of these file names."""
        return any(os.path.basename(word) in names for word in self.argv[:6])


def host_processes() -> Iterator[HostProcess]:
    """Every process that this user may look into."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
            with open(f"/proc/{entry}/cmdline", "rb") as stream:
                argv = stream.read().split(b"\0")[:-1]
            with open(f"/proc/{entry}/environ", "rb") as stream:
                pairs = (item.partition(b"=") for item in stream.read().split(b"\0") if item)
                environment = {os.fsdecode(name): os.fsdecode(text) for name, _, text in pairs}
        except OSError:  # ended while we looked, or another user's
            continue
        if fields[0] not in (b"Z", b"X"):
            words = tuple(os.fsdecode(word) for word in argv)
            yield HostProcess(int(entry), int(fields[1]), words, environment)


class RunProcesses:
    """The processes of ``record``, looked up anew by every call."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record

    def all(self) -> list[HostProcess]:
        path = self._record.path
        return [
            process
            for process in host_processes()
            if process.environment.get(wire.RUN_DIR_VARIABLE) == path or path in process.argv
        ]

    def supervisor(self) -> int:
        return self._first("the supervisor", lambda p: "simgrid_ml.engine.supervisor" in p.argv)

    def nursery(self) -> int:
        """The process that all agents were forked from."""
        supervisor = self.supervisor()
        return self._first("the nursery", lambda p: p.parent == supervisor and p.runs("agent.py"))

    def agent(self, node: str) -> int:
        """The agent of ``node``, known as the parent of what it spawned there."""

        def find() -> int | None:
            processes = {process.pid: process for process in self.all()}
            for process in processes.values():
                parent = processes.get(process.parent)
                if process.node == node and parent is not None and parent.runs("agent.py"):
                    return parent.pid
            return None

        return wait_until(find, f"something runs on {node}") or 0

    def mpirun(self) -> int:
        return self._first("mpirun", lambda p: p.runs("mpirun", "prterun"))

    def daemon(self, node: str) -> int:
        """Open MPI's daemon on a node other than the first."""
        return self._first(
            f"prted on {node}",
            lambda p: p.node == node and os.path.basename(p.argv[0]) == "prted",
        )

    def task(self, name: str) -> int:
        """The user's program of a task: ``rank-3``, ``ps-0``."""
        return self._first(name, lambda p: p.environment.get(wire.TASK_VARIABLE) == name)

    def watcher(self, name: str) -> int:
        """The process that watches a task."""
        pid = self.task(name)
        return next(process.parent for process in self.all() if process.pid == pid)

    def _first(self, what: str, fits: Callable[[HostProcess], bool]) -> int:
        def find() -> int | None:
            return next((process.pid for process in self.all() if fits(process)), None)

        return wait_until(find, f"{what} runs") or 0
