"""What is kept of a run after its nodes are gone: outputs, logs, what each node did."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime, timezone
from typing import Any

from simgrid_ml import wire
from simgrid_ml.errors import RunFailed
from simgrid_ml.launch import dialect
from simgrid_ml.record.collect import collect_files
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.cluster import ClusterSpec, Era
from simgrid_ml.spec.job import JobSpec
from simgrid_ml.spec.placement import Placement

__all__ = ["collect", "write_closing_lines", "write_node_log", "write_process_files"]


def collect(record: RunRecord) -> tuple[int, RunFailed | None]:
    """Keep ``./outputs`` and ``./logs``; how many files, and the error of names that were taken."""
    kept, clashes = collect_files(record)
    if not clashes:
        return kept, None
    return kept, RunFailed(
        f"{len(clashes)} artifacts could not be collected, their names were taken",
        evidence="\n".join(f"UserError: {clash}" for clash in clashes[:20]),
        remedy="put the rank into the names, or let only rank 0 write shared names",
    )


def write_node_log(
    record: RunRecord, cluster: ClusterSpec, node: str, stage: str, *lines: str
) -> None:
    """Append to what a node did in ``stage``: execution, job_prep or job_post."""
    path = record.file(wire.ARTIFACTS, dialect.node_log(cluster.era, stage, cluster, node))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    with open(path, "a", encoding="utf-8") as stream:
        stream.writelines(f"[{now}] {line}\n" for line in lines)


def write_closing_lines(record: RunRecord, cluster: ClusterSpec, logs: list[str]) -> None:
    """End each driver log as the service's control code did; scripts that read logs look for it."""
    if cluster.era is Era.E3:
        return
    what = "experiment" if cluster.era is Era.E1 else "activity"
    lines = (
        f"The {what} completed successfully. Finalizing run...",
        "Cleaning up all outstanding Run operations, waiting 300.0 seconds",
        "0 items cleaning up...",
        "Cleanup took 0.0 seconds",
    )
    for log in logs:
        with open(log, "a", encoding="utf-8") as stream:
            stream.write("\n" + "\n".join(lines) + "\n")


def write_process_files(
    record: RunRecord,
    job: JobSpec,
    cluster: ClusterSpec,
    placement: Placement,
    addresses: dict[str, str],
    ended_well: bool,
) -> None:
    """``process_info.json`` and ``process_status.json``: lines of JSON, one per process."""
    if cluster.era is not Era.E2:
        return
    info, status = [], []
    reports = record.task_reports()
    for task in placement.tasks:
        events = {line["event"]: line for line in reports.get(task.name, [])}
        name = dialect.process_name(job, task)
        info.append(
            {
                "process_name": name,
                "node_id": dialect.node_id(cluster, task.node),
                "pid_in_container": events.get("started", {}).get("pid"),
                "private_ip": addresses.get(task.node),
                "log": dialect.task_log(cluster.era, job, placement, task),
            }
        )
        status.append({"process_name": name, "status": _status(events)})
    status.append({"process_name": "*", "status": "Completed" if ended_well else "Failed"})
    for name, lines in (("process_info.json", info), ("process_status.json", status)):
        path = record.file(wire.ARTIFACTS, "azureml-logs", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)


def _status(events: dict[str, dict[str, Any]]) -> str:
    end = events.get("ended")
    if end is None:
        return "Terminated" if "started" in events else "NotStarted"
    if end["signal"] in (signal.SIGTERM, signal.SIGKILL):
        return "Terminated"
    return "Failed" if end["signal"] or end["code"] else "Completed"
