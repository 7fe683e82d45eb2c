"""``simgrid-ml runs``: what the run history holds, and the few things one can do to it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from simgrid_ml.cli import story
from simgrid_ml.cli.console import (
    Screen,
    json_option,
    print_error,
    print_json,
    print_table,
    sparkline,
)
from simgrid_ml.cli.watch import LinePrinter
from simgrid_ml.cli.workspace import find_run, workspace_option
from simgrid_ml.errors import NotFoundError, UsageError
from simgrid_ml.record.follow import follow, has_ended, wait_state
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.units import format_bytes, format_seconds

__all__ = ["runs"]

STATE_COLOURS = {
    RunState.COMPLETED: "green",
    RunState.FAILED: "red",
    RunState.NOT_RESPONDING: "red",
    RunState.CANCELED: "yellow",
    RunState.CANCEL_REQUESTED: "yellow",
}


def _state(_: click.Context, __: click.Parameter, word: str | None) -> RunState | None:
    if word is None:
        return None
    known = {one.value.lower(): one for one in RunState}
    if word.lower() not in known:
        names = ", ".join(one.value for one in RunState)
        raise UsageError(f"there is no state {word!r}", remedy=f"one of {names}")
    return known[word.lower()]


state_option = click.option(
    "-s", "--state", callback=_state, help="Only runs in this state, such as Running or Failed."
)
run_argument = click.argument("run", metavar="RUN")


@click.group()
def runs() -> None:
    """List, show, follow, download, cancel, delete runs.

    RUN is a run's id, a part that only one id has, or `latest`.
    """


def _coloured(state: RunState) -> str:
    colour = STATE_COLOURS.get(state, "cyan")
    return click.style(state.value, fg=colour) if sys.stdout.isatty() else state.value


def _when(seconds: float | None) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


@runs.command("list")
@click.option("-e", "--experiment", help="Only runs of this experiment.")
@state_option
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True)
@click.option("-a", "--all", "everything", is_flag=True, help="No limit.")
@json_option
@workspace_option
def list_(
    store: RunStore,
    experiment: str | None,
    state: RunState | None,
    limit: int,
    everything: bool,
    as_json: bool,
) -> None:
    """Runs, newest first."""
    found: list[RunRecord] = []
    more = False
    for record in store.list(experiment):
        if state is not None and record.state is not state:
            continue
        if not everything and len(found) == limit:
            more = True
            break
        found.append(record)
    if as_json:
        print_json([_row(record) for record in found])
        return
    if not found:
        click.echo("No runs yet. `simgrid-ml demo` makes the first one.")
        return
    rows = []
    for record in found:
        told = _row(record)
        rows.append(
            (
                record.id,
                _coloured(RunState(told["state"])),
                story.shape(record),
                _when(told["created"]),
                format_seconds(told["duration_s"]),
            )
        )
    print_table(("run", "state", "nodes x tasks", "submitted", "took"), rows)
    if more:
        click.echo(f"The newest {limit}; `--all` shows every run.")


def _row(record: RunRecord) -> dict[str, Any]:
    moves = record.states()
    spec = record.spec()
    job = spec.get("job") or {}
    return {
        "run_id": record.id,
        "experiment": spec.get("experiment"),
        "state": record.state.value,
        "distribution": job.get("distribution"),
        "entry_script": job.get("entry_script"),
        "created": moves[0]["t"] if moves else None,
        "duration_s": round(story.duration_s(record), 3),
        "directory": record.path,
    }


@runs.command()
@run_argument
@json_option
@workspace_option
def show(store: RunStore, run: str, as_json: bool) -> None:
    """Everything about one run: stages, environment, tasks, checks, what went wrong."""
    record = find_run(store, run)
    told = story.describe(record)
    if as_json:
        print_json(told)
        return
    from simgrid_ml.cli.summary import print_run

    print_run(record, told)


@runs.command()
@run_argument
@click.option("-f", "--follow", "follow_it", is_flag=True, help="Go on until the run has ended.")
@click.option("-t", "--task", multiple=True, help="Only this task, as worker-1; may be repeated.")
@click.option("-r", "--rank", type=int, multiple=True, help="Only this rank; may be repeated.")
@click.option("-l", "--log", help="This log instead of the tasks' own, by its artifact name.")
@click.option("-n", "--tail", type=click.IntRange(0), help="Only the last N lines of each log.")
@click.option("--no-prefix", is_flag=True, help="Lines without `[task] ` before them.")
@json_option
@workspace_option
def logs(
    store: RunStore,
    run: str,
    follow_it: bool,
    task: tuple[str, ...],
    rank: tuple[int, ...],
    log: str | None,
    tail: int | None,
    no_prefix: bool,
    as_json: bool,
) -> int:
    """What the tasks wrote, every line behind its task: `[0] ` of rank 0, `[worker-1] `.

    Tasks stand one after the other; with `--follow`, lines stand in the order of their arrival,
    and the run's outcome is the exit code.
    With --json, one object per line.
    """
    record = find_run(store, run)
    if log is not None and (rank or task):
        other = "--rank" if rank else "--task"
        raise UsageError(f"--log and {other} exclude each other", remedy="give one of them")
    wanted = _wanted(record, task, rank)
    printer = _printer(as_json, prefixes=not no_prefix and log is None)
    if follow_it:
        if tail is not None:
            raise UsageError("--tail and --follow exclude each other", remedy="give one of them")
        _follow(record, printer, wanted, log)
        return story.exit_code(record)
    logs = story.task_logs(record)
    shown = [("", log)] if log else [(one.label, one.name) for one in logs if wanted(one)]
    if (rank or task) and not shown:
        raise _no_such_task(record, logs, (*task, *map(str, rank)))
    if not shown:
        click.echo(f"No task of {record.id} has written anything ({record.state.value}).", err=True)
        return 0
    for label, name in shown:
        for block in _blocks(record.artifact(name).path, tail):
            printer.feed(label, block, name)
        printer.finish()
    return 0


class _JsonLines(LinePrinter):
    """Every line as an object of its own: its log, its task, its text."""

    def print(self, prefix: str, lines: list[str], log: str) -> None:
        about = story.task_log(log)
        told = {
            "log": log,
            "task": about and about.task,
            "role": about and about.role,
            "rank": about.number if about and about.role == "rank" else None,
        }
        for line in lines:
            click.echo(json.dumps({**told, "line": line}))


def _printer(as_json: bool, *, prefixes: bool) -> LinePrinter:
    return (_JsonLines if as_json else LinePrinter)(Screen(), prefixes=prefixes)


def _wanted(
    record: RunRecord, tasks: tuple[str, ...], ranks: tuple[int, ...]
) -> Callable[[story.TaskLog], bool]:
    """Whether a log is of one of the tasks; all are where none is named.

    Raises:
        UsageError: ranks are named, and the job's tasks have roles.
    """
    if ranks and story.has_roles(record):
        raise UsageError(
            f"the tasks of {record.id} have roles, not ranks: {story.shape(record)}",
            remedy=f"say --task worker-{ranks[0]}",
        )
    names = {*tasks, *map(str, ranks)}
    return lambda log: not names or log.label in names or log.task in names


def _no_such_task(
    record: RunRecord, logs: list[story.TaskLog], asked: tuple[str, ...]
) -> NotFoundError:
    there = ", ".join(log.task for log in logs) or "none yet"
    return NotFoundError(
        f"run {record.id} has no log of {', '.join(asked)}", remedy=f"there are: {there}"
    )


def _blocks(path: str, tail: int | None) -> Iterator[bytes]:
    """The log, or its last lines, piece by piece: one of any size passes through little memory."""
    with open(path, "rb") as stream:
        if tail is not None:
            from collections import deque

            yield from deque(stream, tail)
            return
        while block := stream.read(2**18):
            yield block


def _follow(
    record: RunRecord,
    printer: LinePrinter,
    wanted: Callable[[story.TaskLog], bool],
    only: str | None,
) -> None:
    try:
        for name, chunk in follow(record):
            about = story.task_log(name)
            if only is not None and name == only:
                printer.feed("", chunk, name)
            elif only is None and about is not None and wanted(about):
                printer.feed(about.label, chunk, name)
    except KeyboardInterrupt:
        click.echo(f"\nRun {record.id} goes on ({record.state.value}).", err=True)
        raise
    printer.finish()


@runs.command()
@run_argument
@click.option("-m", "--name", help="Only this metric.")
@json_option
@workspace_option
def metrics(store: RunStore, run: str, name: str | None, as_json: bool) -> None:
    """What the run logged, with first, last, least and greatest value."""
    record = find_run(store, run)
    found = story.series(record)
    if name is not None:
        if name not in found:
            known = ", ".join(found) or "none at all"
            raise NotFoundError(f"run {record.id} logged no {name!r}", remedy=f"it logged: {known}")
        found = {name: found[name]}
    from simgrid_ml.cli.summary import print_doubts

    print_doubts(record)
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo(f"{record.id} has logged no metrics.")
        return
    rows = []
    for metric, points in found.items():
        values = story.numbers(points)
        kind = str(points[-1].get("kind", ""))
        few = (
            [f"{v:.6g}" for v in (values[0], values[-1], min(values), max(values))]
            if values
            else []
        )
        rows.append(
            (metric, kind, str(len(points)), *(few or ["", "", "", ""]), sparkline(values[-40:]))
        )
    print_table(("metric", "kind", "points", "first", "last", "least", "greatest", ""), rows)


@runs.command()
@run_argument
@json_option
@workspace_option
def files(store: RunStore, run: str, as_json: bool) -> None:
    """The run's artifacts: logs, ./logs as it grows, ./outputs once collected."""
    record = find_run(store, run)
    found = record.artifacts()
    if as_json:
        print_json([{"name": a.name, "bytes": a.bytes, "path": a.path} for a in found])
        return
    print_table(("name", "size"), [(a.name, format_bytes(a.bytes)) for a in found])


@runs.command()
@run_argument
@click.argument("prefixes", metavar="[PREFIX]...", nargs=-1)
@click.option("-o", "--output", type=click.Path(file_okay=False), help="Default: ./RUN_ID")
@json_option
@workspace_option
def download(
    store: RunStore, run: str, prefixes: tuple[str, ...], output: str | None, as_json: bool
) -> None:
    """Copy artifacts whose names begin with PREFIX (default: all) under their names."""
    record = find_run(store, run)
    wanted = [a for a in record.artifacts() if not prefixes or a.name.startswith(prefixes)]
    if not wanted:
        raise NotFoundError(
            f"run {record.id} has no artifact that begins with {' or '.join(prefixes)}"
            if prefixes
            else f"run {record.id} has no artifacts yet",
            remedy=f"`simgrid-ml runs files {record.id}` lists them",
        )
    folder = os.path.abspath(output or record.id)
    for artifact in wanted:
        target = os.path.join(folder, *artifact.name.split("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(artifact.path, target)
    if as_json:
        print_json({"directory": folder, "files": [a.name for a in wanted]})
        return
    size = format_bytes(sum(a.bytes for a in wanted))
    click.echo(f"{len(wanted)} files, {size}, in {folder}")


@runs.command()
@run_argument
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds to wait.")
@json_option
@workspace_option
def wait(store: RunStore, run: str, timeout: float | None, as_json: bool) -> int:
    """Wait until the run has ended; its outcome is the exit code, 3 if the time was too short."""
    record = find_run(store, run)
    wait_state(record, timeout)
    code = story.exit_code(record)
    error = story.error_of(record)
    if as_json:
        print_json(
            {"run_id": record.id, "state": record.state.value, "exit_code": code, "error": error}
        )
        return code
    click.echo(f"{record.id}: {_coloured(record.state)}")
    if error:
        print_error(error)
    return code


@runs.command()
@click.argument("words", metavar="RUN...", nargs=-1, required=True)
@click.option("--wait", "wait_for_it", is_flag=True, help="Return when they have ended.")
@json_option
@workspace_option
def cancel(store: RunStore, words: tuple[str, ...], wait_for_it: bool, as_json: bool) -> None:
    """Ask runs to end. Their processes are ended on every node, and what they wrote is kept."""
    told = []
    for record in [find_run(store, word) for word in words]:
        if not record.state.is_terminal:
            record.request_cancel()
            if wait_for_it and story.is_interactive(record) and record.is_supervised():
                click.echo(
                    f"{record.id} is carried by the process that made it, and is Canceled "
                    "when that ends it",
                    err=True,
                )
            elif wait_for_it:
                wait_state(record)
        told.append((record.id, record.state))
    if as_json:
        print_json([{"run_id": run_id, "state": state.value} for run_id, state in told])
        return
    for run_id, state in told:
        said = _coloured(state) if state.is_terminal else "cancellation requested"
        click.echo(f"{run_id}: {said}")


@runs.command()
@click.argument("words", metavar="[RUN]...", nargs=-1)
@click.option(
    "--older-than", type=click.FloatRange(0), metavar="DAYS", help="Runs that ended before that."
)
@state_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@workspace_option
def delete(
    store: RunStore,
    words: tuple[str, ...],
    older_than: float | None,
    state: RunState | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove runs that have ended, each RUN or all of an age or state, with all they kept."""
    if bool(words) == (older_than is not None or state is not None):
        raise UsageError("which runs?", remedy="name them, or give --older-than or --state")
    records = [find_run(store, word) for word in words] or [
        record
        for record in store.list()
        if has_ended(record.state)
        and (state is None or record.state is state)
        and (older_than is None or time.time() - record.states()[-1]["t"] > older_than * 86400)
    ]
    if not yes and records:
        names = "\n".join(f"  {record.id}" for record in records)
        if not sys.stdin.isatty():
            raise UsageError(f"nothing was deleted:\n{names}", remedy="add --yes to delete these")
        click.confirm(f"{names}\nDelete with all logs, metrics and files?", abort=True)
    for record in records:
        store.delete(record)
    if as_json:
        print_json({"deleted": [record.id for record in records]})
        return
    for record in records:
        click.echo(f"{record.id}: deleted")
    if not records:
        click.echo("Nothing to delete.")
