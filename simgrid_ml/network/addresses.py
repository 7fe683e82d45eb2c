"""Which address each node has in a network of the run's own."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence

from simgrid_ml.errors import PlacementError

__all__ = ["INTERFACE", "MAX_NODES", "NETMASK", "addresses"]

INTERFACE = "eth0"
_PREFIX = 22
MAX_NODES = 2 ** (32 - _PREFIX) - 2
"""Of one run."""

NETMASK = str(ipaddress.IPv4Network(f"0.0.0.0/{_PREFIX}").netmask)


def addresses(run_id: str, nodes: Sequence[str]) -> dict[str, str]:
    """IPv4 addresses in a subnet of ``10.0.0.0/8`` that the run's id decides.

    No route leads out of it or in, so it need not be free on the host; runs have different ones
    so that an address in a log tells them apart.

    Raises:
        PlacementError: there are more nodes than a subnet has room for.
    """
    if len(nodes) > MAX_NODES:
        raise PlacementError(
            f"{len(nodes)} nodes do not fit into one subnet of {MAX_NODES} addresses",
            remedy=f"ask for at most {MAX_NODES} nodes",
        )
    number = int(hashlib.sha256(run_id.encode()).hexdigest(), 16) % 2 ** (_PREFIX - 8)
    first = (10 << 24) + (number << (32 - _PREFIX)) + 1
    return {node: str(ipaddress.IPv4Address(first + n)) for n, node in enumerate(nodes)}
