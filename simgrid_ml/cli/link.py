"""``simgrid-ml link``: the shaped links of a live run, shown and changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from simgrid_ml import errors, wire
from simgrid_ml.cli.console import json_option, print_json, print_table
from simgrid_ml.cli.workspace import find_run, workspace_option
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore
from simgrid_ml.units import format_bytes

__all__ = ["link", "link_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

run_option = click.option("--run", default="latest", show_default=True, metavar="RUN")


def link_options(command: Command) -> Command:
    """The words of a link as options of a command."""
    for option in (
        click.option("--loss", metavar="SHARE", help="Share of packets lost: 0.1%."),
        click.option("--jitter", metavar="TIME", help="Delays vary by so much: 100us."),
        click.option("--delay", metavar="TIME", help="One way, of each node's link: 2ms."),
        click.option("--rate", metavar="RATE", help="Of each node's link: 1Gbit, unlimited."),
    ):
        command = option(command)
    return command


@click.group()
def link() -> None:
    """Show and change the links between the nodes of a live run.

    Links are shaped if the run began so: `simgrid-ml run --rate 1Gbit --delay 2ms …`.
    """


@link.command("set")
@click.argument("target", metavar="NODE|RACK|PAIR")
@link_options
@run_option
@json_option
@workspace_option
def set_(
    store: RunStore,
    target: str,
    run: str,
    as_json: bool,
    rate: str | None,
    delay: str | None,
    jitter: str | None,
    loss: str | None,
) -> None:
    """Change a link now, in both directions; what is not given stays.

    \b
    simgrid-ml link set node0 --rate 1Gbit --delay 2ms
    simgrid-ml link set node0-node1 --loss 1%
    """
    given = {"rate": rate, "delay": delay, "jitter": jitter, "loss": loss}
    words = {key: value for key, value in given.items() if value is not None}
    if not words:
        raise errors.UsageError(
            "nothing to change", remedy="give --rate, --delay, --jitter or --loss"
        )
    answer = ask(find_run(store, run), target=target, words=words)
    now = answer["network"]["links"][target]
    if as_json:
        print_json({"target": target, **now})
    else:
        click.echo(f"The link of {target} is now: {now['text']}")


@link.command()
@run_option
@json_option
@workspace_option
def show(store: RunStore, run: str, as_json: bool) -> None:
    """The links of a live run, and what each direction has carried."""
    answer = ask(find_run(store, run))
    if as_json:
        print_json(answer)
        return
    network, cables = answer["network"], answer["cables"]
    click.echo(f"{network['method']} ({network['program']})")
    rows = []
    for target, now in network["links"].items():
        carried = [cables.get(f"{target} {way}") for way in ("up", "down")]
        rows.append((target, now["text"], *map(_carried, carried)))
    print_table(("link", "", "up", "down"), rows)


def _carried(counters: Mapping[str, Any] | None) -> str:
    if counters is None:
        return ""
    gone = [f"{counters[what]} {what}" for what in ("dropped", "lost") if counters[what]]
    return ", ".join([format_bytes(counters["bytes"]), *gone])


def ask(record: RunRecord, **message: Any) -> dict[str, Any]:
    """The answer of a run's supervisor to a question about its links.

    Raises:
        NotFoundError: the run has no supervisor.
        SimgridError: what the supervisor answers, as it is.
    """
    from simgrid_ml.node.protocol import connect

    try:
        connection = connect(record.file(wire.SOCKET))
    except OSError:
        raise _no_nodes(record) from None
    try:
        answer = connection.ask(op="link", **message)
    finally:
        connection.close()
    if answer is None:
        raise _no_nodes(record)
    if "error" in answer:
        said = answer["error"]
        kind = getattr(errors, said["kind"], errors.SimgridError)
        raise kind(said["cause"], remedy=said["remedy"], evidence=said["evidence"])
    return answer


def _no_nodes(record: RunRecord) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"run {record.id} has no nodes: it is {record.state.value}",
        remedy="links live only while a run is Running",
    )
