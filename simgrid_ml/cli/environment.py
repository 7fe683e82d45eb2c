"""The options with which `run` and `env build` say what is to be installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from simgrid_ml.errors import NotFoundError, UsageError

__all__ = ["environment_of", "environment_options"]

F = TypeVar("F", bound=Callable[..., Any])

_NESTED = ("-r", "--requirement")

_OPTIONS = (
    click.option(
        "--framework",
        type=click.Choice(["pytorch", "tensorflow", "chainer", "sklearn", "none"]),
        help="What to install  [none]",
    ),
    click.option("--framework-version", help="As an estimator takes it; old ones are substituted."),
    click.option("--pip", multiple=True, metavar="REQUIREMENT", help="May be repeated."),
    click.option("--conda", multiple=True, metavar="PACKAGE", help="May be repeated."),
    click.option(
        "--requirements",
        type=click.Path(),
        multiple=True,
        help="A requirements file; may be repeated.",
    ),
    click.option("--gpu", is_flag=True, help="Prefer CUDA builds."),
)


def environment_options(command: F) -> F:
    """Adds the options; ``environment_of`` reads them from the command's flags."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def environment_of(flags: Mapping[str, Any]) -> Any:
    """The ``EnvironmentSpec`` that the options say."""
    from simgrid_ml.spec.job import EnvironmentSpec

    framework = None if flags["framework"] == "none" else flags["framework"]
    if flags["framework_version"] and framework is None:
        raise UsageError("--framework-version without --framework", remedy="name the framework")
    lines = [line for path in flags["requirements"] for line in _requirements(path)]
    return EnvironmentSpec(
        framework=framework,
        framework_version=flags["framework_version"],
        pip=(*flags["pip"], *lines),
        conda=tuple(flags["conda"]),
        use_gpu=flags["gpu"],
    )


def _requirements(path: str, within: tuple[str, ...] = ()) -> list[str]:
    """The lines of a requirements file as pip reads them, without comments, nested files read."""
    path = os.path.abspath(os.path.expanduser(path))
    if path in within:
        raise UsageError(f"the requirements file {path} includes itself", remedy="remove its -r")
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read().replace("\\\n", " ")
    except FileNotFoundError:
        where = f", which {within[-1]} names" if within else ""
        raise NotFoundError(
            f"there is no requirements file {path!r}{where}", remedy="check the path"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path!r} cannot be read: {error}", remedy="give a text file") from error
    lines = []
    for line in text.splitlines():
        line = "" if line.startswith("#") else line.split(" #")[0].strip()
        option, _, nested = line.replace("=", " ", 1).partition(" ")
        if option in _NESTED:
            nested = os.path.join(os.path.dirname(path), nested.strip())
            lines += _requirements(nested, (*within, path))
        elif line:
            lines.append(line)
    return lines
