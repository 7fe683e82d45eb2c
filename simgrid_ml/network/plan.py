"""From what connects the nodes to what the relay is told: pure.

Each node's own link is two cables, one for each direction, and so is a rack's uplink; a pair with
a constraint has two of its own. A route is the cables from one node to another, as
``spec.links.cables`` has them.
"""

from __future__ import annotations

from collections.abc import Mapping

from simgrid_ml.network.relay import RelayPlan
from simgrid_ml.spec.links import Links, both_ways, cables, targets

__all__ = ["relay_plan"]


def relay_plan(links: Links, addresses: Mapping[str, str], seed: int = 0) -> RelayPlan:
    """The plan for nodes with these addresses, by name.

    Args:
        links: as ``spec.links.resolved`` returns them.
        seed: of losses and jitter.
    """
    every = {
        name: link
        for target, link in targets(links, addresses).items()
        for name in both_ways(target)
    }
    routes = {
        (a, b): tuple(cable.name for cable in cables(links, a, b))
        for a in addresses
        for b in addresses
        if a != b
    }
    return RelayPlan(dict(addresses), every, routes, seed)
