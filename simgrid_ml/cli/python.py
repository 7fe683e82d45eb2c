"""``simgrid-ml python driver.py``: the user's script, with our ``azureml`` first on its path."""

from __future__ import annotations

import os
import sys

import click

import simgrid_ml
from simgrid_ml.errors import NotFoundError, UsageError

__all__ = ["SHIM", "driver_environment", "python"]

SHIM = os.path.join(os.path.dirname(os.path.abspath(simgrid_ml.__file__)), "shim")
"""The folder whose ``azureml`` stands in for the SDK."""


def driver_environment() -> dict[str, str]:
    """The environment in which ``import azureml`` finds the stand-in, also in child processes."""
    package = os.path.dirname(os.path.abspath(simgrid_ml.__file__))
    first = [SHIM]
    if not package.endswith(("site-packages/simgrid_ml", "dist-packages/simgrid_ml")):
        first.append(os.path.dirname(package))  # a checkout: the new interpreter must find it
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*first, *([before] if before else [])])}


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", metavar="SCRIPT [ARGS]...", nargs=-1, type=click.UNPROCESSED)
def python(arguments: tuple[str, ...]) -> None:
    """Run a driver script; `import azureml` works in it.

    This is the Python that simgrid-ml runs in, with the stand-in `azureml` first on its path.
    All of Python's own forms work: SCRIPT, -m MODULE, -c COMMAND.
    """
    if not arguments:
        raise UsageError(
            "no driver script was given", remedy="simgrid-ml python driver.py [ARGS]..."
        )
    script = arguments[0]
    if not script.startswith("-") and not os.path.exists(script):
        raise NotFoundError(
            f"there is no script {script!r}", remedy=f"looked in {os.getcwd()}; check the path"
        )
    if os.path.isdir(script) and not os.path.exists(os.path.join(script, "__main__.py")):
        raise UsageError(f"{script!r} is a folder", remedy="give the driver script in it")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *arguments], driver_environment())
