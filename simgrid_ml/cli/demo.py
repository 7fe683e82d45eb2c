"""``simgrid-ml demo``: everything once, on the data that ships with scikit-learn.

The driver script that is shown is the one that is run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click

from simgrid_ml.cli.console import Screen, print_text
from simgrid_ml.cli.demo_drivers import SIZE, SOURCE, TAIL, Workload, workload
from simgrid_ml.cli.demo_summary import summarise
from simgrid_ml.cli.python import SHIM
from simgrid_ml.cli.watch import watch
from simgrid_ml.engine import plugins
from simgrid_ml.environments.cache import Cache
from simgrid_ml.errors import ConflictError, HostError, SimgridError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore

__all__ = ["demo", "has_compiled_horovod"]


@click.command()
@click.option(
    "--framework",
    type=click.Choice(["pytorch", "tensorflow"]),
    default="pytorch",
    show_default=True,
)
@click.option(
    "--distribution",
    type=click.Choice(["mpi", "ps"]),
    default="mpi",
    show_default=True,
    help="How it is trained: Horovod over Open MPI, or TensorFlow's parameter server.",
)
@click.option("-n", "--nodes", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "-p",
    "--processes-per-node",
    type=click.IntRange(1),
    help="Of an MPI job  [one for each GPU of a node, or 2]",
)
@click.option(
    "--vm-size", metavar="SIZE", default=SIZE, show_default=True, help="What a node has: GPUs, too."
)
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
def demo(
    framework: str,
    distribution: str,
    nodes: int,
    processes_per_node: int | None,
    vm_size: str,
    epochs: int,
    backend: str,
    era: str,
    copy_to: str | None,
) -> int:
    """Train a small network on virtual nodes, start to end.

    Builds the environment of PyTorch or TensorFlow, with Horovod (minutes the first time, nothing
    after that), submits an estimator, trains on handwritten digits, and shows what a run leaves:
    stages, metrics, logs of every task, artifacts, verdicts.

    \b
    simgrid-ml demo --vm-size STANDARD_NC12    # two virtual GPUs a node, on any host
    """
    job = workload(
        framework,
        distribution,
        nodes=nodes,
        processes_per_node=processes_per_node,
        epochs=epochs,
        vm_size=vm_size,
    )
    name = os.path.basename(SOURCE)
    shown = job.driver(name, backend=backend, era=era)
    if copy_to is not None:
        _copy(copy_to, job, shown)
        return 0
    plugins.backend(backend)  # refused before anything is shown
    click.echo(
        click.style("simgrid-ml demo", bold=True) + f": handwritten digits on {job.describe()}"
    )
    click.echo("The driver script, as for the cloud:\n")
    for line in shown.splitlines():
        click.echo(click.style(f"  {line}".rstrip(), dim=True))
    click.echo()
    if not has_compiled_horovod(job.framework.module):
        print_text(
            f"The first run installs {job.framework.name} and compiles Horovod: some minutes on "
            "two cores, once."
        )
    with Screen() as screen:
        screen.status("submitting")
        record = _submit(job.driver(SOURCE, backend=backend, era=era))
        screen.line(f"Submitted as {record.id}")
        try:
            watch(record, screen)
        except KeyboardInterrupt:
            screen.status("")
            screen.line(f"\nRun {record.id} goes on without this terminal.")
            screen.line(f"Follow: simgrid-ml runs logs -f {record.id}")
            screen.line(f"Cancel: simgrid-ml runs cancel {record.id}")
            return 130
    return summarise(record)


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


def has_compiled_horovod(module: str = "torch") -> bool:
    """Whether there is a Horovod for some build of the framework that is imported as ``module``."""
    return any((Cache.default().root / "wheels").glob(f"*-{module}-*/horovod-*.whl"))


@contextlib.contextmanager
def _stand_in_first() -> Iterator[None]:
    sys.path.insert(0, SHIM)
    try:
        yield
    finally:
        sys.path.remove(SHIM)


def _copy(folder: str, job: Workload, script: str) -> None:
    folder = os.path.abspath(folder)
    driver = os.path.join(folder, "driver.py")
    source = os.path.join(folder, os.path.basename(SOURCE))
    for path in (driver, source):
        if os.path.exists(path):
            raise ConflictError(f"{path} exists", remedy="name another folder")
    try:
        os.makedirs(source)
        for name in ("digits.py", job.entry_script):
            shutil.copyfile(os.path.join(SOURCE, name), os.path.join(source, name))
        with open(driver, "w", encoding="utf-8") as stream:
            stream.write(script + TAIL)
    except OSError as error:
        raise HostError(f"{folder} cannot be written: {error}", remedy="name another") from error
    click.echo(f"Written: {driver} and {source}")
    click.echo(f"Next: cd {folder} && simgrid-ml python driver.py")
