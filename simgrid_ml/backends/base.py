"""What every backend offers; the engine knows no more of them than this."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.spec.links import Links
from simgrid_ml.spec.placement import HostInventory

__all__ = ["Backend", "NodeInfo", "NodesRequest"]


@dataclass(frozen=True)
class NodesRequest:
    """Nodes to start.

    Attributes:
        run_id: for labels.
        run_dir: visible at this same path on every node.
        nodes: their names, ``node0`` first.
        socket: where the agents dial back to, a path in ``run_dir``.
        capacity: what each node gets of the host.
        links: what is between the nodes; None: nothing that slows them.
        image: the container image asked for; None: none in particular.
        visible: folders of the host that every node reads at the same path.
        log: a file in ``run_dir`` that takes what goes wrong before an agent has reported.
    """

    run_id: str
    run_dir: str
    nodes: tuple[str, ...]
    socket: str
    capacity: Capacity
    links: Links | None = None
    image: str | None = None
    visible: tuple[str, ...] = ()
    log: str = os.devnull


@dataclass(frozen=True)
class NodeInfo:
    """A node that said hello.

    Attributes:
        address: where the other nodes reach it (IPv4).
        interface: the network interface with that address.
        hostname: what its processes take for the host name.
        package: folder of this package on the node.
        rank_command, rsh_command: what runs ``node/rank.py`` and ``node/rsh.py``, or does the same.
        variables: what every process on the node needs in its environment.
        isolation: what the node has of its own: ``hostname pid mount ipc network``.
        limits: what it has not, and why.
    """

    name: str
    address: str
    interface: str
    hostname: str
    package: str
    rank_command: tuple[str, ...]
    rsh_command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    isolation: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


class Backend(Protocol):
    """A place where virtual nodes can live."""

    def inventory(self) -> HostInventory:
        """What there is to give out."""
        ...

    def nodes(self, request: NodesRequest) -> AbstractAsyncContextManager[Awaitable[object] | None]:
        """Start an agent per node; on leaving, nothing of them exists any more.

        Yields what is done as soon as no agent is left, so that nobody waits for their hello; or
        None.

        Raises:
            NodeError: they cannot be started.
        """
        ...

    def describe(self, run_id: str, hello: Mapping[str, Any]) -> NodeInfo:
        """The node of a run behind an agent's hello.

        Raises:
            NodeError: the host cannot give it what a node needs.
        """
        ...
