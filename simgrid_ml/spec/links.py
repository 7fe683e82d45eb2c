"""The network between the nodes of a cluster: rates, delays, losses; what is asked for.

Every node has a link of its own to a switch, as in a machine room. A packet from one node to
another crosses the link of the sender, the uplinks of both racks where they differ, and the link
of the receiver: with a delay of 2 ms on each node's link, two nodes are 4 ms apart, one way. A
pair of nodes can have a further constraint of its own.

``cables`` tells what lies between two nodes, ``between`` what that comes to; the rest of the
package learns the topology from them alone. ``links_text`` reads how people write it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from simgrid_ml.errors import PlacementError, SpecError
from simgrid_ml.spec.value import Value
from simgrid_ml.units import format_delay, format_rate

__all__ = [
    "Cable",
    "Link",
    "Links",
    "Pair",
    "Rack",
    "between",
    "both_ways",
    "cables",
    "check_names",
    "describe",
    "links_for",
    "resolved",
    "targets",
]

_NODE = re.compile(r"node[0-9]+\Z")
_RACK = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,30}\Z", re.ASCII)


class Link(Value, frozen=True, kw_only=True):
    """One direction of one cable.

    Attributes:
        rate_bytes_per_s: of frames on the wire; None: not limited.
        nic: the rate is that of the VM size's network card; ``resolved`` fills it in.
        delay_s: one way, from the end of sending to arrival.
        jitter_s: delays vary uniformly by at most so much, without reordering.
        loss: share of packets that are lost, in [0, 1).
    """

    rate_bytes_per_s: Annotated[float, Meta(gt=0)] | None = None
    nic: bool = False
    delay_s: Annotated[float, Meta(ge=0)] = 0.0
    jitter_s: Annotated[float, Meta(ge=0)] = 0.0
    loss: Annotated[float, Meta(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        figures = (self.rate_bytes_per_s or 0.0, self.delay_s, self.jitter_s, self.loss)
        if not all(map(math.isfinite, figures)):
            raise ValueError("rates, delays and losses are finite numbers")
        if self.nic and self.rate_bytes_per_s is not None:
            raise ValueError("a rate is either given, or that of the network card")
        if self.jitter_s > self.delay_s:
            raise ValueError(
                f"a jitter of {format_delay(self.jitter_s)} exceeds the delay of "
                f"{format_delay(self.delay_s)}: packets would arrive before they were sent"
            )


class Pair(Value, frozen=True, kw_only=True):
    """What two nodes have between them besides their own links; the same in both directions."""

    a: str
    b: str
    link: Link


class Rack(Value, frozen=True, kw_only=True):
    """Nodes whose traffic with other racks, and with nodes in none, shares one uplink.

    Attributes:
        uplink: of the rack's switch, either direction.
        oversubscription: the sum of the nodes' rates divided by the uplink's, instead of its rate.
    """

    name: str
    nodes: tuple[str, ...]
    uplink: Link = Link()
    oversubscription: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        if not _RACK.match(self.name) or _NODE.match(self.name):
            raise ValueError(
                f"{self.name!r} cannot name a rack: use letters, digits, '_' and '.', first a "
                "letter, and no node's name"
            )
        if not self.nodes:
            raise ValueError(f"rack {self.name} has no nodes")
        if self.oversubscription is not None and (
            self.uplink.nic or self.uplink.rate_bytes_per_s is not None
        ):
            raise ValueError(
                f"rack {self.name} says both the rate of its uplink and its oversubscription"
            )


class Links(Value, frozen=True, kw_only=True):
    """What connects the nodes.

    Attributes:
        default: each node's own link, in either direction.
        nodes: those of single nodes, by name.
        pairs: what single pairs have besides.
        racks: nodes that share an uplink.
        method: how it is emulated: ``relay``, in user space, does everything; ``htb``, in the
            kernel, rates alone; ``auto`` prefers the first.
    """

    default: Link = Link()
    nodes: Mapping[str, Link] = {}
    pairs: tuple[Pair, ...] = ()
    racks: tuple[Rack, ...] = ()
    method: Literal["auto", "relay", "htb"] = "auto"

    def __post_init__(self) -> None:
        for rack in self.racks:
            for node in rack.nodes:
                if sum(node in other.nodes for other in self.racks) > 1:
                    raise ValueError(f"{node} is in more than one rack")
            if len(set(rack.nodes)) < len(rack.nodes):
                raise ValueError(f"rack {rack.name} names a node twice")
        if len({rack.name for rack in self.racks}) < len(self.racks):
            raise ValueError("two racks have the same name")
        seen = set()
        for pair in self.pairs:
            if pair.a == pair.b:
                raise ValueError(f"a pair needs two nodes, not {pair.a} twice")
            if frozenset((pair.a, pair.b)) in seen:
                raise ValueError(f"the pair {pair.a}, {pair.b} is there twice")
            seen.add(frozenset((pair.a, pair.b)))

    def of(self, node: str) -> Link:
        """The node's own link."""
        return self.nodes.get(node, self.default)


class Cable(NamedTuple):
    """One direction of one cable of the network.

    Attributes:
        target: whose it is, as ``simgrid-ml link set`` takes it: a node's or a rack's name, or
            that of a pair, ``node0-node1``.
        way: ``up``, away from its node or rack (in a pair, from the first to the second), or
            ``down``.
    """

    target: str
    way: Literal["up", "down"]
    link: Link

    @property
    def name(self) -> str:
        return f"{self.target} {self.way}"


def both_ways(target: str) -> tuple[str, str]:
    """The names of both cables of a link."""
    return f"{target} up", f"{target} down"


def cables(links: Links, a: str, b: str) -> tuple[Cable, ...]:
    """What a packet from node ``a`` to node ``b`` crosses, in order.

    >>> links = Links(racks=(Rack(name="left", nodes=("node0",)),))
    >>> [cable.name for cable in cables(links, "node0", "node1")]
    ['node0 up', 'left up', 'node1 down']
    """
    path = [Cable(a, "up", links.of(a))]
    racks = {node: rack for rack in links.racks for node in rack.nodes}
    leaves, enters = racks.get(a), racks.get(b)
    if leaves != enters:
        path += [Cable(leaves.name, "up", leaves.uplink)] if leaves else []
        path += [Cable(enters.name, "down", enters.uplink)] if enters else []
    for pair in links.pairs:
        if {pair.a, pair.b} == {a, b}:
            way: Literal["up", "down"] = "up" if pair.a == a else "down"
            path.append(Cable(f"{pair.a}-{pair.b}", way, pair.link))
    return (*path, Cable(b, "down", links.of(b)))


def between(links: Links, a: str, b: str) -> Link:
    """What the cables from node ``a`` to node ``b`` come to: the lowest rate, the sum of the
    delays, and the share of packets that one of them loses."""
    crossed = [cable.link for cable in cables(links, a, b)]
    rates = [link.rate_bytes_per_s for link in crossed if link.rate_bytes_per_s is not None]
    return Link(
        rate_bytes_per_s=min(rates, default=None),
        delay_s=sum(link.delay_s for link in crossed),
        jitter_s=sum(link.jitter_s for link in crossed),
        loss=1 - math.prod(1 - link.loss for link in crossed),
    )


def targets(links: Links, nodes: Iterable[str]) -> dict[str, Link]:
    """What can be changed while a run is live, by name: nodes, racks, pairs."""
    return {
        **{node: links.of(node) for node in nodes},
        **{rack.name: rack.uplink for rack in links.racks},
        **{f"{pair.a}-{pair.b}": pair.link for pair in links.pairs},
    }


def check_names(links: Links, max_nodes: int) -> None:
    """
    Raises:
        SpecError: a node is named that a cluster of ``max_nodes`` nodes never has.
    """
    known = {f"node{number}" for number in range(max_nodes)}
    named = [
        *(("nodes", node) for node in links.nodes),
        *(("pairs", node) for pair in links.pairs for node in (pair.a, pair.b)),
        *((f"racks: {rack.name}", node) for rack in links.racks for node in rack.nodes),
    ]
    for where, node in named:
        if node not in known:
            have = "node0 alone" if max_nodes == 1 else f"node0 to node{max_nodes - 1}"
            raise SpecError(
                f"cluster.links: {where}: there is no {node!r}; the cluster has {have}",
                remedy="correct the name, or raise max_nodes of the cluster",
                where="cluster.links",
            )


def links_for(
    links: Links | None, nic_bytes_per_s: float | None, *, shapes_nic: bool
) -> Links | None:
    """What a backend emulates: what is asked for, else the VM size's network card if it is one
    that gives nodes what their size says (``shapes_nic``); None: nothing."""
    if links is None and shapes_nic and nic_bytes_per_s is not None:
        return Links(default=Link(nic=True))
    return links


def resolved(links: Links, nodes: tuple[str, ...], nic_bytes_per_s: float | None) -> Links:
    """The links of one run's nodes, every one of them by name and every rate in figures.

    Args:
        nodes: those of the run; what the cluster says of others is left out.
        nic_bytes_per_s: rate of the VM size's network card; None: none is known.

    Raises:
        PlacementError: a rate is asked for that follows from one that nobody knows.
    """
    all_of = {node: _with_nic(links.of(node), nic_bytes_per_s, node) for node in nodes}
    racks = []
    for rack in links.racks:
        uplink = _with_nic(rack.uplink, nic_bytes_per_s, rack.name)
        if rack.oversubscription is not None:
            uplink = _oversubscribed(links, rack, nic_bytes_per_s)
        here = tuple(node for node in rack.nodes if node in nodes)
        if here:
            racks.append(Rack(name=rack.name, nodes=here, uplink=uplink))
    pairs = tuple(
        Pair(a=pair.a, b=pair.b, link=_with_nic(pair.link, nic_bytes_per_s, f"{pair.a}-{pair.b}"))
        for pair in links.pairs
        if pair.a in nodes and pair.b in nodes
    )
    return Links(nodes=all_of, pairs=pairs, racks=tuple(racks), method=links.method)


def _with_nic(link: Link, nic_bytes_per_s: float | None, whose: str) -> Link:
    if not link.nic:
        return link
    if nic_bytes_per_s is None:
        raise PlacementError(
            f"the link of {whose} is to have the rate of its VM size's network card, and none "
            "is published for that size",
            remedy="give the rate in figures, `rate: 1Gbit`, or a VM size with a published one, "
            "such as Standard_D2_v2",
        )
    return msgspec.structs.replace(link, nic=False, rate_bytes_per_s=nic_bytes_per_s)


def _oversubscribed(links: Links, rack: Rack, nic_bytes_per_s: float | None) -> Link:
    assert rack.oversubscription is not None
    total = 0.0
    for node in rack.nodes:
        rate = _with_nic(links.of(node), nic_bytes_per_s, node).rate_bytes_per_s
        if rate is None:
            raise PlacementError(
                f"rack {rack.name} is to be oversubscribed {rack.oversubscription:g} to 1, and "
                f"the link of its {node} has no rate to reckon with",
                remedy="give the nodes a rate, or the uplink one in figures",
            )
        total += rate
    return msgspec.structs.replace(rack.uplink, rate_bytes_per_s=total / rack.oversubscription)


def describe(link: Link) -> str:
    """The link in words.

    >>> describe(Link(rate_bytes_per_s=1.25e8, delay_s=0.002, jitter_s=0.0001, loss=0.001))
    '1 Gbit/s, 2 ms ± 100 us, loses 0.1 %'
    """
    rate = "unlimited" if link.rate_bytes_per_s is None else format_rate(link.rate_bytes_per_s)
    parts = ["the network card's rate" if link.nic else rate]
    if link.delay_s:
        jitter = f" ± {format_delay(link.jitter_s)}" if link.jitter_s else ""
        parts.append(format_delay(link.delay_s) + jitter)
    if link.loss:
        parts.append(f"loses {link.loss * 100:.4g} %")
    return ", ".join(parts)
