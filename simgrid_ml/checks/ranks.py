"""Did every task run where the placement says, as who it says, and end as it should?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simgrid_ml import wire
from simgrid_ml.checks.base import Finding, Verdict
from simgrid_ml.record.run import RunRecord

__all__ = ["check"]

_NAME = "ranks"


def check(run: RunRecord) -> Iterator[Finding]:
    """Compare what each task reported of itself with the run's placement."""
    placement = run.document(wire.PLACEMENT)
    if not placement:
        yield Finding(_NAME, Verdict.UNKNOWN, "the run ended before its tasks were placed")
        return
    reports = run.task_reports()
    wrong = []
    for task in placement["tasks"]:
        wrong += [f"{task['name']}: {what}" for what in _differences(task, reports, placement)]
    total = len(placement["tasks"])
    if wrong:
        yield Finding(
            _NAME,
            Verdict.FAIL,
            f"{len({line.split(':')[0] for line in wrong})} of {total} tasks are not as placed",
            "\n".join(wrong),
        )
    else:
        nodes = len(placement["nodes"])
        yield Finding(
            _NAME,
            Verdict.PASS,
            f"{total} tasks on {nodes} nodes: each where it was placed, each ended with code 0",
        )


def _differences(
    task: dict[str, Any], reports: dict[str, list[dict[str, Any]]], placement: dict[str, Any]
) -> Iterator[str]:
    events = {line["event"]: line for line in reports.get(task["name"], [])}
    started, ended = events.get("started"), events.get("ended")
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
    if ended is None:
        yield "never reported an end (it was killed together with its node or launcher)"
    elif ended["signal"]:
        yield f"ended by signal {ended['signal']}"
    elif ended["code"] != 0:
        yield f"ended with code {ended['code']}"
