"""``simgrid-ml cluster``: the stored clusters, and the nodes that they keep between runs."""

from __future__ import annotations

from typing import Any

import click

from simgrid_ml.cli.console import json_option, plain_text, print_json, print_table
from simgrid_ml.cli.gpu_options import gpu_options
from simgrid_ml.cli.link import link_options
from simgrid_ml.cli.workspace import new_workspace_option, workspace_option
from simgrid_ml.engine import pools
from simgrid_ml.errors import ConflictError, SpecError
from simgrid_ml.record.store import RunStore

__all__ = ["cluster"]

ERAS = click.Choice(["E1", "E2", "E3"])
WORKING_DIRECTORIES = click.Choice(["shared", "private"])
SCALE = click.option(
    "--scale", type=float, help="Nodes get this share of their size.  [as the host allows]"
)
IDLE = click.option(
    "--idle",
    "idle_seconds_before_scaledown",
    type=click.IntRange(0),
    metavar="SECONDS",
    help="Nodes above the minimum end when no run has used them for so long.  [default: 1800]",
)


@click.group()
def cluster() -> None:
    """Create, list, change, delete clusters.

    A cluster says on what a job runs: how many virtual nodes at most, of which Azure size,
    by which backend, as which generation of Azure ML.
    """


def _put(store: RunStore, spec: Any, stored: dict[str, Any]) -> None:
    from simgrid_ml.spec.value import to_plain

    pools.check_minimum(spec)
    store.put_cluster(spec.name, {**stored, **to_plain(spec)})
    pools.cluster_changed(store, spec.name)


def _preemptions(words: tuple[str, ...]) -> list[dict[str, Any]]:
    """``node1@30s`` as a cluster has it."""
    from simgrid_ml.units import parse_seconds

    found = []
    for word in words:
        node, at, after = word.partition("@")
        if not at:
            raise SpecError(
                f"{word!r} does not say when a node is pre-empted",
                remedy="write NODE@TIME, such as node1@30s",
            )
        found.append({"node": node, "after_s": parse_seconds(after)})
    return found


def _told(links: Any) -> str:
    """Stored links in a line."""
    from simgrid_ml.spec.links import Links, describe
    from simgrid_ml.spec.value import from_plain

    if links is None:
        return ""
    read = from_plain(links, Links, "links")
    more = {"nodes": len(read.nodes), "pairs": len(read.pairs), "racks": len(read.racks)}
    parts = [f"{count} {what} of their own" for what, count in more.items() if count]
    return "; ".join([describe(read.default), *parts])


def _links(links: Any, said: dict[str, Any]) -> Any:
    """``links`` with what is said of them, as plain data; those words are taken out of ``said``."""
    from simgrid_ml.spec.links_text import LINK_WORDS, with_default
    from simgrid_ml.spec.value import to_plain

    words = {word: said.pop(word) for word in LINK_WORDS}
    return to_plain(with_default(links, words, "links"))


@cluster.command()
@click.argument("name")
@click.option("--max-nodes", type=click.IntRange(1), default=4, show_default=True)
@click.option("--min-nodes", type=click.IntRange(0), default=0, show_default=True)
@click.option("--vm-size", help="A size of Azure; without one nodes see the whole host.")
@SCALE
@click.option("--vm-priority", type=click.Choice(["dedicated", "lowpriority"]), default="dedicated")
@click.option("--backend", default="process", show_default=True)
@click.option("--era", type=ERAS, default="E2", show_default=True, help="Names of logs, variables.")
@click.option(
    "--working-directory",
    type=WORKING_DIRECTORIES,
    help="One folder for all nodes, or one for each. Default: as the era did.",
)
@IDLE
@click.option(
    "--preempt",
    "preemptions",
    multiple=True,
    metavar="NODE@TIME",
    help="Take a low-priority node away so long after the first run got nodes: node1@30s.",
)
@gpu_options
@link_options
@json_option
@new_workspace_option
def create(store: RunStore, name: str, as_json: bool, **said: Any) -> None:
    """Store a cluster called NAME."""
    from simgrid_ml.spec.cluster import RESERVED_NAMES, ClusterSpec, is_cluster_name
    from simgrid_ml.spec.value import from_plain, to_plain

    if not is_cluster_name(name):
        raise SpecError(
            f"{name!r} cannot name a cluster",
            remedy="2 to 24 letters, digits and '-', first a letter, and a letter after every '-'; "
            f"not {', '.join(RESERVED_NAMES)}",
        )
    if name in store.clusters():
        raise ConflictError(
            f"cluster {name!r} exists", remedy=f"`simgrid-ml cluster update {name}` changes it"
        )
    said["preemptions"] = _preemptions(said["preemptions"])
    said["links"] = _links(None, said)
    given = {key: value for key, value in said.items() if value is not None}
    spec = from_plain({"name": name, **given}, ClusterSpec, "cluster")
    _put(store, spec, {})
    if as_json:
        print_json(to_plain(spec))
    else:
        click.echo(f"Cluster {name} is stored; `simgrid-ml run --cluster {name} …` uses it.")


@cluster.command("list")
@json_option
@workspace_option
def list_(store: RunStore, as_json: bool) -> None:
    """The stored clusters."""
    from simgrid_ml.spec.cluster import stored_cluster
    from simgrid_ml.spec.value import to_plain

    stored = store.clusters()
    specs = [stored_cluster(stored, name) for name in stored]
    if as_json:
        print_json([to_plain(spec) for spec in specs])
        return
    if not specs:
        click.echo(
            "No clusters yet. `simgrid-ml cluster create NAME` stores one; runs without "
            "--cluster need none."
        )
        return
    print_table(
        ("name", "nodes", "size", "backend", "era"),
        [
            (s.name, f"{s.min_nodes} to {s.max_nodes}", s.vm_size, s.backend, s.era.value)
            for s in specs
        ],
    )


@cluster.command()
@click.argument("name")
@json_option
@workspace_option
def show(store: RunStore, name: str, as_json: bool) -> None:
    """One cluster: what it is, the runs that use it, its nodes and its queue now."""
    from simgrid_ml.spec.cluster import stored_cluster
    from simgrid_ml.spec.value import to_plain

    plain = to_plain(stored_cluster(store.clusters(), name))
    active = [
        record.id
        for record in store.list()
        if (record.spec().get("cluster") or {}).get("name") == name and record.is_supervised()
    ]
    pool = pools.status(store, name) or pools.NO_POOL
    if as_json:
        now = {key: pool[key] for key in ("errors", "nodes", "preempted", "waiting")}
        print_json({**plain, "active_runs": active, **now})
        return
    told = {**plain, "links": _told(plain["links"])}
    rows = [
        (key.replace("_", " "), str(value))
        for key, value in told.items()
        if value not in (None, "", (), [], {})
    ]
    print_table(("", ""), [*rows, ("active runs", ", ".join(active) or "none")])
    found = [(n["name"], n["state"], n["run"] or "", n["address"] or "") for n in pool["nodes"]]
    found += [(node, "preempted", "", "") for node in pool["preempted"]]
    click.echo()
    if found:
        print_table(("node", "state", "run", "address"), found)
    else:
        click.echo("No nodes now." if plain["min_nodes"] else "No nodes now: they come with runs.")
    for one in pool["waiting"]:
        nodes = "1 node" if one["nodes"] == 1 else f"{one['nodes']} nodes"
        click.echo(f"Queued at place {one['position']}: {one['run']}, for {nodes}")
    if pool["errors"]:
        click.echo(f"Last error: {plain_text(str(pool['errors'][-1]['cause']))}")


@cluster.command()
@click.argument("name")
@click.option("--max-nodes", type=click.IntRange(1))
@click.option("--min-nodes", type=click.IntRange(0))
@IDLE
@click.option("--vm-size")
@SCALE
@click.option("--backend")
@click.option("--era", type=ERAS)
@click.option("--working-directory", type=WORKING_DIRECTORIES)
@gpu_options
@link_options
@json_option
@workspace_option
def update(store: RunStore, name: str, as_json: bool, **said: Any) -> None:
    """Change a stored cluster. Runs already submitted keep what they were submitted with."""
    from simgrid_ml.spec.cluster import ClusterSpec, stored_cluster
    from simgrid_ml.spec.value import from_plain, to_plain

    if all(value is None for value in said.values()):
        raise SpecError("nothing to change", remedy="give at least one option, see --help")
    stored = stored_cluster(store.clusters(), name)
    words = {key: value for key, value in said.items() if value is not None}
    links = _links(stored.links, said)
    given = {key: value for key, value in said.items() if value is not None}
    plain = {**to_plain(stored), **given, "links": links}
    spec = from_plain(plain, ClusterSpec, "cluster")
    _put(store, spec, store.clusters()[name])
    if as_json:
        print_json(to_plain(spec))
    else:
        click.echo(f"Cluster {name}: " + ", ".join(f"{k} = {v}" for k, v in words.items()))


@cluster.command()
@click.argument("name")
@json_option
@workspace_option
def delete(store: RunStore, name: str, as_json: bool) -> None:
    """Forget a stored cluster. Its idle nodes end, its runs go on and stay."""
    store.delete_cluster(name)
    pools.cluster_changed(store, name)
    if as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"Cluster {name} is deleted; its runs stay.")


@cluster.command()
@click.argument("name")
@json_option
@workspace_option
def stop(store: RunStore, name: str, as_json: bool) -> None:
    """End the idle nodes of cluster NAME now, those of its minimum as well.

    Runs that go on keep their nodes until they end; the next run brings new ones.
    """
    from simgrid_ml.spec.cluster import stored_cluster

    stored_cluster(store.clusters(), name)
    said = pools.stop(pools.pool_folder(store, name))
    if as_json:
        print_json(said)
        return
    count = said["ended"]
    click.echo(f"{count} idle node{'' if count == 1 else 's'} of {name} ended.")
    if said["runs"]:
        click.echo(f"Still going on: {', '.join(said['runs'])}")


@cluster.command()
@click.argument("name")
@click.argument("node")
@json_option
@workspace_option
def preempt(store: RunStore, name: str, node: str, as_json: bool) -> None:
    """Take NODE away from low-priority cluster NAME, as Azure does without notice.

    The run that uses it begins again from the beginning when there are nodes for it.
    """
    run = pools.preempt(store, name, node)
    if as_json:
        print_json({"node": node, "run": run})
    elif run is None:
        click.echo(f"{node} of {name} is pre-empted; no run used it.")
    else:
        click.echo(f"{node} of {name} is pre-empted; {run} begins again from the beginning.")
