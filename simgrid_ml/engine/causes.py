"""Why a run failed: the first cause, with the task, how it ended and its last lines."""

from __future__ import annotations

import os
import re
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from simgrid_ml.backends.cgroups import MemoryGroup, group_folder
from simgrid_ml.engine.agents import Killed
from simgrid_ml.errors import LaunchError, RunFailed, SimgridError
from simgrid_ml.record.read import tail
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.placement import Placement, Task
from simgrid_ml.units import format_bytes

__all__ = [
    "MemoryKills",
    "all_ended_well",
    "deserted_by_server",
    "first_cause",
    "has_launcher",
    "oom_kills",
]

_ACCUSATION = re.compile(r"process rank (\d+) with PID")
_FULL_BYTES = 2**23  # less than what ended ranks have given back, temporary files and all
_SLACK_S = 0.25
_LOST_A_PEER = re.compile(
    "MPI_ERR_PROC_FAILED|HorovodInternalError|Connection (closed|reset) by peer"
    "|Horovod has been shut down"  # a bare UnknownError in TensorFlow
    # gRPC's words and TensorFlow's
    "|Socket closed|UNAVAILABLE: |UnavailableError|failed to connect to all addresses"
    "|Connection was likely closed"  # the store of torch.distributed
)
_OUR_REMEDY = re.compile(r"\[simgrid-ml\] (\S.*)")
"""What stands in for a part of the cloud writes it below the cloud's own message."""
_MPI_ERR_UNKNOWN = 14
"""What Open MPI ends a rank with whose connection to another was closed."""

_IN_USE = "ddress already in use"  # torch says it in small letters
_ROLES = {"ps": "parameter server"}

_HAS_TO_SERVE = (
    "parameter servers, and the workers of a coordinator, have to serve until the run ends: call "
    "server.join() behind tf.train.Server (the run ends them when the others are done)"
)
_LESS_MEMORY = "use less memory per task, fewer tasks on a node, or a larger VM size or scale"

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGKILL}


class MemoryKills:
    """What the kernel kills for memory from now on.

    Args:
        pids: the agent of every node, as this host sees the process.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._host = oom_kills()
        own = group_folder(os.getpid(), "memory")  # as of nodes without groups of theirs
        folders = {node: group_folder(pid, "memory") for node, pid in pids.items()}
        groups = {
            node: MemoryGroup(folder)
            for node, folder in folders.items()
            if folder not in (None, own)
        }
        self._nodes = {
            node: (group, group.oom_kills())
            for node, group in groups.items()
            if group.limit_bytes is not None
        }

    def limit_exceeded_on(self, node: str) -> int | None:
        """The limit in bytes for which something on ``node`` was killed; None: nothing was."""
        group, before = self._nodes.get(node, (None, 0))
        if group is None or group.oom_kills() <= before:
            return None
        return group.limit_bytes

    def on_this_host(self) -> bool:
        """Whether there was any, of a node or not."""
        return oom_kills() > self._host


def first_cause(
    record: RunRecord,
    placement: Placement,
    logs: Mapping[str, str],
    ended: Mapping[str, int],
    memory: MemoryKills,
    killed: Sequence[Killed] = (),
) -> SimgridError:
    """The error that a run with a failed decisive command ends with.

    Args:
        logs: path of the log of each task, and of each command that has one.
        ended: exit codes of the ended commands (negative: by that signal).
        memory: made before the ranks were started.
        killed: the launcher's processes that somebody killed, in order.
    """
    reports = record.task_reports()
    ends: dict[str, list[_End]] = defaultdict(list)
    for task in placement.tasks:
        if lines := reports.get(task.name):
            how, end = _how(task.name, {line["event"]: line for line in lines})
            ends[how].append(end)
    started = sum(len(group) for group in ends.values())
    if not has_launcher(placement, logs):  # each is watched by itself: the others still run
        ends["silent"] = [end for end in ends["silent"] if end.task in ended]
        ends["failed"] += ends.pop("told to end", [])  # by somebody else, as nobody of ours did
    if killed and all(end.time_s > killed[0].time_s for end in ends["failed"]):
        return _launcher_killed(killed[0], record, placement, logs, memory)
    if started < placement.world_size and not ends["failed"]:
        return _not_started(placement, started, logs, ended)
    serving = {task.name for task in placement.tasks if task.serves}
    left = [end for end in ends["well"] if end.task in serving]
    if left and ends["failed"] and all(_lost_a_peer(end, logs[end.task]) for end in ends["failed"]):
        return _lost_a_server(placement, min(left, key=_time).task, ends["failed"], logs)
    ends["failed"] = _causes_first(ends["failed"], logs)
    for how in ("failed", "silent", "well", "told to end"):
        if how == "well" and not (ends["told to end"] and has_launcher(placement, logs)):
            continue
        if ends[how]:
            first = ends[how][0] if how == "failed" else min(ends[how], key=_time)
            if how == "silent":
                first = _accused(ends[how], placement, logs) or first
            if how == "well":
                return _deserted(record, placement, first.task, logs, ended)
            return _task_failed(record, placement, first, logs[first.task], memory)
    return _command_failed(logs, ended)


def _accused(silent: Sequence[_End], placement: Placement, logs: Mapping[str, str]) -> _End | None:
    """Of tasks that said nothing the one that mpirun names: it may have killed the others."""
    said = _ACCUSATION.search(tail(logs.get("mpirun", "")))
    if said is None or int(said[1]) >= placement.world_size:
        return None
    name = placement.tasks[int(said[1])].name
    return next((end for end in silent if end.task == name), None)


class _End(NamedTuple):
    """When and how a task ended.

    ``report`` is None for one that could not say; ``noted``: it said so itself, before the end.
    """

    time_s: float
    task: str
    report: Mapping[str, Any] | None
    noted: bool = False


def _how(task: str, events: Mapping[str, Mapping[str, Any]]) -> tuple[str, _End]:
    report = events.get("ended")
    if "failing" in events:
        note = events["failing"]
        fallback = {"signal": None, "code": note["code"]}
        return "failed", _End(note["t"], task, report or fallback, noted=True)
    if report is None:
        return "silent", _End(events["started"]["t"], task, None)
    if report["signal"] == signal.SIGTERM:  # what a launcher does to the others
        return "told to end", _End(report["t"], task, report)
    if report["signal"] or report["code"]:
        return "failed", _End(_likely_time(report), task, report)
    return "well", _End(report["t"], task, report)


def _likely_time(end: Mapping[str, Any]) -> float:
    """When a task that could not note its failure failed, for telling causes from consequences.

    A crash is seen by its peers some milliseconds before it is reported here: connections close
    first. What peers then do (MPI ends them with a code of its own, Gloo aborts) looks earlier.
    """
    time_s: float = end["t"]
    return time_s - _SLACK_S if end["signal"] in _CRASHES else time_s


def _time(end: _End) -> float:
    return end.time_s


def _causes_first(failed: Sequence[_End], logs: Mapping[str, str]) -> list[_End]:
    """In order of time, those last that failed because they lost somebody else.

    Time alone does not tell: MPI ends the peers of a rank as soon as its connections close, and
    they may be reported before it is.
    """
    if len(failed) < 2:
        return list(failed)
    return sorted(failed, key=lambda end: (_lost_a_peer(end, logs[end.task]), end.time_s))


def _lost_a_peer(end: _End, log: str) -> bool:
    code = end.report and end.report["code"]
    return (code == _MPI_ERR_UNKNOWN and not end.noted) or bool(_LOST_A_PEER.search(tail(log)))


def _task_failed(
    record: RunRecord, placement: Placement, first: _End, log: str, memory: MemoryKills
) -> RunFailed:
    who, end = _who(placement, first.task), first.report
    # What stands in no traceback was said before, of something that ended nothing.
    _, raised, error = tail(log, lines=200, width=2000).rpartition("Traceback (most recent")
    said = [words.rpartition("Try: ")[2] for words in _OUR_REMEDY.findall(raised and error)]
    remedy = said[-1] if said else f"`simgrid-ml runs logs {record.id}` shows what every task wrote"
    node = _task(placement, first.task).node
    limit = memory.limit_exceeded_on(node)
    if end is not None and end["signal"]:
        how, better_remedy = _signalled(end["signal"], memory, limit)
        remedy = better_remedy or remedy
    else:
        how = (
            "was killed together with the process that watched it"
            if end is None
            else f"exited with code {end['code']}"
        )
        if limit is not None:  # of what a rank starts, such as a loader of data
            how += f"; {node} ran out of memory (limit {format_bytes(limit)})"
            remedy = _LESS_MEMORY
    if _IN_USE in tail(log, width=10_000):  # gRPC says it in the middle of a long line
        how += "; a port that it wanted is in use already"
    disk = os.statvfs(record.path)
    free = disk.f_bavail * disk.f_frsize
    if free < _FULL_BYTES:
        how += f"; the disk that holds the run is full ({format_bytes(free)} left)"
        remedy = "free space: `simgrid-ml runs delete`, `simgrid-ml env prune`"
    return RunFailed(f"{who} {how}", evidence=tail(log), remedy=remedy)


def _launcher_killed(
    first: Killed,
    record: RunRecord,
    placement: Placement,
    logs: Mapping[str, str],
    memory: MemoryKills,
) -> SimgridError:
    how, remedy = _signalled(first.signal, memory, None)
    if any(task.name == first.name for task in placement.tasks):
        who = f"the process that watched {_who(placement, first.name)}"
        return RunFailed(f"{who} {how}", evidence=tail(logs[first.name]), remedy=remedy)
    evidence = tail(logs.get(first.name) or logs.get("mpirun", ""))
    return LaunchError(f"{first.name} {how}", evidence=evidence, remedy=remedy or "submit again")


def _signalled(number: int, memory: MemoryKills, limit: int | None) -> tuple[str, str]:
    """How something ended by a signal, and what to do about it if anything.

    Args:
        limit: of its node, if that was exceeded.
    """
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    how = f"was ended by {name}"
    if number != signal.SIGKILL:
        return how, ""
    if limit is not None:
        return f"was killed: out of memory (limit {format_bytes(limit)})", _LESS_MEMORY
    if memory.on_this_host():
        return (
            f"{how} when the kernel ran out of memory (OOM kill)",
            "use less memory per task, fewer tasks, or a larger machine",
        )
    return f"{how}: somebody killed it, or it exceeded a memory limit", ""


def _deserted(
    record: RunRecord,
    placement: Placement,
    name: str,
    logs: Mapping[str, str],
    ended: Mapping[str, int],
) -> RunFailed:
    command = next((n for n, code in ended.items() if code != 0), "")
    return RunFailed(
        f"{_who(placement, name)} ended with code 0 while other ranks waited for it; "
        "the launcher ended them",
        evidence=tail(logs.get(command, "")),
        remedy="every rank must call MPI_Init (or hvd.init()) and take part in each collective; "
        f"`simgrid-ml runs logs {record.id}` shows how far each came",
    )


def deserted_by_server(
    placement: Placement, server: str, log: str, running: Sequence[str], after_s: float
) -> RunFailed:
    """The error of a run whose ``server`` ended well while tasks that need it go on."""
    return RunFailed(
        f"{_who(placement, server)} ended with code 0, and {after_s:g} s later "
        f"{', '.join(running[:8])} still ran: they may be waiting for it",
        evidence=tail(log),
        remedy=f"{_HAS_TO_SERVE}. If the others need it no longer, raise server_grace_s",
    )


def _lost_a_server(
    placement: Placement, server: str, failed: Sequence[_End], logs: Mapping[str, str]
) -> RunFailed:
    first = min(failed, key=_time)
    others = f" and {len(failed) - 1} more" * (len(failed) > 1)
    return RunFailed(
        f"{_who(placement, server)} ended with code 0, and {_who(placement, first.task)}{others} "
        "failed without it",
        evidence=tail(logs[first.task]),
        remedy=_HAS_TO_SERVE,
    )


def has_launcher(placement: Placement, logs: Mapping[str, str]) -> bool:
    """Whether a program such as mpirun stands between, which ends tasks by itself."""
    return bool(logs.keys() - {task.name for task in placement.tasks})


def _task(placement: Placement, name: str) -> Task:
    return next(task for task in placement.tasks if task.name == name)


def _who(placement: Placement, name: str) -> str:
    task = _task(placement, name)
    return f"{_ROLES.get(task.role, task.role)} {task.index} on {task.node}"


def _not_started(
    placement: Placement, started: int, logs: Mapping[str, str], ended: Mapping[str, int]
) -> LaunchError:
    command, code = next(((n, c) for n, c in ended.items() if c != 0), ("the launcher", 0))
    return LaunchError(
        f"{placement.world_size - started} of {placement.world_size} tasks did not start; "
        f"{command} ended with code {code}",
        evidence=tail(logs.get(command, "")),
        remedy="`simgrid-ml doctor` checks Open MPI and what nodes need",
    )


def _command_failed(logs: Mapping[str, str], ended: Mapping[str, int]) -> LaunchError:
    command, code = next((n, c) for n, c in ended.items() if c != 0)
    return LaunchError(
        f"{command} ended with code {code} although no task failed",
        evidence=tail(logs.get(command, "")),
        remedy="`simgrid-ml doctor` checks Open MPI and what nodes need",
    )


def all_ended_well(record: RunRecord, placement: Placement) -> bool:
    """Whether every task that serves no other has said that it ended with code 0.

    A launcher's word is not enough: prterun 5.0.11 ends with code 0 when it loses a daemon.
    """
    reports = record.task_reports()
    for task in placement.tasks:
        if task.serves:
            continue
        ends = [line for line in reports.get(task.name, ()) if line["event"] == "ended"]
        if not ends or ends[-1]["signal"] or ends[-1]["code"]:
            return False
    return True


def oom_kills() -> int:
    """How often the kernel's OOM killer has killed since boot, limits of cgroups included."""
    try:
        with open("/proc/vmstat", "rb") as stream:
            for line in stream:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0
