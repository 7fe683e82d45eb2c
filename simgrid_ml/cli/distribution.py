"""The options with which `run` says how many tasks a job has, and how they find each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from simgrid_ml.errors import UsageError

__all__ = ["distribution_of", "distribution_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-n", "--nodes", type=click.IntRange(1), help="Virtual nodes  [1]"),
    click.option("-p", "--processes-per-node", type=click.IntRange(1), help="Ranks on each  [1]"),
    click.option(
        "--plain", is_flag=True, help="No MPI: the same script once on every node, no rendezvous."
    ),
    click.option(
        "--torch",
        type=click.Choice(["gloo", "nccl"]),
        help="No MPI: ranks that meet by torch.distributed over this backend.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        help="TensorFlow's workers, which meet by TF_CONFIG. Without --nodes, one node per task.",
    ),
    click.option("--ps", type=click.IntRange(0), help="TensorFlow's parameter servers  [0]"),
    click.option("--coordinator", is_flag=True, help="One task more, `chief`, decides the end."),
    click.option(
        "--first-worker",
        type=click.Choice(["worker", "master"]),
        help="What worker 0 is told to be  [worker]",
    ),
    click.option(
        "--server-grace",
        metavar="TIME",
        help="Workers may go on this long after a parameter server has ended  [30 s]",
    ),
)
_OF_RANKS = ("processes_per_node", "plain", "torch")
_OF_ROLES = ("ps", "coordinator", "first_worker", "server_grace")


def distribution_options(command: F) -> F:
    """Adds the options; ``distribution_of`` reads them from the command's flags."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def distribution_of(flags: Mapping[str, Any]) -> Any:
    """The ``Distribution`` that the options say.

    Raises:
        UsageError: they contradict each other.
    """
    from simgrid_ml.spec.job import Mpi, Plain, TorchDistributed

    nodes, per_node = flags["nodes"], flags["processes_per_node"]
    of_roles = [name for name in _OF_ROLES if flags[name] not in (None, False)]
    if flags["workers"] is not None or of_roles:
        return _parameter_server(flags, of_roles)
    if flags["plain"] and (per_node is not None or flags["torch"]):
        raise _excludes("plain", "torch" if flags["torch"] else "processes_per_node")
    if flags["torch"]:
        return TorchDistributed(
            nodes=nodes or 1, processes_per_node=per_node or 1, backend=flags["torch"]
        )
    if flags["plain"] or not (nodes or per_node):
        return Plain(nodes=nodes or 1)
    return Mpi(nodes=nodes or 1, processes_per_node=per_node or 1)


def _parameter_server(flags: Mapping[str, Any], of_roles: list[str]) -> Any:
    from simgrid_ml.spec.job import ParameterServer
    from simgrid_ml.units import parse_seconds

    for name in _OF_RANKS:
        if flags[name]:
            raise _excludes(name, "workers" if flags["workers"] else of_roles[0])
    workers, servers = flags["workers"], flags["ps"] or 0
    if workers is None:
        raise UsageError(
            f"{_option(of_roles[0])} without --workers", remedy="say how many workers there are"
        )
    for name in ("coordinator", "server_grace"):
        if flags[name] and not servers:
            raise UsageError(
                f"{_option(name)} without parameter servers", remedy="add --ps 1, or leave it out"
            )
    said: dict[str, Any] = {}
    if flags["first_worker"]:
        said["first_worker"] = flags["first_worker"]
    if flags["server_grace"]:
        said["server_grace_s"] = parse_seconds(flags["server_grace"])
    return ParameterServer(
        nodes=flags["nodes"] or servers + workers + flags["coordinator"],
        workers=workers,
        servers=servers,
        coordinator=flags["coordinator"],
        **said,
    )


def _excludes(one: str, other: str) -> UsageError:
    if {one, other} == {"plain", "processes_per_node"}:
        return UsageError(
            "--plain runs the script once on every node, so --processes-per-node means nothing",
            remedy="leave one of them out",
        )
    return UsageError(
        f"{_option(one)} and {_option(other)} belong to different kinds of jobs",
        remedy="leave one of them out; `simgrid-ml run --help` tells what they mean",
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
