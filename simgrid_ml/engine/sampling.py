"""What the ranks were given of the host while they ran, from counters that the kernel keeps.

Only differences between two looks count, so a look costs some milliseconds and keeps nothing. All
of it is read from ``/proc`` and the control groups themselves: psutil would take 60 ms to import
and has neither run-queue delays nor throttling.

How busy the cores are says nothing here: ranks of MPI poll, so they are always busy.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from simgrid_ml import wire
from simgrid_ml.checks.fidelity import LIMITS
from simgrid_ml.engine import cgroups
from simgrid_ml.engine.course import MOST_EVENTS, Course

__all__ = ["Sampler"]

_SHARES = ("foreign", "steal")
"""What is a share of all cores, and so never more than all of them."""
_TRIES = 4
"""So often a new process is asked whether it is a rank: it may not have become one yet."""


def _amount(told: Mapping[str, float]) -> float:
    return told["mean"] * told["window_s"]


class _Process(NamedTuple):
    parent: int
    name: bytes
    born: int
    cpu_s: float  # with that of the children it has waited for
    children_s: float  # that alone


class Sampler:
    """Looks at the host and at one run's processes.

    Args:
        tasks: the node of each task.
        agents: process id of each node's agent as this process sees it; 0: it cannot.
        root: the run's supervisor, whose descendants all belong to the run.
        proc: where ``/proc`` is.
        now: a clock in seconds.
    """

    def __init__(
        self,
        tasks: Mapping[str, str],
        agents: Mapping[str, int],
        *,
        root: int | None = None,
        proc: str = "/proc",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._agents = agents
        self._root = os.getpid() if root is None else root
        self._proc = proc
        self._now = now
        self._mounts = cgroups.mounts(proc)
        self._courses: dict[tuple[str, str], Course] = {}
        self._groups: dict[str, set[str]] = {node: set() for node in tasks.values()}
        self._known: dict[tuple[int, int, bytes], tuple[int, str]] = {}
        self._ranks: dict[tuple[int, int], str] = {}  # every process of a task, by id and birth
        self._ours: dict[int, _Process] = {}  # at the last look
        self._buried_s = 0.0  # CPU time of ours that no living process of ours has counted
        self._begun: float | None = None
        self._begun_at = time.time()
        self._hidden = any(pid <= 0 for pid in agents.values())
        self.looks = 0
        self.cost_s = 0.0

    def look(self) -> float:
        """Read all counters; returns what that cost, in seconds of CPU time."""
        begun = time.thread_time()
        moment = self._now()
        if self._begun is None:
            self._begun = moment
        processes = self._processes()
        ours = self._find_ours(processes)
        self._bury(processes)
        self._ours = {pid: processes[pid] for pid in ours}
        ours_s = self._buried_s + sum(process.cpu_s for process in self._ours.values())
        self._look_at_host(moment, ours_s)
        self._forget(processes)
        self._find_ranks(processes, ours)
        for (pid, _), task in self._ranks.items():
            self._look_at_rank(moment, task, pid, processes)
        self._look_at_groups(moment, processes)
        cost = time.thread_time() - begun
        self.looks += 1
        self.cost_s += cost
        return cost

    def summary(self) -> dict[str, Any]:
        """What was seen, as ``fidelity.json`` has it."""
        host: dict[str, Any] = {"cores": self._cores(), "looks": self.looks}
        host["looking_cpu_s"] = round(self.cost_s, 4)
        nodes: dict[str, dict[str, Any]] = {node: {} for node in self._groups}
        ranks: dict[str, dict[str, Any]] = {}
        events = []
        for (what, where), course in self._courses.items():
            if not course.window_s:
                continue  # seen once: there is nothing to compare with
            told = course.to_json()
            places = self._told_in(where, host, nodes, ranks)
            for place in places:
                if what not in place or _amount(place[what]) < _amount(told):
                    place[what] = told
            for since, until, worst in course.events:
                label = where.partition(" ")[0] if what == "waiting" else where or "the host"
                told_of = {"what": what, "where": label, "worst": round(worst, 4)}
                offset = self._begun or 0.0
                times = {"from_s": round(since - offset, 2), "to_s": round(until - offset, 2)}
                events.append({**told_of, **times})
        events.sort(key=lambda event: (event["from_s"], event["what"]))
        unseen = ["who else used the cores: the nodes' processes are elsewhere"] * self._hidden
        return {
            "begun": self._begun_at,
            "host": host,
            "nodes": nodes,
            "ranks": ranks,
            "events": events[:MOST_EVENTS],
            "unseen": unseen,
        }

    # -- looking -----------------------------------------------------------------------------
    def _see(self, what: str, where: str, moment: float, value: float) -> None:
        key = (what, where)
        if key in self._courses:
            self._courses[key].see(moment, value)
        else:
            limit = LIMITS[what]
            most = 1.0 if what in _SHARES else math.inf
            self._courses[key] = Course(moment, value, limit.degraded, limit.invalid, most)

    def _look_at_host(self, moment: float, ours_s: float) -> None:
        ticks = [int(word) for word in self._text("stat").partition("\n")[0].split()[1:9]]
        hertz, cores = os.sysconf("SC_CLK_TCK"), self._cores()
        if len(ticks) == 8 and cores:
            # Interrupts are left out: the kernel adds most of their time to whom they meet.
            busy_s = (ticks[0] + ticks[1] + ticks[2]) / hertz
            if not self._hidden:
                self._see("foreign", "", moment, (busy_s - ours_s) / cores)
            self._see("steal", "", moment, ticks[7] / hertz / cores)
        stalled = cgroups.memory_stall_s(os.path.join(self._proc, "pressure", "memory"))
        if stalled is not None:
            self._see("stalled", "", moment, stalled)
        pages = [
            int(line.partition(" ")[2])
            for line in self._text("vmstat").splitlines()
            if line.startswith(("pswpin ", "pswpout "))
        ]
        self._see("swapped", "", moment, sum(pages) * os.sysconf("SC_PAGE_SIZE"))

    def _look_at_rank(
        self, moment: float, task: str, pid: int, processes: Mapping[int, _Process]
    ) -> None:
        words = self._text(str(pid), "schedstat").split() if pid in processes else []
        if len(words) == 3:
            where = f"{task} {pid}"
            if ("waiting", where) not in self._courses:  # it has not waited before it was born
                self._see("waiting", where, moment - self._age_s(processes[pid]), 0.0)
            self._see("waiting", where, moment, int(words[1]) / 1e9)

    def _look_at_groups(self, moment: float, processes: Mapping[int, _Process]) -> None:
        members = [(node, pid) for node, pid in self._agents.items() if pid in processes]
        members += [
            (self._tasks[task], pid) for (pid, _), task in self._ranks.items() if pid in processes
        ]
        seen: set[str] = set()
        for node, pid in members:
            cpu = cgroups.folders("cpu", pid, self._mounts, self._proc)
            memory = cgroups.folders("memory", pid, self._mounts, self._proc)
            self._groups[node].update(cpu, memory)
            for folder in cpu:
                if f"cpu {folder}" not in seen:
                    seen.add(f"cpu {folder}")
                    quota = cgroups.bandwidth(folder)
                    if quota is not None:
                        self._see("throttled", folder, moment, quota.stopped_s)
            for folder in memory:
                if f"memory {folder}" not in seen:
                    seen.add(f"memory {folder}")
                    hits = cgroups.limit_hits(folder)
                    if hits is not None:
                        self._see("limited", folder, moment, hits)
                    stalled = cgroups.memory_stall_s(os.path.join(folder, "memory.pressure"))
                    if stalled is not None:
                        self._see("stalled", folder, moment, stalled)

    # -- processes ---------------------------------------------------------------------------
    def _processes(self) -> dict[int, _Process]:
        found = {}
        hertz = os.sysconf("SC_CLK_TCK")
        for entry in os.listdir(self._proc):
            if not entry.isdigit():
                continue
            try:
                with open(f"{self._proc}/{entry}/stat", "rb") as stream:
                    before, _, after = stream.read().rpartition(b")")
            except OSError:
                continue  # it has ended
            fields = after.split()
            cpu_s = sum(map(int, fields[11:15])) / hertz
            children_s = sum(map(int, fields[13:15])) / hertz
            name = before.partition(b"(")[2]
            found[int(entry)] = _Process(int(fields[1]), name, int(fields[19]), cpu_s, children_s)
        return found

    def _find_ours(self, processes: Mapping[int, _Process]) -> set[int]:
        """The descendants of root and agents; who was one stays one, whoever adopts it."""
        children: dict[int, list[int]] = {}
        for pid, process in processes.items():
            children.setdefault(process.parent, []).append(pid)
        ours: set[int] = set()
        todo = [pid for pid in (self._root, *self._agents.values()) if pid in processes]
        todo += [pid for pid in self._ours if self._lives(pid, processes)]
        while todo:
            pid = todo.pop()
            if pid not in ours:
                ours.add(pid)
                todo += children.get(pid, [])
        return ours

    def _lives(self, pid: int, processes: Mapping[int, _Process]) -> bool:
        return pid in processes and processes[pid].born == self._ours[pid].born

    def _bury(self, processes: Mapping[int, _Process]) -> None:
        """Keep the time of those that have ended and were not waited for: nobody else has it.

        The kernel adds the time of a child to its parent's when that one waits for it, and drops
        it when the parent ignores SIGCHLD.
        """
        ended: dict[int, float] = {}  # CPU time in seconds, by who could have waited for it
        for pid, process in self._ours.items():
            if not self._lives(pid, processes):
                heir = process.parent
                while heir in self._ours and not self._lives(heir, processes):
                    heir = self._ours[heir].parent
                ended[heir] = ended.get(heir, 0.0) + process.cpu_s
        for heir, spent_s in ended.items():
            grown_s = 0.0
            if heir in self._ours:
                grown_s = processes[heir].children_s - self._ours[heir].children_s
            self._buried_s += max(0.0, spent_s - grown_s)

    def _forget(self, processes: Mapping[int, _Process]) -> None:
        """Of the processes of a task that have ended, only the one that waited most is kept."""
        for pid, born, name in list(self._known):
            if pid not in processes or processes[pid][1:3] != (name, born):
                del self._known[pid, born, name]
        for (pid, born), task in list(self._ranks.items()):
            if pid in processes and processes[pid].born == born:
                continue
            del self._ranks[pid, born]
            course = self._courses.pop(("waiting", f"{task} {pid}"), None)
            if course is None:
                continue
            kept = self._courses.setdefault(("waiting", f"{task} ended"), course)
            if _amount(kept.to_json()) < _amount(course.to_json()):
                self._courses["waiting", f"{task} ended"] = course

    def _find_ranks(self, processes: Mapping[int, _Process], ours: set[int]) -> None:
        """Ranks are known by a variable, as each node counts its processes from 1."""
        for pid in ours:
            process = processes[pid]
            key = (pid, process.born, process.name)
            tries, task = self._known.get(key, (0, ""))
            if not task and tries < _TRIES:
                self._known[key] = (tries + 1, task := self._task_of(pid))
            if task in self._tasks:
                self._ranks[pid, process.born] = task

    def _task_of(self, pid: int) -> str:
        wanted = f"{wire.TASK_VARIABLE}="
        for variable in self._text(str(pid), "environ").split("\0"):
            if variable.startswith(wanted):
                return variable[len(wanted) :]
        return ""

    # -- small things ------------------------------------------------------------------------
    def _told_in(
        self,
        where: str,
        host: dict[str, Any],
        nodes: dict[str, dict[str, Any]],
        ranks: dict[str, dict[str, Any]],
    ) -> list[dict[str, Any]]:
        if not where:
            return [host]
        task = where.partition(" ")[0]
        if task in self._tasks:  # of its processes, the one that waited most tells
            return [ranks.setdefault(task, {})]
        return [nodes[node] for node, groups in self._groups.items() if where in groups]

    def _age_s(self, process: _Process) -> float:
        up = self._text("uptime").partition(" ")[0]
        return max(0.0, float(up or 0.0) - process.born / os.sysconf("SC_CLK_TCK"))

    def _cores(self) -> int:
        return sum(line.startswith("cpu") for line in self._text("stat").splitlines()) - 1

    def _text(self, *path: str) -> str:
        try:
            with open(os.path.join(self._proc, *path), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""
