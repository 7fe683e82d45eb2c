"""``simgrid-ml run``: a job from flags or from a run.yaml, submitted and followed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from simgrid_ml.cli import story
from simgrid_ml.cli.console import Screen, json_option, print_json
from simgrid_ml.cli.workspace import new_workspace_option
from simgrid_ml.errors import NotFoundError, SpecError, UsageError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore

__all__ = ["follow_to_end", "run"]

FRAMEWORKS = ("pytorch", "sklearn", "none")


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument("script", metavar="SCRIPT|RUN.YAML")
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--source", type=click.Path(), help="Folder given to every node [SCRIPT's folder]")
@click.option("-n", "--nodes", type=click.IntRange(1), help="Virtual nodes  [1]")
@click.option("-p", "--processes-per-node", type=click.IntRange(1), help="Ranks on each node  [1]")
@click.option(
    "--plain", is_flag=True, help="No MPI: the same script once on every node, no rendezvous."
)
@click.option("--framework", type=click.Choice(FRAMEWORKS), help="What to install  [none]")
@click.option("--framework-version", help="As an estimator takes it; old ones are substituted.")
@click.option("--pip", multiple=True, metavar="REQUIREMENT", help="May be repeated.")
@click.option("--conda", multiple=True, metavar="PACKAGE", help="May be repeated.")
@click.option(
    "--requirements", type=click.Path(), multiple=True, help="A requirements file; may be repeated."
)
@click.option("--gpu", is_flag=True, help="Prefer CUDA builds.")
@click.option("--interpreter", type=click.Path(), help="Use this Python as it is, install nothing.")
@click.option("--env", "variables", multiple=True, metavar="VAR=VALUE", help="May be repeated.")
@click.option("--cluster", "cluster_name", metavar="NAME", help="A stored cluster.")
@click.option("--backend", help="Where nodes live  [process]")
@click.option("--era", type=click.Choice(["E1", "E2", "E3"]), help="Azure ML's generation  [E2]")
@click.option("--working-directory", type=click.Choice(["shared", "private"]))
@click.option("--experiment", help="Name in the run history  [SCRIPT's name]")
@click.option("--max-run", metavar="TIME", help="End the run after this time: 90, 10min, 2h.")
@click.option("-d", "--detach", is_flag=True, help="Return at once; the run goes on.")
@json_option
@new_workspace_option
def run(
    store: RunStore,
    script: str,
    arguments: tuple[str, ...],
    detach: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Run a script on virtual nodes, or the job of a run.yaml, and follow it to its end.

    Options go before SCRIPT; everything after it is the script's own.

    \b
    simgrid-ml run --nodes 2 --processes-per-node 2 --framework pytorch train.py --epochs 3
    simgrid-ml run run.yaml
    """
    if script.endswith((".yaml", ".yml")):
        job, cluster, experiment, extra = _from_file(store, script, arguments, flags)
    else:
        job, cluster, experiment = _from_flags(store, script, arguments, flags)
        extra = {}
    from simgrid_ml.engine.prepare import submit

    record = submit(job, cluster, store=store, experiment=experiment, **extra)
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
    from simgrid_ml.spec.job import EnvironmentSpec, JobSpec, Mpi, Plain
    from simgrid_ml.units import parse_seconds

    source, entry = _entry(script, flags["source"])
    nodes, per_node = flags["nodes"], flags["processes_per_node"]
    if flags["plain"] and per_node is not None:
        raise UsageError(
            "--plain runs the script once on every node, so --processes-per-node means nothing",
            remedy="leave one of them out",
        )
    distribution = (
        Mpi(nodes=nodes or 1, processes_per_node=per_node or 1)
        if not flags["plain"] and (nodes or per_node)
        else Plain(nodes=nodes or 1)
    )
    packages = [*flags["pip"]]
    for path in flags["requirements"]:
        packages += _requirements(path)
    interpreter = flags["interpreter"]
    framework = None if flags["framework"] in (None, "none") else flags["framework"]
    if flags["framework_version"] and framework is None:
        raise UsageError("--framework-version without --framework", remedy="name the framework")
    if interpreter and (packages or flags["conda"] or framework):
        raise UsageError(
            "--interpreter uses a Python as it is, so nothing can be installed into it",
            remedy="leave out --framework, --pip, --conda and --requirements, or --interpreter",
        )
    if interpreter:
        interpreter = _interpreter(interpreter)
    job = JobSpec(
        source=source,
        entry_script=entry,
        arguments=arguments,
        distribution=distribution,
        environment=EnvironmentSpec(
            framework=framework,
            framework_version=flags["framework_version"],
            pip=tuple(packages),
            conda=tuple(flags["conda"]),
            use_gpu=flags["gpu"],
            interpreter=interpreter,
        ),
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
    from simgrid_ml.cli.cluster import load_cluster
    from simgrid_ml.spec.cluster import ClusterSpec
    from simgrid_ml.spec.value import from_plain, to_plain

    given = {
        key: flags[key] for key in ("backend", "era", "working_directory") if flags[key] is not None
    }
    plain = (
        {"name": "local", "max_nodes": nodes}
        if flags["cluster_name"] is None
        else to_plain(load_cluster(store, flags["cluster_name"]))
    )
    return from_plain({**plain, **given}, ClusterSpec, "cluster")


def _requirements(path: str) -> list[str]:
    """The lines of a requirements file as pip reads them, comments left out."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read().replace("\\\n", " ")
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no requirements file {path!r}", remedy="check --requirements"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path!r} cannot be read: {error}", remedy="give a text file") from error
    lines = [line.split(" #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


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
    from simgrid_ml.spec.cluster import ClusterSpec
    from simgrid_ml.spec.job import JobSpec
    from simgrid_ml.spec.value import from_plain

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
    job = from_plain(job_plain, JobSpec, "job")
    cluster_plain = plain.get("cluster", {})
    if isinstance(cluster_plain, str):
        from simgrid_ml.cli.cluster import load_cluster

        cluster = load_cluster(store, cluster_plain)
    elif isinstance(cluster_plain, dict):
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
