"""``simgrid-ml tensorboard``: what runs wrote and logged, as curves in a browser or as files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import closing

import click

from simgrid_ml.cli.workspace import find_run, workspace_option
from simgrid_ml.errors import HostError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore

__all__ = ["tensorboard"]

_LOOK_S = 0.5


@click.command()
@click.argument("words", metavar="RUN...", nargs=-1, required=True)
@click.option("--port", type=click.IntRange(0, 65535), help="[6006, or the next that is free]")
@click.option(
    "--export",
    "folder",
    type=click.Path(file_okay=False),
    help="Write the logged metrics as event files to this folder, and start nothing.",
)
@workspace_option
def tensorboard(
    store: RunStore, words: tuple[str, ...], port: int | None, folder: str | None
) -> int:
    """Show runs in TensorBoard until Ctrl-C, also while they are live.

    Of each run: the event files its script writes below ./logs, and what was logged with
    `Run.log`, as `<run id>/metrics`. TensorBoard comes with the environments of PyTorch and
    TensorFlow; for other runs, install it next to simgrid-ml.
    """
    runs = {record.id: record for record in (find_run(store, word) for word in words)}
    if folder is not None:
        _export(runs.values(), folder)
        return 0
    from simgrid_ml.azure.tensorboard_server import Board

    with closing(Board(runs, port=port, metrics=True, say=_say)) as board:
        click.echo(f"TensorBoard: {board.url}")
        _say("Ctrl-C ends it; the runs go on.")
        try:
            while board.poll() is None:
                time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            return 0
    raise HostError("TensorBoard has ended by itself", remedy="start it again")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _export(records: Iterable[RunRecord], folder: str) -> None:
    from simgrid_ml.azure.tensorboard_export import MetricEvents

    for record in records:
        target = os.path.join(folder, record.id)
        with closing(MetricEvents(record, target)) as events:
            events.update()
        click.echo(target)
