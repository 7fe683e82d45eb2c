"""What a run's directory says, in the form that commands print: outcome, stages, series, ranks.

Pure readers of a ``RunRecord``; nothing here prints or waits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from simgrid_ml import wire
from simgrid_ml.cli.gpu_story import gpus_of
from simgrid_ml.launch.dialect import is_launcher_log, task_of_log
from simgrid_ml.record.follow import has_ended
from simgrid_ml.record.journal import read_json
from simgrid_ml.record.read import attributes, error_of
from simgrid_ml.record.run import RunRecord, RunState

__all__ = [
    "TaskLog",
    "describe",
    "duration_s",
    "error_of",
    "exit_code",
    "has_roles",
    "is_interactive",
    "remark",
    "series",
    "shape",
    "stages",
    "stamp",
    "task_log",
    "task_logs",
    "task_order",
    "verdicts",
]

_ROLES = ("rank", "chief", "head", "worker", "ps")

JOB_FAILED, UNKNOWN, CONTRACT_FAILED, HOST_FAILED = 1, 3, 4, 5


class TaskLog(NamedTuple):
    """A log that a task or the launcher writes.

    Attributes:
        name: of the artifact.
        label: what stands before its lines: the rank alone, ``ps-0``, ``worker-1``, ``mpirun``.
        task: its name in the run, where a rank is ``rank-3``.
        role: ``rank``, ``chief``, ``head``, ``worker``, ``ps`` or ``launcher``.
        number: among those of the role.
    """

    name: str
    label: str
    task: str
    role: str
    number: int


def task_log(name: str) -> TaskLog | None:
    """The artifact ``name`` as a task's log; None if it is none."""
    found = task_of_log(name)
    if found is not None:
        role, number = found
        task = f"{role}-{number}"
        return TaskLog(name, str(number) if role == "rank" else task, task, role, number)
    return TaskLog(name, "mpirun", "mpirun", "launcher", 0) if is_launcher_log(name) else None


def task_logs(record: RunRecord) -> list[TaskLog]:
    """The logs of all tasks, in the order of ``task_order``, and the launcher's."""
    logs = [log for artifact in record.artifacts() if (log := task_log(artifact.name))]
    return sorted(logs, key=lambda log: task_order(log.task))


def task_order(task: str) -> tuple[int, int]:
    """By which tasks are sorted: those that train before those that serve, by number.

    >>> sorted(["ps-0", "worker-10", "worker-2", "chief-0", "mpirun"], key=task_order)
    ['chief-0', 'worker-2', 'worker-10', 'ps-0', 'mpirun']
    """
    role, _, number = task.partition("-")
    place = _ROLES.index(role) if role in _ROLES else len(_ROLES)
    return place, int(number) if number.isdigit() else 0


def remark(event: Mapping[str, Any]) -> str:
    """What an event says of tasks that end, or keep silent, before their time; empty: nothing."""
    running = ", ".join(event.get("running") or ())
    if event.get("event") in ("server-ended", "first-worker-ended") and running:
        return f"{event['task']} ended while {running} still ran"
    if event.get("event") == "never-listened":
        return (
            f"{', '.join(event['tasks'])} did not listen for long; others may have waited for that"
        )
    return ""


def stages(record: RunRecord, now: float | None = None) -> list[tuple[str, float | None]]:
    """Every state the run was in and for how many seconds; None for a final state."""
    moves = record.states()
    ends = [float(move["t"]) for move in moves[1:]]
    told: list[tuple[str, float | None]] = []
    for number, move in enumerate(moves):
        state = RunState(move["state"])
        if state.is_terminal:
            told.append((state.value, None))
            continue
        end = ends[number] if number < len(ends) else (time.time() if now is None else now)
        told.append((state.value, max(0.0, end - float(move["t"]))))
    return told


def duration_s(record: RunRecord, now: float | None = None) -> float:
    """Seconds from submission to the end, or to now."""
    return sum(spent or 0.0 for _, spent in stages(record, now))


def verdicts(record: RunRecord) -> list[dict[str, Any]]:
    """What the checks found: ``check``, ``verdict``, ``message``, ``evidence``, maybe ``stamp``."""
    found: list[dict[str, Any]] = read_json(record.file(wire.VERDICTS), [])
    return found


def stamp(record: RunRecord) -> tuple[str, str] | None:
    """What the run's timings are worth, ``valid``, ``degraded`` or ``invalid``, and why.

    None: nobody has judged them, as the run has not ended or never came to its tasks.
    """
    for finding in verdicts(record):
        if finding.get("stamp"):
            return str(finding["stamp"]), str(finding["message"])
    return None


def exit_code(record: RunRecord) -> int:
    """0 ok, 1 job failed, 3 unknown, 4 contract failed, 5 host or node failed.

    A run still going has no outcome yet: 3.
    """
    state = record.state
    error = error_of(record)
    if state is RunState.COMPLETED:
        words = {str(finding.get("verdict", "unknown")).lower() for finding in verdicts(record)}
        if "fail" in words:
            return CONTRACT_FAILED
        return 0 if words <= {"pass"} else UNKNOWN
    if state is RunState.NOT_RESPONDING:
        return HOST_FAILED
    if not state.is_terminal:
        return UNKNOWN
    return int((error or {}).get("exit_code") or JOB_FAILED)


def shape(record: RunRecord) -> str:
    """Nodes and processes in words.

    ``2 x 2``: two nodes with two processes each; ``3: 1 ps + 2 workers``: three nodes and what is
    on them.
    """
    spread = (record.spec().get("job") or {}).get("distribution") or {}
    nodes = spread.get("nodes", 1)
    if not has_roles(record):
        return f"{nodes} x {spread.get('processes_per_node', 1)}"
    of_ray = spread["kind"] == "ray"
    servers = 0 if of_ray else spread.get("servers", 1)
    workers = nodes - 1 if of_ray else spread.get("workers", 1)
    parts = ["head"] * of_ray + [f"{servers} ps"] * bool(servers)
    parts += [f"{workers} worker{'s' * (workers > 1)}"] * bool(workers)
    parts += ["chief"] * bool(spread.get("coordinator"))
    return f"{nodes}: {' + '.join(parts)}"


def has_roles(record: RunRecord) -> bool:
    """Whether the tasks have roles, as TensorFlow's and Ray's have, and not ranks alone."""
    spread = (record.spec().get("job") or {}).get("distribution") or {}
    return spread.get("kind") in ("parameter_server", "ray")


def series(record: RunRecord) -> dict[str, list[dict[str, Any]]]:
    """Every logged point by metric name, in order of time."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in record.metrics():
        found.setdefault(str(line.get("name")), []).append(line)
    return found


def numbers(points: Sequence[dict[str, Any]]) -> list[float]:
    """The numbers among the points of a metric; lists count one by one."""
    values: list[float] = []
    for point in points:
        value = point.get("value")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, (int, float)) and not isinstance(item, bool):
                values.append(float(item))
    return values


def _without_password(job: Any) -> Any:
    """That of an image's registry is in ``spec.json`` for the supervisor, and for nobody else."""
    environment = (job or {}).get("environment") or {}
    if not environment.get("registry"):
        return job
    shown = {**environment, "registry": {**environment["registry"], "password": None}}
    return {**job, "environment": shown}


def describe(record: RunRecord) -> dict[str, Any]:
    """A run as plain data, as ``runs show --json`` prints it."""
    spec = record.spec()
    state = record.state
    moves = record.states()
    judged = stamp(record)
    found = gpus_of(record)
    told: dict[str, Any] = {
        "run_id": record.id,
        "experiment": spec.get("experiment"),
        "state": state.value,
        "exit_code": exit_code(record) if has_ended(state) else None,
        "created": moves[0]["t"] if moves else spec.get("created"),
        "duration_s": round(duration_s(record), 3),
        "stages": [{"state": name, "duration_s": spent} for name, spent in stages(record)],
        "directory": record.path,
        "job": _without_password(spec.get("job")),
        "cluster": spec.get("cluster"),
        "environment": record.document(wire.ENVIRONMENT),
        "gpus": found and found.summary(),
        "error": error_of(record),
        "note": note(record),
        "remarks": [said for event in record.events() if (said := remark(event))],
        "verdicts": verdicts(record),
        "fidelity": None if judged is None else {"stamp": judged[0], "why": judged[1]},
        "attributes": attributes(record),
    }
    return told


def is_interactive(record: RunRecord) -> bool:
    """Whether the process that made the run carries it: it has no job, and no supervisor."""
    return not record.spec().get("job")


def note(record: RunRecord) -> str:
    """What was said with the last move: why a run was cancelled."""
    moves = record.states()
    return str(moves[-1].get("note") or "") if moves else ""
