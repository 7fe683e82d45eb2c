"""What a launcher answers: the commands to spawn, and what each task runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from simgrid_ml.errors import LaunchError
from simgrid_ml.spec.job import JobSpec
from simgrid_ml.spec.placement import Placement

__all__ = ["Command", "LaunchPlan", "Launcher", "Tools"]


@dataclass(frozen=True)
class Tools:
    """Where the launcher's programs are on a node; absolute paths.

    Attributes:
        rank_command: runs ``node/rank.py``, or does the same.
        run_dir: the run directory, the same on every node.
        rsh_name: name, found on PATH, of the client that Open MPI calls instead of ssh.
        interface: the one network interface that reaches the other nodes.
        is_root: mpirun refuses root unless told.
    """

    rank_command: tuple[str, ...]
    run_dir: str
    rsh_name: str
    interface: str
    is_root: bool

    def rank_argv(self, *task: str) -> tuple[str, ...]:
        """The command that starts a task under the rank wrapper."""
        return (*self.rank_command, self.run_dir, *task)


@dataclass(frozen=True)
class Command:
    """One process to spawn on a node; ``log`` is an artifact name for its stdout and stderr."""

    name: str
    node: str
    argv: tuple[str, ...]
    log: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LaunchPlan:
    """Commands, and which of them decide: the run is over when the decisive ones have ended.

    Attributes:
        abort_on_error: a failing task leaves at once, without its exit handlers.
        settings: what Open MPI was told, for the run's record.
    """

    commands: tuple[Command, ...]
    decisive: frozenset[str]
    abort_on_error: bool
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {command.name for command in self.commands}
        if len(names) != len(self.commands) or not self.decisive or not self.decisive <= names:
            raise LaunchError("a launch plan needs unique names and at least one decisive command")

    def to_json(self) -> dict[str, Any]:
        return {
            "abort_on_error": self.abort_on_error,
            "commands": [
                {"name": c.name, "node": c.node, "argv": list(c.argv)} for c in self.commands
            ],
            "decisive": sorted(self.decisive),
            "settings": dict(self.settings),
        }


class Launcher(Protocol):
    """Turns a placed job into a plan; pure."""

    def __call__(self, job: JobSpec, placement: Placement, tools: Tools) -> LaunchPlan: ...
