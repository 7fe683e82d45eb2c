"""The same script once on every node, no rendezvous."""

from __future__ import annotations

from simgrid_ml.launch.plan import Command, LaunchPlan, Tools
from simgrid_ml.spec.job import JobSpec
from simgrid_ml.spec.placement import Placement

__all__ = ["plan"]


def plan(job: JobSpec, placement: Placement, tools: Tools) -> LaunchPlan:
    """One command per task, all of them decisive."""
    commands = tuple(
        Command(task.name, task.node, tools.rank_argv(task.name)) for task in placement.tasks
    )
    return LaunchPlan(
        commands, frozenset(command.name for command in commands), abort_on_error=False
    )
