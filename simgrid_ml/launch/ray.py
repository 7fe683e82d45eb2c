"""What ``node/ray_task.py`` is told, which starts Ray on a node; pure."""

from __future__ import annotations

from collections.abc import Mapping

from simgrid_ml.spec.job import RayCluster
from simgrid_ml.spec.placement import Placement, Task

__all__ = ["words"]


def words(
    distribution: RayCluster,
    placement: Placement,
    task: Task,
    listening: Mapping[str, str],
    address: str,
) -> list[str]:
    """The arguments of the program, up to the script's command.

    Args:
        listening: from ``rendezvous.endpoints``.
        address: of the task's node.
    """
    head = listening[placement.tasks[0].name]
    nodes = len(placement.nodes)
    cpus = max(1, placement.cpus // nodes)
    told = [head, address, str(nodes), str(cpus), f"{distribution.join_timeout_s:g}"]
    return [task.role, *told, *distribution.head_arguments, "--"]
