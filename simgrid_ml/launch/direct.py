"""One command per task, with nothing between: plain scripts, TensorFlow's tasks, torch's ranks."""

from __future__ import annotations

from simgrid_ml.launch.plan import Command, LaunchPlan, Tools
from simgrid_ml.spec.job import JobSpec, Plain
from simgrid_ml.spec.placement import Placement

__all__ = ["plan"]


def plan(job: JobSpec, placement: Placement, tools: Tools) -> LaunchPlan:
    """Every task that serves no other decides how the run ends."""
    commands = tuple(
        Command(task.name, task.node, tools.rank_argv(task.name)) for task in placement.tasks
    )
    return LaunchPlan(
        commands,
        frozenset(task.name for task in placement.tasks if not task.serves),
        abort_on_error=not isinstance(job.distribution, Plain),
    )
