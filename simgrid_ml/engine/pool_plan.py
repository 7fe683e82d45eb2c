"""What the pool of a stored cluster does next, decided from values alone.

Fairness: of the waiting runs that one goes next whose submitter uses the fewest nodes now; of
those the oldest. Who is next stays next until it has its nodes, whoever comes and whatever others
give back, and nobody overtakes it while it waits for nodes of others: a stream of small jobs
cannot starve a large one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.spec.links import Links
from simgrid_ml.spec.value import Value

__all__ = ["Kind", "Node", "Plan", "Scale", "Waiting", "in_fair_order", "next_wake_s", "plan"]


class Kind(Value, frozen=True, kw_only=True):
    """What a run asks of its nodes; a warm node serves only runs of its own kind.

    Attributes:
        backend: its name.
        capacity: what each node gets of the host.
        links: what is between them.
        image: the container image asked for.
        visible: folders of the host that the nodes read.
        gpus: UUIDs of real GPUs and MIG instances that each node is given.
        joins: whether nodes that are started later reach those that are there already.
        warm: whether they can outlive a run. Nodes with shaped links are started and ended by
            the run itself, which can then measure and change the links; the pool gives it places.
    """

    backend: str
    capacity: Capacity
    joins: bool = False
    warm: bool = True
    links: Links | None = None
    image: str | None = None
    visible: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """A node of the cluster that exists.

    Attributes:
        network: nodes of one network reach each other.
        state: in Azure's words ``preparing``, ``idle``, ``running`` or ``leaving``.
        idle_since_s: when it became idle.
    """

    name: str
    kind: Kind
    network: int
    state: str
    idle_since_s: float = 0.0


@dataclass(frozen=True)
class Waiting:
    """A run that waits for ``nodes`` nodes since ``created_s``."""

    run: str
    submitter: str
    nodes: int
    kind: Kind
    created_s: float


@dataclass(frozen=True)
class Scale:
    """How many nodes there are to be, and how long they stay idle."""

    min_nodes: int
    max_nodes: int
    idle_s: float


@dataclass
class Plan:
    """What to do now: nodes to give to runs, to start, and to end.

    Attributes:
        sure: runs that get theirs as soon as the nodes that are starting are up.
        next: the run that goes next; to be said to the next ``plan``.
    """

    give: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    start: list[tuple[Kind, tuple[str, ...]]] = field(default_factory=list)
    end: list[str] = field(default_factory=list)
    sure: list[str] = field(default_factory=list)
    next: str | None = None


def in_fair_order(
    waiting: Sequence[Waiting], in_use: Mapping[str, int], next_run: str | None = None
) -> Iterator[Waiting]:
    """The waiting runs, as they would go if all nodes were free.

    Args:
        in_use: nodes in use now, by submitter.
        next_run: the run that was next before, and so still is.

    >>> kind = Kind(backend="process", capacity=Capacity(1.0, None, None, 1))
    >>> a, b, c = (Waiting(r, r[0], 2, kind, t) for t, r in enumerate(["a1", "a2", "b1"]))
    >>> [run.run for run in in_fair_order([a, b, c], {"a": 2})]
    ['b1', 'a1', 'a2']
    """
    left, used = list(waiting), dict(in_use)
    while left:
        first = min(
            left,
            key=lambda run: (
                *(run.run != next_run, used.get(run.submitter, 0)),
                *(run.created_s, run.run),
            ),
        )
        left.remove(first)
        used[first.submitter] = used.get(first.submitter, 0) + first.nodes
        yield first


def plan(
    nodes: Sequence[Node],
    waiting: Sequence[Waiting],
    in_use: Mapping[str, int],
    scale: Scale,
    now_s: float,
    usual: Kind | None,
    next_run: str | None = None,
) -> Plan:
    """What to do now.

    Args:
        next_run: what the last plan said of who is next.
        usual: of what kind the nodes of the minimum are; None: start none for it.
    """
    made = Plan()
    free = {node.name: node for node in nodes if node.state == "idle"}
    coming = {node.name: node for node in nodes if node.state == "preparing"}
    names = (f"node{n}" for n in range(scale.max_nodes))
    unused = [name for name in names if all(node.name != name for node in nodes)]
    room = max(0, scale.max_nodes - len(nodes))
    leaving = sum(node.state == "leaving" for node in nodes)
    for run in in_fair_order(waiting, in_use, next_run):
        ready, awaited = _nodes_for(run, free, coming)
        if len(ready) == run.nodes:
            made.give.append((run.run, ready))
            for name in ready:
                del free[name]
            continue
        made.next = made.next or run.run
        missing = run.nodes - len(ready) - len(awaited)
        for name in (*ready, *awaited):  # kept for it
            free.pop(name, None)
            coming.pop(name, None)
        if missing > room:  # warm nodes that do not fit make room
            by_age = sorted(free.values(), key=lambda node: node.idle_since_s)
            for node in by_age[: max(0, missing - room - leaving)]:
                made.end.append(node.name)
                del free[node.name]
        started = missing if missing <= room else (room if run.kind.joins else 0)
        if started:
            made.start.append((run.kind, tuple(unused[:started])))
            del unused[:started]
            room -= started
        if started < missing:
            free.clear()  # nobody overtakes a run that waits for nodes of others
            coming.clear()
            return made
        made.sure.append(run.run)
    _scale(nodes, free, made, scale, now_s)
    there = sum(node.state != "leaving" for node in nodes) - len(made.end)
    there += sum(len(started) for _, started in made.start)
    lacking = min(scale.min_nodes - there, room)
    if lacking > 0 and usual is not None:
        made.start.append((usual, tuple(unused[:lacking])))
    return made


def _nodes_for(
    run: Waiting, free: Mapping[str, Node], coming: Mapping[str, Node]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Idle nodes for the run, and such as are on their way, which together reach each other."""
    joins = run.kind.joins
    there = [node for node in (*free.values(), *coming.values()) if node.kind == run.kind]
    together: dict[int, list[Node]] = {}
    for node in there:
        together.setdefault(0 if joins else node.network, []).append(node)
    best: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    for group in together.values():
        ready = _first(group, "idle", run.nodes)
        awaited = _first(group, "preparing", run.nodes - len(ready))
        is_enough = joins or len(ready) + len(awaited) == run.nodes
        if is_enough and (len(ready) > len(best[0]) or not any(best)):
            best = (ready, awaited)
    return best


def _first(nodes: Sequence[Node], state: str, count: int) -> tuple[str, ...]:
    names = sorted((n.name for n in nodes if n.state == state), key=lambda n: int(n[len("node") :]))
    return tuple(names[:count])


def _scale(
    nodes: Sequence[Node], free: Mapping[str, Node], made: Plan, scale: Scale, now_s: float
) -> None:
    """End what is idle for long enough, oldest first, and what is above the maximum."""
    there = sum(node.state != "leaving" for node in nodes) - len(made.end)
    for node in sorted(free.values(), key=lambda node: node.idle_since_s):
        is_due = node.idle_since_s + scale.idle_s <= now_s
        if there > scale.max_nodes or (there > scale.min_nodes and is_due):
            made.end.append(node.name)
            there -= 1


def next_wake_s(nodes: Sequence[Node], scale: Scale, now_s: float) -> float | None:
    """When the next node will have been idle for long enough; None: not by time alone."""
    if sum(node.state != "leaving" for node in nodes) <= scale.min_nodes:
        return None
    times = [node.idle_since_s + scale.idle_s for node in nodes if node.state == "idle"]
    return min((time for time in times if time > now_s), default=None)
