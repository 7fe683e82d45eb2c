"""``simgrid-ml gpus``: what would be behind nodes' GPUs here, and who uses those of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from simgrid_ml import wire
from simgrid_ml.cli.console import (
    Screen,
    json_option,
    print_json,
    print_table,
    print_text,
    sparkline,
)
from simgrid_ml.cli.gpu_options import SHARINGS, gpu_options
from simgrid_ml.cli.gpu_story import GpuUse, RunGpus, gpus_of, in_a_line, over_time, plan_rows
from simgrid_ml.cli.workspace import find_run, workspace_option
from simgrid_ml.errors import NotFoundError, PlacementError, UsageError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore
from simgrid_ml.units import format_bytes

__all__ = ["gpus", "print_gpus", "print_plan"]

_SIZE = "Standard_NC6"
_WIDTH = 32
_LOOK_S = 0.5


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--vm-size", metavar="SIZE", help=f"What a node has  [{_SIZE}]")
@click.option("-n", "--nodes", type=click.IntRange(1), help="[1]")
@click.option("-p", "--processes-per-node", type=click.IntRange(1), help="[one for each GPU]")
@gpu_options
@click.option("--backend", help="Where nodes live  [process]")
@click.option("-f", "--follow", "follow_it", is_flag=True, help="Go on until RUN has ended.")
@json_option
@workspace_option
def gpus(store: RunStore, run: str | None, follow_it: bool, as_json: bool, **asked: Any) -> None:
    """What GPUs nodes would have on this host and why, or what RUN takes of its own.

    \b
    simgrid-ml gpus                                     # this host, and each way to share it
    simgrid-ml gpus --vm-size Standard_NC12 --nodes 4   # what would I get?
    simgrid-ml gpus latest                              # memory per GPU, now and at most
    """
    words = [f"--{name.replace('_', '-')}" for name, value in asked.items() if value is not None]
    if run is None:
        if follow_it:
            raise UsageError("--follow needs a run", remedy="simgrid-ml gpus --follow latest")
        _print_prospect(asked, as_json)
        return
    if words:
        raise UsageError(
            f"{', '.join(words)} cannot be combined with a run, which has its GPUs already",
            remedy=f"simgrid-ml gpus {run}",
        )
    record = find_run(store, run)
    if follow_it:
        _follow(record, as_json)
    found = gpus_of(record)
    if found is None:
        raise NotFoundError(
            f"the nodes of {record.id} have no GPUs",
            evidence=f"its VM size is {(record.spec().get('cluster') or {}).get('vm_size')}",
            remedy="--vm-size Standard_NC12 gives every node two",
        )
    if as_json:
        print_json({"run_id": record.id, "state": record.state.value, **found.to_json()})
        return
    click.echo(f"{record.id}: {record.state.value}")
    print_text(found.describe())
    print_table(("", ""), plan_rows(found.plan), indent=2)
    click.echo()
    print_gpus(found)


def print_gpus(found: RunGpus, indent: int = 0) -> None:
    """A table of the GPUs, and one of who used them."""
    print_table(
        ("node", "gpu", "uuid", "now", "peak", "of", "over time"),
        [
            (
                *(gpu.node, str(gpu.number), gpu.uuid),
                *map(format_bytes, (gpu.now_bytes, gpu.peak_bytes, gpu.memory_bytes)),
                _curve(gpu),
            )
            for gpu in found.gpus
        ],
        indent,
    )
    users = [(gpu, user) for gpu in found.gpus for user in gpu.users]
    if not users:
        click.echo(" " * indent + "No process has put anything on a GPU.")
        return
    click.echo()
    print_table(
        ("task", "node", "gpu", "pid", "now", "peak"),
        [
            (
                *(user.task or user.name, gpu.node, str(gpu.number), str(user.pid)),
                "ended" if user.now_bytes is None else format_bytes(user.now_bytes),
                format_bytes(user.peak_bytes),
            )
            for gpu, user in users
        ],
        indent,
    )


def _curve(gpu: GpuUse) -> str:
    """Memory over the run's time; the tallest bar is the peak of the samples."""
    values = over_time(gpu.samples, _WIDTH)
    return sparkline(values, low=0) if any(values) else ""


def _follow(record: RunRecord, as_json: bool) -> None:
    """A line for each change, until the run has ended."""
    from simgrid_ml.record.follow import has_ended
    from simgrid_ml.record.journal import scan_journal

    offset = 0
    screen = Screen(sys.stderr if as_json else sys.stdout)
    while True:
        ended = has_ended(record.state)
        for read, line in scan_journal(record.file(wire.GPU_MEMORY), offset):
            offset = read
            plan = record.document(wire.GPUS)
            memory_bytes = plan["nodes"][0]["shares"][0]["memory_bytes"]
            clock = time.strftime("%H:%M:%S", time.localtime(line["t"]))
            screen.line(f"{clock}  {in_a_line(line['used'], memory_bytes)}")
        if ended:
            return
        time.sleep(_LOOK_S)


# -- what would be --------------------------------------------------------------------------


def _print_prospect(asked: Mapping[str, Any], as_json: bool) -> None:
    from dataclasses import asdict

    from simgrid_ml.backends.image import OffersImages
    from simgrid_ml.engine import plugins
    from simgrid_ml.spec.cluster import HOST_SIZE, ClusterSpec
    from simgrid_ml.spec.gpu_plan import plan_gpus
    from simgrid_ml.spec.gpus import GpuPlan
    from simgrid_ml.spec.value import from_plain
    from simgrid_ml.spec.vm_sizes import vm_size

    nodes = asked["nodes"] or 1
    if asked["vm_size"] == HOST_SIZE:
        raise UsageError(
            f"nodes of the size {HOST_SIZE!r} have no GPUs of their own",
            remedy=f"--vm-size {_SIZE} gives every node one, on any host",
        )
    size = vm_size(asked["vm_size"] or _SIZE)
    given = {key: asked[key] for key in ("backend", "gpu_sharing", "nccl") if asked[key]}
    plain = {"name": "local", "max_nodes": nodes, "vm_size": size.name, **given}
    cluster = from_plain(plain, ClusterSpec, "cluster")
    backend = plugins.backend(cluster.backend)
    host = backend.inventory()

    def planned(sharing: str) -> GpuPlan | PlacementError | None:
        one = from_plain({**plain, "gpu_sharing": sharing}, ClusterSpec, "cluster")
        try:
            return plan_gpus(
                one,
                [f"node{number}" for number in range(nodes)],
                host.gpus,
                memory_bytes=host.memory_bytes,
                processes_per_node=asked["processes_per_node"] or max(1, size.gpus),
                contained=isinstance(backend, OffersImages),
            )
        except PlacementError as refused:
            return refused

    ways = {sharing: planned(sharing) for sharing in SHARINGS if sharing not in ("auto", "none")}
    chosen = planned(cluster.gpu_sharing.value)
    if as_json:
        print_json(
            {
                "host": asdict(host.gpus),
                "vm_size": size.name,
                "nodes": nodes,
                "gpu_sharing": cluster.gpu_sharing.value,
                "chosen": _plain(chosen),
                "ways": {sharing: _plain(way) for sharing, way in ways.items()},
            }
        )
        return
    _print_host(host.gpus)
    click.echo()
    count = f"{nodes} node{'s' * (nodes > 1)} of {size.name}"
    if chosen is None:
        why = "has none" if not size.gpus else f"gpu_sharing is {cluster.gpu_sharing.value}"
        click.echo(f"{count}: no GPUs ({why})")
        return
    if isinstance(chosen, GpuPlan):
        click.echo(f"{count} would get:")
        print_plan(chosen.to_json(), chosen.describe())
        click.echo()
    click.echo(f"{count}, by each way to share (--gpu-sharing):")
    rows = [(sharing, *_in_words(way)) for sharing, way in ways.items()]
    print_table(("", "", ""), rows, indent=2)
    if isinstance(chosen, PlacementError):
        raise chosen


def _print_host(host: Any) -> None:
    if not host.gpus:
        why = host.why_none or "the host has no NVIDIA GPU"
        print_text(why[0].upper() + why[1:])
        return
    versions = f"driver {host.driver}, CUDA up to {host.cuda}"
    click.echo(f"This host: {len(host.gpus)} GPU{'s' * (len(host.gpus) > 1)}, {versions}")
    rows = []
    for number, gpu in enumerate(host.gpus):
        instances = f"{len(gpu.mig)} MIG instances" if gpu.mig_enabled else ""
        rows.append((str(number), gpu.name, format_bytes(gpu.memory_bytes), gpu.uuid, instances))
    print_table(("", "", "", "", ""), rows, indent=2)
    if host.why_none:
        print_text(host.why_none, indent=2)


def print_plan(plan: Mapping[str, Any], described: str) -> None:
    """What is behind GPUs, why, and what of it holds whatever a script does."""
    print_table(("", ""), [("GPUs", described), *plan_rows(plan)], indent=2)


def _plain(way: Any) -> Any:
    return {"error": way.to_json()} if isinstance(way, PlacementError) else way and way.to_json()


def _in_words(way: Any) -> tuple[str, str]:
    if isinstance(way, PlacementError):
        why = "; ".join(filter(None, (way.evidence or "").splitlines()))
        return "no", why or way.cause
    return ("yes", way.describe()) if way is not None else ("no", "")
