"""What a run came to, for people: the end of ``run`` and ``demo``, and ``runs show``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import click

from simgrid_ml import wire
from simgrid_ml.cli import story
from simgrid_ml.cli.console import plain_text, print_error, print_table, print_text
from simgrid_ml.cli.gpu_story import gpus_of
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.units import format_bytes, format_seconds

__all__ = [
    "SHOWN_PACKAGES",
    "gpus_in_a_line",
    "heading",
    "kept_warm",
    "print_artifacts",
    "print_doubts",
    "print_gpus",
    "print_outcome",
    "print_run",
    "print_stages",
    "warm_nodes",
]

SHOWN_PACKAGES = (
    "torch",
    "tensorflow-cpu",
    "tensorflow",
    "chainer",
    "ray",
    "horovod",
    "scikit-learn",
)
"""Those of an environment that a reader wants to know the releases of."""
_MEANING = {False: "(nodes x processes per node)", True: "(nodes: tasks)"}
"""What the figures of ``story.shape`` count, for a job whose tasks have roles or have none."""
_GPU_USERS = 8
"""So many processes of a GPU are told, those that took most; `simgrid-ml gpus` has them all."""
VERDICT_COLOURS = {
    "pass": "green",
    "unknown": "yellow",
    "fail": "red",
    "valid": "green",
    "degraded": "yellow",
    "invalid": "red",
}


def heading(text: str) -> None:
    click.echo()
    click.echo(click.style(text, bold=True))


def print_stages(record: RunRecord) -> None:
    rows = [
        (state, "" if spent is None else format_seconds(spent))
        for state, spent in story.stages(record)
        if state != RunState.NOT_STARTED.value
    ]
    print_table(("", ""), rows, indent=2)


def print_verdicts(record: RunRecord) -> None:
    rows = []
    for finding in story.verdicts(record):
        word = str(finding.get("stamp") or finding.get("verdict", "unknown")).lower()
        said = (str(finding.get("check", "")), str(finding.get("message", "")))
        rows.append((_coloured(word), *said))
    print_table(("", "", ""), rows, indent=2)


def _coloured(word: str) -> str:
    return click.style(word, fg=VERDICT_COLOURS.get(word)) if sys.stdout.isatty() else word


def print_doubts(record: RunRecord) -> None:
    """Next to numbers of the run: that its timings mean nothing, where that is so. On stderr, as
    the numbers may go to a program."""
    judged = story.stamp(record)
    if judged is not None and judged[0] == "invalid":
        text = f"Fidelity: invalid: {judged[1]}; timings of this run mean nothing"
        click.echo(plain_text(text), err=True)


def print_artifacts(record: RunRecord, prefixes: tuple[str, ...] = ()) -> None:
    rows = [
        (artifact.name, format_bytes(artifact.bytes))
        for artifact in record.artifacts()
        if not prefixes or artifact.name.startswith(prefixes)
    ]
    print_table(("", ""), rows, indent=2)


def substitutions(record: RunRecord) -> list[str]:
    """For each requirement that cannot be met today: it, what was taken instead, and why."""
    return [
        f"{one['wanted']}: {one['got'] or 'nothing'} ({one['reason']})"
        for one in record.document(wire.ENVIRONMENT).get("substitutions") or []
    ]


def node_size(record: RunRecord) -> str:
    """What each node had of the host; empty where the job named no VM size."""
    told = record.document(wire.PLACEMENT).get("capacity")
    return Capacity.from_json(told).describe() if told else ""


def gpus_in_a_line(record: RunRecord) -> str:
    """What is behind the nodes' GPUs, and the most that was taken; empty where they have none."""
    if not (found := gpus_of(record)):
        return ""
    most = found.most()
    where = f"{most.node} GPU {most.number}"
    taken = f"at most {format_bytes(most.peak_bytes)} used ({where})" if most.peak_bytes else "idle"
    return f"{found.describe()}; {taken}"


def print_gpus(record: RunRecord) -> None:
    """A section about the nodes' GPUs, where they have any."""
    if not (found := gpus_of(record)):
        return
    heading("GPUs")
    print_text(f"{found.describe()}: {found.plan['reason']}", indent=2)
    rows = []
    for gpu in found.gpus:
        users = sorted(gpu.users, key=lambda user: -user.peak_bytes)
        told = [f"{user.task or user.name} {format_bytes(user.peak_bytes)}" for user in users]
        if len(told) > _GPU_USERS:
            told[_GPU_USERS:] = [f"{len(told) - _GPU_USERS} more"]
        peak = f"at most {format_bytes(gpu.peak_bytes)}" if gpu.peak_bytes else "not used"
        rows.append((f"{gpu.node} GPU {gpu.number}", peak, ", ".join(told)))
    print_table(("", "", ""), rows, indent=2)


def network(record: RunRecord) -> list[tuple[str, str]]:
    """Rows about the shaped links of the nodes, links of a kind together; none of others."""
    told = record.document(wire.PLACEMENT).get("network")
    if not told:
        return []
    kinds: dict[str, list[str]] = {}
    for target, link in told["links"].items():
        kinds.setdefault(link["text"], []).append(target)
    way = {"c": "relay", "python": "relay in Python"}.get(told["program"], told["method"])
    return [
        ("link" if number else f"links by {way}", f"{text}: {', '.join(targets)}")
        for number, (text, targets) in enumerate(kinds.items())
    ]


def print_outcome(record: RunRecord) -> None:
    """The end of ``simgrid-ml run``: how it went, why, and what to type next."""
    state = record.state
    good = story.exit_code(record) == 0
    mark = click.style(state.value, fg="green" if good else "red", bold=True)
    click.echo()
    click.echo(f"{record.id}: {mark} after {format_seconds(story.duration_s(record))}")
    error = story.error_of(record)
    if error:
        print_error(error)
    elif story.note(record):
        click.echo(f"  {story.note(record)}")
    if any(str(f.get("verdict", "")).lower() != "pass" for f in story.verdicts(record)):
        print_verdicts(record)
    elif judged := story.stamp(record):
        print_text(f"Fidelity: {_coloured(judged[0])}: {judged[1]}")
    for line in substitutions(record):
        print_text(f"Instead of {line}")
    if size := node_size(record):
        click.echo(f"Nodes: {size}")
    if line := gpus_in_a_line(record):
        print_text(f"GPUs: {line}")
    click.echo(f"Directory: {record.path}")
    if warm := warm_nodes(record):
        click.echo(warm)
    click.echo(
        f"Next: simgrid-ml runs show {record.id}   "
        "(or `latest`; also: logs, metrics, files, download)"
    )


def warm_nodes(record: RunRecord) -> str:
    """What the cluster keeps for the next run, and how to end it; empty for nothing."""
    spec = record.spec()
    if not spec.get("pooled"):
        return ""
    from simgrid_ml.engine import pools

    store = RunStore(os.path.dirname(os.path.dirname(record.path)))
    cluster = spec["cluster"]["name"]
    said = pools.status(store, cluster) or pools.NO_POOL
    idle = sum(node["state"] == "idle" for node in said["nodes"])
    busy = sum(node["state"] in ("preparing", "running") for node in said["nodes"])
    stored = store.clusters().get(cluster) or {}
    return kept_warm(cluster, idle, busy, stored)


def kept_warm(cluster: str, idle: int, busy: int, stored: Mapping[str, Any]) -> str:
    """How many of so many idle nodes stay for how long, in words; empty: none."""
    seconds = stored.get("idle_seconds_before_scaledown", 1800)
    forever = min(idle, max(0, stored.get("min_nodes", 0) - busy))
    idle = idle if seconds else forever
    if not idle:
        return ""
    nodes = "1 node" if idle == 1 else f"{idle} nodes"
    time = format_seconds(seconds) if seconds % 60 else f"{seconds // 60} min"
    how = f" for {time}"
    if forever:
        how = (
            f": {forever} as its minimum, {idle - forever}{how}"
            if idle > forever
            else (" as its minimum")
        )
    return f"{nodes} of {cluster} stay warm{how}; `simgrid-ml cluster stop {cluster}` ends them"


def print_run(record: RunRecord, told: Mapping[str, Any]) -> None:
    """``runs show``: the run ``told`` by ``story.describe``."""
    job = told.get("job") or {}
    cluster = told.get("cluster") or {}
    environment = told.get("environment") or {}
    spread = job.get("distribution") or {}
    asked = job.get("environment") or {}
    command = " ".join(
        job.get("command") or [str(job.get("entry_script")), *job.get("arguments", [])]
    )
    packages = environment.get("packages") or {}
    roles = story.has_roles(record)
    rows = [
        ("run", record.id),
        ("state", str(told["state"]) + (f" ({told['note']})" if told["note"] else "")),
        ("experiment", str(told.get("experiment"))),
    ]
    if story.is_interactive(record):
        rows += [("command", "none: the process that made the run carries it")]
    else:
        rows += [
            ("command", plain_text(command)),
            (
                "distribution",
                f"{spread.get('kind', 'plain')}, {story.shape(record)} {_MEANING[roles]}",
            ),
            (
                "cluster",
                f"{cluster.get('name')}: {cluster.get('backend')} backend, "
                f"era {cluster.get('era')}, "
                f"at most {cluster.get('max_nodes')} nodes of {cluster.get('vm_size')}",
            ),
        ]
        if size := node_size(record):
            rows.append(("nodes", size))
        rows.append(("environment", _environment(asked, packages)))
        if environment.get("image"):
            rows.append(("image", _image(environment)))
            rows += [("", note) for note in environment.get("image_notes", [])]
    rows.append(("directory", record.path))
    for name in ("display_name", "description"):
        if told["attributes"].get(name):
            rows.append((name.replace("_", " "), str(told["attributes"][name])))
    for kind in ("tags", "properties"):
        for key, value in told["attributes"][kind].items():
            rows.append((kind[:-1] if kind == "tags" else "property", f"{key} = {value}"))
    rows += [("instead of", line) for line in substitutions(record)]
    rows += network(record)
    print_table(("", ""), rows)
    heading("Stages")
    print_stages(record)
    reports = record.task_reports()
    if reports:
        heading("Tasks")
        names = sorted(reports, key=story.task_order)
        placed = record.document(wire.PLACEMENT).get("tasks") or []
        serving = {task["name"] for task in placed if task.get("serves")}
        rows_of_tasks = [_task(name, reports[name], name in serving) for name in names]
        print_table(("task", "node", "host", "pid", "ended"), rows_of_tasks, 2)
        for said in told["remarks"]:
            print_text(said, indent=2)
    print_gpus(record)
    if told["verdicts"]:
        heading("Checks")
        print_verdicts(record)
    if told["error"]:
        click.echo()
        print_error(told["error"])


def _environment(asked: Mapping[str, Any], packages: Mapping[str, Any]) -> str:
    if asked.get("interpreter"):
        return f"{asked['interpreter']} as it is"
    framework = asked.get("framework") or "packages only"
    if not (asked.get("framework") or asked.get("pip") or asked.get("conda")):
        return "bare Python"
    version = f" {asked['framework_version']}" if asked.get("framework_version") else ""
    few = [f"{name} {packages[name]}" for name in SHOWN_PACKAGES if name in packages]
    return f"{framework}{version}" + (f": {', '.join(few)}" if few else "")


def _image(environment: Mapping[str, Any]) -> str:
    if not environment.get("image_used"):
        return f"{environment['image']}, not used: nodes have the programs of this host"
    digest = str(environment["image_digest"]).partition(":")[2]
    return f"{environment['image']} ({digest[:12]})"


def _task(name: str, lines: list[dict[str, Any]], serves: bool) -> tuple[str, ...]:
    started: dict[str, Any] = next((x for x in lines if x.get("event") == "started"), {})
    ended = next((x for x in lines if x.get("event") == "ended"), None)
    if ended is None:
        how = "no report"
    elif ended.get("signal"):
        with_others = serves and ended["signal"] == signal.SIGTERM
        how = "ended with those it served" if with_others else f"signal {ended['signal']}"
    else:
        how = (
            f"exit {ended.get('code')} after {format_seconds(float(ended.get('duration_s') or 0))}"
        )
    return (
        name,
        str(started.get("node", "")),
        str(started.get("hostname", "")),
        str(started.get("pid", "")),
        how,
    )
