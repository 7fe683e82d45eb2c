"""docs/gpu-hosts.md and benchmarks/gpu say what is so: rungs, choices, variables, commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from simgrid_ml import wire
from simgrid_ml.cli.main import cli
from simgrid_ml.spec.gpus import Backing, GpuSharing

PAGE = (Path(__file__).parents[2] / "docs" / "gpu-hosts.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    table = PAGE.partition(f"## {heading}\n")[2].partition("\n|")[2].partition("\n\n")[0]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]
    ]


def test_the_rungs_are_those_of_the_plan_in_their_order() -> None:
    told = rows("What is behind a GPU")
    assert [row[0] for row in told] == [
        *("whole GPU", "MIG instance", "MPS with cgroup limits", "MPS with limits per process"),
        *("time-sliced GPU", "host memory"),
    ]
    assert [row[0] for row in told] == [backing.value for backing in Backing]
    choices = {re.match(r"`([\w-]+)`", row[2])[1] for row in told}
    assert choices == {one.value for one in GpuSharing} - {"auto", "none"}


def test_variables_have_the_names_and_values_of_the_code() -> None:
    told = {row[0].strip("`"): row[1] for row in rows("Variables on a node")}
    assert {
        wire.GPU_BACKING_VARIABLE,
        wire.GPU_DEVICES_VARIABLE,
        wire.GPU_COLLECTIVES_VARIABLE,
        wire.HOOKS_VARIABLE,
        "CUDA_VISIBLE_DEVICES",
    } == set(told)
    rungs = set(re.findall(r"`([A-Z_]+)`", told[wire.GPU_BACKING_VARIABLE]))
    assert rungs == {backing.name for backing in Backing} - {"HOST_MEMORY"}


COMMANDS = re.findall(r"^simgrid-ml (.+)$|`simgrid-ml ([^`]+)`", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", ["".join(found) for found in COMMANDS])
def test_commands_have_the_options_that_the_page_gives_them(line: str) -> None:
    words = shlex.split(line)
    command: click.Command = cli
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= options
