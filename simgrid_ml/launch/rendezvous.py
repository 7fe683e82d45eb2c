"""How tasks find each other without MPI: ``TF_CONFIG``, and ``MASTER_ADDR`` and its kin; pure.

TensorFlow's servers, torch's store and Ray's head listen on all addresses of their host, whatever
address their configuration names. On a node with a network of its own they get the ports Azure ML
gave them; nodes that share one network need ports that differ, also from those of other runs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from simgrid_ml.spec.cluster import Era
from simgrid_ml.spec.job import Distribution, ParameterServer, RayCluster, TorchDistributed
from simgrid_ml.spec.placement import Placement, Task

__all__ = ["RAY_PORT", "TENSORFLOW_PORT", "TORCH_PORT", "endpoints", "variables"]

TENSORFLOW_PORT = 2222
"""Of the first task on a node; the next has the next."""
TORCH_PORT = 6105
RAY_PORT = 6379


def endpoints(
    distribution: Distribution,
    placement: Placement,
    addresses: Mapping[str, str],
    own_network: Collection[str],
    free_ports: Iterator[int],
) -> dict[str, str]:
    """``address:port`` of each task that is to listen, by its name.

    Args:
        addresses: of the nodes.
        own_network: the nodes that share their ports with no other.
        free_ports: for tasks on nodes that do.
    """
    if isinstance(distribution, ParameterServer):
        listening, first = placement.tasks, TENSORFLOW_PORT
    elif isinstance(distribution, TorchDistributed):
        listening, first = placement.tasks[:1], TORCH_PORT
    elif isinstance(distribution, RayCluster):
        listening, first = placement.tasks[:1], RAY_PORT
    else:
        return {}
    used: dict[str, int] = defaultdict(int)
    found = {}
    for task in listening:
        port = first + used[task.node] if task.node in own_network else next(free_ports)
        used[task.node] += 1
        found[task.name] = f"{addresses[task.node]}:{port}"
    return found


def variables(
    era: Era,
    distribution: Distribution,
    placement: Placement,
    task: Task,
    listening: Mapping[str, str],
    init_file: str,
) -> dict[str, str]:
    """What ``task`` finds in its environment to meet the others by.

    Args:
        listening: from ``endpoints``.
        init_file: a path that all nodes share and nothing has used.
    """
    if isinstance(distribution, ParameterServer):
        return _tensorflow(era, distribution, placement, task, listening)
    if isinstance(distribution, TorchDistributed):
        return _torch(era, placement, task, listening, init_file)
    return {}


def _tensorflow(
    era: Era,
    distribution: ParameterServer,
    placement: Placement,
    task: Task,
    listening: Mapping[str, str],
) -> dict[str, str]:
    cluster: dict[str, list[str]] = defaultdict(list)
    for each in placement.tasks:
        cluster[each.role].append(listening[each.name])
    is_first = task.role == "worker" and task.index == 0
    config = {
        "cluster": cluster,
        "task": {
            "type": distribution.first_worker if is_first else task.role,
            "index": task.index,
        },
        "environment": "cloud",
    }
    values = {"TF_CONFIG": json.dumps(config)}
    if era is not Era.E3:
        values["AZ_BATCHAI_PS_HOSTS"] = ",".join(cluster.get("ps", ()))
        values["AZ_BATCHAI_WORKER_HOSTS"] = ",".join(cluster["worker"])
    return values


def _torch(
    era: Era, placement: Placement, task: Task, listening: Mapping[str, str], init_file: str
) -> dict[str, str]:
    address, _, port = listening[placement.tasks[0].name].rpartition(":")
    values = {
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "WORLD_SIZE": str(placement.world_size),
        "NODE_RANK": str(placement.nodes.index(task.node)),
        "RANK": str(task.rank),
        "LOCAL_RANK": str(task.local_rank),
    }
    if era is not Era.E3:
        values["AZ_BATCHAI_PYTORCH_INIT_METHOD"] = f"file://{init_file}"
    return values
