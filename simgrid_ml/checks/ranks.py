"""Did every task run where the placement says, as who it says, and end as it should?"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

from simgrid_ml import wire
from simgrid_ml.checks.base import Finding, Verdict
from simgrid_ml.record.run import RunRecord

__all__ = ["check"]


def check(run: RunRecord) -> Iterator[Finding]:
    """Compare what each task reported of itself with the run's placement."""
    placement = run.document(wire.PLACEMENT)
    if not placement:
        yield Finding("ranks", Verdict.UNKNOWN, "the run ended before its tasks were placed")
        return
    reports = run.task_reports()
    displaced, bad_ends = [], []
    for task in placement["tasks"]:
        events = {line["event"]: line for line in reports.get(task["name"], [])}
        displaced += [f"{task['name']}: {what}" for what in _displaced(task, events, placement)]
        if end := _bad_end(events, serves=task.get("serves", False)):
            bad_ends.append(f"{task['name']}: {end}")
    total, nodes = len(placement["tasks"]), len(placement["nodes"])
    yield _finding(
        "ranks.placement",
        displaced,
        f"{_count(total, 'task')} on {_count(nodes, 'node')}, each where and as who it was placed",
        f"of {_count(total, 'task')} not where or who they should be",
    )
    yield _finding(
        "ranks.ends",
        bad_ends,
        f"{_count(total, 'task')} ended as they should",
        f"of {_count(total, 'task')} did not end with code 0",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _finding(name: str, wrong: list[str], good: str, bad: str) -> Finding:
    if not wrong:
        return Finding(name, Verdict.PASS, good)
    tasks = {line.partition(":")[0] for line in wrong}
    return Finding(name, Verdict.FAIL, f"{len(tasks)} {bad}", "\n".join(wrong))


def _displaced(
    task: dict[str, Any], events: dict[str, dict[str, Any]], placement: dict[str, Any]
) -> Iterator[str]:
    started = events.get("started")
    if started is None:
        yield "never reported a start"
        return
    expected = {
        "rank": task["rank"],
        "local_rank": task["local_rank"],
        "node": task["node"],
        "hostname": placement["hostnames"][task["node"]],
        "world_size": placement["world_size"],
    }
    for what, value in expected.items():
        if started[what] != value:
            yield f"{what} is {started[what]!r}, placed as {value!r}"


def _bad_end(events: dict[str, dict[str, Any]], *, serves: bool) -> str | None:
    """
    Args:
        serves: the task is ended when those that it serves have.
    """
    ended = events.get("ended")
    if serves and (ended is None or ended["signal"] in (signal.SIGTERM, signal.SIGKILL)):
        return None
    if ended is None:
        return "reported no end; it was killed together with its node or launcher"
    if ended["signal"]:
        return f"ended by signal {ended['signal']}"
    return f"ended with code {ended['code']}" if ended["code"] else None
