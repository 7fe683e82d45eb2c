"""What a run's directory says of its nodes' GPUs: what is behind them, and who took how much.

Pure readers of a ``RunRecord``; nothing here prints. A run that goes on is read from its ledgers,
one that has ended from the last line of its ``gpu-memory.jsonl``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from simgrid_ml import wire
from simgrid_ml.record.journal import read_journal
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.gpus import described
from simgrid_ml.units import format_bytes

__all__ = ["GpuUse", "GpuUser", "RunGpus", "gpus_of", "in_a_line", "over_time", "plan_rows"]


@dataclass(frozen=True)
class GpuUser:
    """A process that put anything on a GPU.

    Attributes:
        task: of the run; "" for a process that is no task's.
        pid: in the node's own PID namespace.
        now_bytes: None: it has ended.
    """

    task: str
    pid: int
    name: str
    now_bytes: int | None
    peak_bytes: int


@dataclass(frozen=True)
class GpuUse:
    """One virtual GPU of a run.

    Attributes:
        number: its ordinal on the node.
        now_bytes: taken by all processes of the node together.
        samples: (time, bytes) whenever that had changed.
    """

    node: str
    number: int
    uuid: str
    memory_bytes: int
    now_bytes: int
    peak_bytes: int
    samples: tuple[tuple[float, int], ...]
    users: tuple[GpuUser, ...]


@dataclass(frozen=True)
class RunGpus:
    """All GPUs of a run; ``plan`` is what ``GpuPlan.to_json`` gave."""

    plan: Mapping[str, Any]
    gpus: tuple[GpuUse, ...]

    def describe(self) -> str:
        return described(self.plan)

    def most(self) -> GpuUse:
        """The GPU of which most was taken."""
        return max(self.gpus, key=lambda gpu: gpu.peak_bytes)

    def summary(self) -> dict[str, Any]:
        """Without samples and processes."""
        shown = ("node", "number", "uuid", "memory_bytes", "peak_bytes")
        rows = [{name: getattr(gpu, name) for name in shown} for gpu in self.gpus]
        return {"plan": dict(self.plan), "gpus": rows}

    def to_json(self) -> dict[str, Any]:
        return {"plan": dict(self.plan), "gpus": [asdict(gpu) for gpu in self.gpus]}


def gpus_of(record: RunRecord) -> RunGpus | None:
    """None: the run's nodes have no GPUs, or none yet."""
    plan = record.document(wire.GPUS)
    if not plan.get("nodes"):
        return None
    lines = read_journal(record.file(wire.GPU_MEMORY))
    tasks = {
        task["rank"]: task["name"] for task in record.document(wire.PLACEMENT).get("tasks") or []
    }
    found: list[GpuUse] = []
    for node in plan["nodes"]:
        found += _on_node(record, node, lines, tasks)
    return RunGpus(plan, tuple(found))


def _on_node(
    record: RunRecord,
    planned: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    tasks: Mapping[int, str],
) -> Iterator[GpuUse]:
    node = planned["node"]
    count = len(planned["ids"])
    used, peaks, rows, living = _seen(record, node, lines, count)
    for number, (uuid, share) in enumerate(zip(planned["ids"], planned["shares"], strict=True)):
        users = tuple(
            GpuUser(
                task=tasks.get(row["rank"], ""),
                pid=row["pid"],
                name=row["name"],
                now_bytes=row["bytes"][number] if row["pid"] in living else None,
                peak_bytes=row["peaks"][number],
            )
            for row in rows
            if row["peaks"][number]
        )
        samples = ((line["t"], _of(line["used"], node, count)[number]) for line in lines)
        yield GpuUse(
            node=node,
            number=number,
            uuid=uuid,
            memory_bytes=share["memory_bytes"],
            now_bytes=used[number],
            peak_bytes=peaks[number],
            samples=tuple(samples),
            users=users,
        )


def _seen(
    record: RunRecord, node: str, lines: Sequence[Mapping[str, Any]], count: int
) -> tuple[Sequence[int], Sequence[int], list[dict[str, Any]], set[int]]:
    """Bytes now and at most of every GPU, the processes, and the ids of those that live."""
    last = lines[-1] if lines else {}
    if "peaks" in last:
        rows = last.get("processes", {}).get(node, [])
        return _of(last["used"], node, count), _of(last["peaks"], node, count), rows, set()
    from simgrid_ml.engine.gpu_rows import user_rows
    from simgrid_ml.node.gpu_ledger import Ledger

    try:
        ledger = Ledger(record.file(wire.GPU_LEDGERS, node))
    except (OSError, ValueError):  # the run is going, or a part of it was removed
        return [0] * count, [0] * count, [], set()
    try:
        living = {row["pid"] for row in user_rows(ledger, ended=False)}
        return ledger.used(), ledger.peaks(), user_rows(ledger, ended=True), living
    finally:
        ledger.close()


def _of(values: Mapping[str, Any], node: str, count: int) -> list[int]:
    return list(values.get(node) or [0] * count)


def over_time(samples: Sequence[tuple[float, int]], width: int) -> list[int]:
    """The samples as ``width`` values at even distances, each the most of its time.

    >>> over_time([(0.0, 0), (1.0, 5), (4.0, 2)], 4)
    [0, 5, 5, 5]
    """
    if not samples:
        return []
    first, last = samples[0][0], samples[-1][0]
    values = [0] * width
    before = 0
    filled = 0
    for at, value in samples:
        place = int((at - first) / (last - first) * width) if last > first else 0
        place = min(place, width - 1)
        for gap in range(filled, place + 1):
            values[gap] = max(values[gap], before)
        values[place] = max(values[place], value)
        before, filled = value, place
    return values


def in_a_line(used: Mapping[str, Sequence[int]], memory_bytes: int) -> str:
    """How much of the GPUs is taken now, short enough for a line that says other things, too.

    >>> in_a_line({"node0": [2**30, 0], "node1": [0, 0]}, 11 * 2**30)
    'GPU memory node0 1 GiB + 0 B, node1 0 B + 0 B of 11 GiB'
    """
    total = format_bytes(memory_bytes)
    if len(used) <= 2 and all(len(each) <= 4 for each in used.values()):
        parts = (f"{node} {' + '.join(map(format_bytes, each))}" for node, each in used.items())
        return f"GPU memory {', '.join(parts)} of {total}"
    most, node, number = max(
        (value, node, number) for node, each in used.items() for number, value in enumerate(each)
    )
    return f"GPU memory at most {format_bytes(most)} of {total} ({node} GPU {number})"


def plan_rows(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a stored plan says of itself: why, what holds, what carries collectives."""
    carried = f"by {plan['collectives']}"
    if plan.get("collectives_reason"):
        carried += f": {plan['collectives_reason']}"
    return [
        ("because", str(plan["reason"])),
        *(("enforced", line) for line in plan.get("hard") or ()),
        *(("advisory", line) for line in plan.get("advisory") or ()),
        ("collectives", carried),
        *(("note", line) for line in plan.get("notes") or ()),
    ]
