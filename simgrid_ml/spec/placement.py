"""Which task runs on which node: a pure function of the job, the cluster and the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from simgrid_ml.errors import PlacementError
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.gpus import HostGpus
from simgrid_ml.spec.job import JobSpec, ParameterServer, RayCluster

__all__ = ["HostInventory", "Placement", "Task", "place"]


MAX_TASKS = 1024
"""Of TensorFlow's in one job; each is a process of hundreds of MB."""


@dataclass(frozen=True)
class HostInventory:
    """What a backend found on the host; a value, so that tests can write it by hand.

    Attributes:
        cpus: cores this process may use.
        memory_bytes: total memory.
        isolation: what the virtual nodes of the backend have of their own, from
            ``hostname pid mount ipc``; empty where the host allows none of it.
        limits: why something is missing, one sentence each.
        enforces_sizes: whether the backend can hold nodes to a share of cores and memory.
        max_nodes: how many nodes a run can have there; None: as many as you like.
        gpus: those of the host.
    """

    cpus: int
    memory_bytes: int
    isolation: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    enforces_sizes: bool = False
    max_nodes: int | None = None
    gpus: HostGpus = field(default_factory=HostGpus)


@dataclass(frozen=True)
class Task:
    """One process of a job.

    Attributes:
        name: unique in the run, names its journal: ``rank-0``, ``worker-1``, ``ps-0``.
        rank, local_rank: its number among all tasks, and among those of its node.
        role: ``rank``, or what TensorFlow calls it: ``ps``, ``worker``, ``chief``,
            ``head``.
        index: its number among the tasks of its role.
        serves: it runs until the others have ended, and then is ended.
    """

    name: str
    node: str
    rank: int
    local_rank: int
    role: str = "rank"
    index: int = 0
    serves: bool = False


@dataclass(frozen=True)
class Placement:
    """All tasks: ranks 0…n-1 in order, local ranks 0…k-1 on every node.

    ``cpus``: cores that all of them share: the host's, or those of their nodes together.

    Raises:
        PlacementError: the ranks are not so; such a placement must never be launched.
    """

    tasks: tuple[Task, ...]
    cpus: int

    def __post_init__(self) -> None:
        seen: Counter[str] = Counter()
        for rank, task in enumerate(self.tasks):
            if task.rank != rank or task.local_rank != seen[task.node]:
                raise PlacementError(f"task {task.name} is out of order: {task}")
            seen[task.node] += 1

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task.node for task in self.tasks))

    @property
    def world_size(self) -> int:
        return len(self.tasks)

    @property
    def shares_cores(self) -> bool:
        """Whether ranks outnumber cores, so that they must yield while they wait."""
        return self.world_size > self.cpus

    def on(self, node: str) -> tuple[Task, ...]:
        return tuple(task for task in self.tasks if task.node == node)

    def to_json(self) -> dict[str, Any]:
        return {
            "cpus": self.cpus,
            "nodes": list(self.nodes),
            "shares_cores": self.shares_cores,
            "tasks": [vars(task) for task in self.tasks],
            "world_size": self.world_size,
        }


def place(
    job: JobSpec,
    cluster: ClusterSpec,
    host: HostInventory,
    names: Sequence[str] | None = None,
) -> Placement:
    """Node *i* gets ranks ``i*k … i*k+k-1``, as Azure ML places them.

    TensorFlow's tasks get a node each where there are enough, parameter servers first. Otherwise
    they share: parameter server *j* and worker *j* are on node *j*, counted round.

    Args:
        names: of the nodes that the job has, the head node first; None: ``node0``, ``node1`` ….

    Raises:
        PlacementError: the job wants more nodes than the cluster, or the host, may have; or more
            parameter servers than nodes.

    >>> from simgrid_ml.spec.job import Mpi
    >>> two_by_two = Mpi(nodes=2, processes_per_node=2)
    >>> job = JobSpec(source="/s", entry_script="t.py", distribution=two_by_two)
    >>> placement = place(job, ClusterSpec(name="c", max_nodes=2), HostInventory(2, 2**30))
    >>> [(task.rank, task.node, task.local_rank) for task in placement.tasks]
    [(0, 'node0', 0), (1, 'node0', 1), (2, 'node1', 0), (3, 'node1', 1)]
    >>> shared = ParameterServer(nodes=2, workers=2, servers=1)
    >>> job = JobSpec(source="/s", entry_script="t.py", distribution=shared)
    >>> placement = place(job, ClusterSpec(name="c", max_nodes=2), HostInventory(2, 2**30))
    >>> [(task.name, task.node) for task in placement.tasks]
    [('ps-0', 'node0'), ('worker-0', 'node0'), ('worker-1', 'node1')]
    """
    distribution = job.distribution
    nodes = distribution.nodes
    if nodes > cluster.max_nodes:
        raise PlacementError(
            f"Requested {nodes} nodes but cluster {cluster.name!r} only has "
            f"{cluster.max_nodes} maximum nodes",
            remedy=f"ask for at most {cluster.max_nodes} nodes, or raise max_nodes of the cluster",
        )
    if host.max_nodes is not None and nodes > host.max_nodes:
        raise PlacementError(
            f"the {cluster.backend} backend has room for {host.max_nodes} nodes, not for {nodes}",
            remedy=f"ask for at most {host.max_nodes} nodes, and more processes on each",
        )
    places = names or [f"node{n}" for n in range(nodes)]
    if isinstance(distribution, ParameterServer):
        return Placement(tuple(_in_roles(distribution, places)), host.cpus)
    if isinstance(distribution, RayCluster):
        workers = (
            Task(f"worker-{n - 1}", name, n, 0, "worker", n - 1, serves=True)
            for n, name in enumerate(places)
            if n > 0
        )
        return Placement((Task("head-0", places[0], 0, 0, "head"), *workers), host.cpus)
    per_node = distribution.processes_per_node
    tasks = tuple(
        Task(f"rank-{rank}", name, rank, local, index=rank)
        for node, name in enumerate(places)
        for local in range(per_node)
        for rank in [node * per_node + local]
    )
    return Placement(tasks, host.cpus)


def _in_roles(job: ParameterServer, places: Sequence[str]) -> Iterator[Task]:
    if job.servers > job.nodes:
        raise PlacementError(
            f"{job.servers} parameter servers on {job.nodes} node{'s' * (job.nodes > 1)}: "
            "a node has at most one, as in Azure ML",
            remedy=f"ask for at most {job.nodes} parameter servers, or for more nodes",
        )
    if job.tasks > MAX_TASKS:
        raise PlacementError(
            f"{job.tasks} tasks are more than one host can run ({MAX_TASKS} at most)",
            remedy="ask for fewer workers",
        )
    apart = job.nodes >= job.tasks
    roles = [
        *(("ps", n, n) for n in range(job.servers)),
        *(("worker", n, job.servers * apart + n) for n in range(job.workers)),
        *(("chief", n, (job.servers + job.workers) * apart) for n in range(job.coordinator)),
    ]
    seen: Counter[str] = Counter()
    for rank, (role, index, where) in enumerate(roles):
        node = places[where % job.nodes]
        serves = role == "ps" or (job.coordinator and role != "chief")
        yield Task(f"{role}-{index}", node, rank, seen[node], role, index, serves)
        seen[node] += 1
