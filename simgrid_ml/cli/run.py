"""``simgrid-ml run``: a job from flags or from a run.yaml, submitted and followed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from simgrid_ml.cli import story
from simgrid_ml.cli.console import Screen, json_option, print_json, print_table
from simgrid_ml.cli.distribution import distribution_of, distribution_options
from simgrid_ml.cli.environment import environment_of, environment_options
from simgrid_ml.cli.gpu_options import gpu_options
from simgrid_ml.cli.link import link_options
from simgrid_ml.cli.workspace import new_workspace_option
from simgrid_ml.errors import NotFoundError, SpecError, UsageError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore

__all__ = ["follow_to_end", "run"]

_OF_THE_CLUSTER = (
    *("backend", "era", "gpu_sharing", "nccl", "scale", "vm_size"),
    "working_directory",
)


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument("script", metavar="SCRIPT|RUN.YAML")
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--source", type=click.Path(), help="Folder given to every node [SCRIPT's folder]")
@distribution_options
@environment_options
@click.option("--interpreter", type=click.Path(), help="Use this Python as it is, install nothing.")
@click.option("--env", "variables", multiple=True, metavar="VAR=VALUE", help="May be repeated.")
@click.option("--cluster", "cluster_name", metavar="NAME", help="A stored cluster.")
@click.option("--backend", help="Where nodes live  [process]")
@click.option("--vm-size", metavar="SIZE", help="What a node has, as Standard_NC6  [the host]")
@click.option("--scale", type=float, help="Nodes get this share of it  [as the host allows]")
@gpu_options
@link_options
@click.option("--era", type=click.Choice(["E1", "E2", "E3"]), help="Azure ML's generation  [E2]")
@click.option("--working-directory", type=click.Choice(["shared", "private"]))
@click.option("--experiment", help="Name in the run history  [SCRIPT's name]")
@click.option("--max-run", metavar="TIME", help="End the run after this time: 90, 10min, 2h.")
@click.option("-d", "--detach", is_flag=True, help="Return at once; the run goes on.")
@click.option("--dry-run", is_flag=True, help="Show what would run where, and start nothing.")
@json_option
@new_workspace_option
def run(
    store: RunStore,
    script: str,
    arguments: tuple[str, ...],
    detach: bool,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Run a script on virtual nodes, or the job of a run.yaml, and follow it to its end.

    Options go before SCRIPT; everything after it is the script's own.

    \b
    simgrid-ml run --nodes 2 --processes-per-node 2 --framework pytorch train.py --epochs 3
    simgrid-ml run --nodes 2 --ps 1 --workers 2 --framework tensorflow train.py
    simgrid-ml run run.yaml
    """
    if script.endswith((".yaml", ".yml")):
        job, cluster, experiment, extra = _from_file(store, script, arguments, flags)
    else:
        job, cluster, experiment = _from_flags(store, script, arguments, flags)
        extra = {}
    if dry_run:
        _print_prospect(job, cluster, store, as_json)
        return 0
    from simgrid_ml.engine.prepare import submit

    warnings = _warnings(job, cluster)
    who = {"submitter": f"session {os.getsid(0)}"}  # all that is typed into one terminal
    known = {**who, **({"warnings": warnings} if warnings else {})}
    record = submit(job, cluster, store=store, experiment=experiment, extra=known, **extra)
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    if detach:
        if as_json:
            print_json({"run_id": record.id, "directory": record.path})
            return 0
        click.echo(record.id)
        click.echo(
            f"Follow: simgrid-ml runs logs -f {record.id}\n"
            f"Cancel: simgrid-ml runs cancel {record.id}",
            err=True,
        )
        return 0
    return follow_to_end(record, as_json=as_json)


def _warnings(job: Any, cluster: Any) -> list[str]:
    """What the job asks for and nodes have not; it is run all the same."""
    if not job.environment.use_gpu and cluster.gpu_sharing.value == "auto":
        return []
    from simgrid_ml.azure.lint import odd_for_cluster  # all of the SDK's stand-in comes with it

    return list(odd_for_cluster(job, cluster))


def _print_prospect(job: Any, cluster: Any, store: RunStore, as_json: bool) -> None:
    """What a run would be given, unless it is refused as a run would be."""
    from simgrid_ml.engine.prepare import prospect

    placement, capacity, gpus, _ = prospect(job, cluster, store=store)
    if as_json:
        print_json(
            {
                "placement": placement.to_json(),
                "capacity": capacity.to_json(),
                "gpus": gpus and gpus.to_json(),
            }
        )
        return
    rows = [(task.name, task.node, str(task.local_rank)) for task in placement.tasks]
    print_table(("task", "node", "local rank"), rows)
    if size := capacity.describe():
        click.echo(f"Nodes: {size}")
    if gpus is not None:
        from simgrid_ml.cli.gpus import print_plan

        print_plan(gpus.to_json(), gpus.describe())
    click.echo("Nothing was started (--dry-run).")


def follow_to_end(record: RunRecord, *, as_json: bool = False) -> int:
    """Print what the run does until it has ended, then what it came to; its exit code."""
    from simgrid_ml.cli.summary import print_outcome
    from simgrid_ml.cli.watch import watch

    with Screen(sys.stderr if as_json else sys.stdout) as screen:
        screen.line(f"Run {record.id}")
        try:
            watch(record, screen)
        except KeyboardInterrupt:
            screen.status("")
            screen.line()
            screen.line(f"Run {record.id} goes on without this terminal.")
            screen.line(f"Follow: simgrid-ml runs logs -f {record.id}")
            screen.line(f"Cancel: simgrid-ml runs cancel {record.id}")
            return 130
    code = story.exit_code(record)
    if as_json:
        print_json(story.describe(record))
    else:
        print_outcome(record)
    return code


# -- from flags ----------------------------------------------------------------------------


def _from_flags(
    store: RunStore, script: str, arguments: tuple[str, ...], flags: Mapping[str, Any]
) -> tuple[Any, Any, str]:
    from simgrid_ml.spec.job import EnvironmentSpec, JobSpec
    from simgrid_ml.units import parse_seconds

    source, entry = _entry(script, flags["source"])
    environment = environment_of(flags)
    interpreter = flags["interpreter"]
    if interpreter and (environment.pip or environment.conda or environment.framework):
        raise UsageError(
            "--interpreter uses a Python as it is, so nothing can be installed into it",
            remedy="leave out --framework, --pip, --conda and --requirements, or --interpreter",
        )
    if interpreter:
        environment = EnvironmentSpec(interpreter=_interpreter(interpreter))
    job = JobSpec(
        source=source,
        entry_script=entry,
        arguments=arguments,
        distribution=distribution_of(flags),
        environment=environment,
        variables=dict(_variable(text) for text in flags["variables"]),
        max_run_s=None if flags["max_run"] is None else _positive(parse_seconds(flags["max_run"])),
    )
    stem = os.path.splitext(os.path.basename(script))[0]
    experiment = flags["experiment"] or _experiment_name(stem)
    return job, _cluster(store, flags, job.distribution.nodes), experiment


def _entry(script: str, source: str | None) -> tuple[str, str]:
    """The source folder and the script's path in it; SCRIPT may be said from here or from there."""
    if source is None:
        if not os.path.isfile(script):
            raise NotFoundError(
                f"there is no script {script!r}",
                remedy=f"looked in {os.getcwd()}; give the path of a file, or --source FOLDER",
            )
        return os.path.dirname(os.path.abspath(script)), os.path.basename(script)
    folder = os.path.abspath(source)
    if not os.path.isdir(folder):
        raise NotFoundError(f"there is no folder {source!r}", remedy="check --source")
    if os.path.isfile(os.path.join(folder, script)):
        return folder, os.path.normpath(script)
    inside = os.path.relpath(os.path.abspath(script), folder)
    if os.path.isfile(script) and not inside.startswith(os.pardir):
        return folder, inside
    raise NotFoundError(
        f"there is no script {script!r} in {folder}",
        remedy="give its path inside the source folder",
    )


def _cluster(store: RunStore, flags: Mapping[str, Any], nodes: int) -> Any:
    from msgspec import structs

    from simgrid_ml.spec.cluster import ClusterSpec, stored_cluster
    from simgrid_ml.spec.links_text import LINK_WORDS, with_default
    from simgrid_ml.spec.value import from_plain, to_plain

    given = {key: flags[key] for key in _OF_THE_CLUSTER if flags[key] is not None}
    plain = (
        {"name": "local", "max_nodes": nodes}
        if flags["cluster_name"] is None
        else to_plain(stored_cluster(store.clusters(), flags["cluster_name"]))
    )
    cluster = from_plain({**plain, **given}, ClusterSpec, "cluster")
    words = {word: flags[word] for word in LINK_WORDS}
    return structs.replace(cluster, links=with_default(cluster.links, words, "links"))


def _interpreter(path: str) -> str:
    import shutil

    found = shutil.which(path)
    if found is None:
        raise NotFoundError(
            f"{path!r} is no program", remedy="give the path of a Python, such as .venv/bin/python"
        )
    return os.path.abspath(found)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--env {text!r} is not VAR=VALUE", remedy="write --env NAME=value")
    return name, value


def _positive(time_s: float) -> float:
    if time_s <= 0:
        raise UsageError("--max-run must be more than nothing", remedy="such as 90, 10min, 2h")
    return time_s


def _experiment_name(stem: str) -> str:
    """The script's name as far as Azure's rule for experiments allows."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in stem)
    return kept.strip("-_")[:255] or "run"


# -- from a file ---------------------------------------------------------------------------


def _from_file(
    store: RunStore, path: str, arguments: tuple[str, ...], flags: Mapping[str, Any]
) -> tuple[Any, Any, str, dict[str, Any]]:
    """``job``, ``cluster`` (a stored name, or its values), ``experiment``, ``tags``."""
    from simgrid_ml.spec.cluster import ClusterSpec, stored_cluster
    from simgrid_ml.spec.job import JobSpec
    from simgrid_ml.spec.links_text import parse_links
    from simgrid_ml.spec.value import from_plain, to_plain

    surplus = [f"--{k.replace('_', '-')}" for k, v in flags.items() if v and k != "experiment"]
    if surplus or arguments:
        what = ", ".join(surplus) or "arguments"
        raise UsageError(f"{what} cannot be combined with a run file", remedy=f"say it in {path}")
    plain = _read_yaml(path)
    known = {"job", "cluster", "experiment", "tags"}
    for key in plain:
        if key not in known:
            raise SpecError(
                f"{path}: {key!r} is unknown",
                remedy=f"one of {', '.join(sorted(known))}",
                where=key,
            )
    if not isinstance(plain.get("job"), dict):
        raise SpecError(
            f"{path}: job: missing, or no mapping", remedy="see the README", where="job"
        )
    folder = os.path.dirname(os.path.abspath(path))
    job_plain = dict(plain["job"])
    source = job_plain.get("source", ".")
    if isinstance(source, str):
        job_plain["source"] = os.path.normpath(os.path.join(folder, os.path.expanduser(source)))
    job_plain["arguments"] = _words(job_plain.get("arguments", []))
    job_plain["variables"] = _texts(job_plain.get("variables") or {})
    job_plain = _without_units(job_plain, "job")
    if isinstance(job_plain.get("distribution"), dict):
        spread = _without_units(job_plain["distribution"], "job.distribution")
        job_plain["distribution"] = spread
    job = from_plain(job_plain, JobSpec, "job")
    cluster_plain = plain.get("cluster", {})
    if isinstance(cluster_plain, str):
        cluster = stored_cluster(store.clusters(), cluster_plain)
    elif isinstance(cluster_plain, dict):
        if cluster_plain.get("links") is not None:
            links = parse_links(cluster_plain["links"])
            cluster_plain = {**cluster_plain, "links": to_plain(links)}
        default = {"name": "local", "max_nodes": job.distribution.nodes}
        cluster = from_plain({**default, **cluster_plain}, ClusterSpec, "cluster")
    else:
        raise SpecError(
            "cluster: neither a name nor a mapping", remedy="see the README", where="cluster"
        )
    stem = os.path.splitext(job.entry_script or os.path.basename(path))[0]
    experiment = flags["experiment"] or plain.get("experiment")
    if experiment is None:
        experiment = _experiment_name(os.path.basename(stem))
    tags = plain.get("tags") or {}
    if not isinstance(tags, dict):
        raise SpecError("tags: not a mapping", remedy="write name: value", where="tags")
    return job, cluster, str(experiment), {"tags": {str(k): str(v) for k, v in tags.items()}}


def _words(value: Any) -> Any:
    """YAML reads ``--epochs, 3`` as a number; a command line has only words."""
    if not isinstance(value, list):
        return value
    return [str(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v for v in value]


def _texts(value: Any) -> Any:
    """YAML reads ``OMP_NUM_THREADS: 1`` as a number; a variable is text."""
    if not isinstance(value, dict):
        return value
    for key, one in value.items():
        if not isinstance(one, (str, int, float)):
            where = f"job.variables.{key}"
            raise SpecError(f"{where}: neither text nor a number", remedy="quote it", where=where)
    return {
        str(key): str(one).lower() if isinstance(one, bool) else str(one)
        for key, one in value.items()
    }


def _without_units(said: dict[str, Any], what: str) -> dict[str, Any]:
    """``max_run_s: 10 min`` in seconds, ``shm_size_bytes: 2g`` in bytes."""
    from simgrid_ml.units import parse_bytes, parse_seconds

    plain = dict(said)
    for suffix, parse in (("_s", parse_seconds), ("_bytes", parse_bytes)):
        for key, value in said.items():
            if isinstance(value, str) and str(key).endswith(suffix):
                try:
                    plain[key] = parse(value)
                except SpecError as error:
                    where = f"{what}.{key}"
                    raise SpecError(
                        f"{where}: {error.cause}", remedy=error.remedy, where=where
                    ) from error
    return plain


def _read_yaml(path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(path, encoding="utf-8") as stream:
            value = yaml.safe_load(stream)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path!r}", remedy="check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(
            f"{path} cannot be read", evidence=str(error), remedy="it must be a YAML mapping"
        ) from error
    if not isinstance(value, dict):
        raise SpecError(f"{path} holds no mapping", remedy="begin with `job:`, see the README")
    return value
