"""What every backend offers; the engine knows no more of them than this."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.spec.links import Links
from simgrid_ml.spec.placement import HostInventory

if TYPE_CHECKING:
    from simgrid_ml.network.choose import Choice
    from simgrid_ml.network.wires import Wires

__all__ = ["Backend", "NodeInfo", "NodesRequest", "ShapesLinks"]


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
        image: what ``OffersImages.image`` gave, encoded; None: no image in particular.
        visible: folders of the host that every node reads at the same path.
        writable: more folders of the host, which every node reads and writes at the same path.
        peers: names of all nodes that may ever share a network with these; none: these alone.
        gpus: UUIDs of the real GPUs and MIG instances that a node is given, by its name.
        gpu_limits: bytes that all processes of a node may take of each, by node and UUID; where
            there are none, nobody outside the node limits them.
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
    writable: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    gpus: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gpu_limits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
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
    """A place where virtual nodes can live.

    Attributes:
        joins: whether nodes of several requests with one ``run_id``, and without links, reach
            each other as those of one request do.
    """

    joins: bool

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


@runtime_checkable
class ShapesLinks(Protocol):
    """A backend that can emulate links between its nodes."""

    def choose_links(
        self, links: Links | None, nodes: tuple[str, ...], capacity: Capacity
    ) -> tuple[Choice | None, str]:
        """How the links of a run would be emulated (None: not at all), and what would not be.

        Raises:
            PlacementError: what is asked for cannot be had here.
        """
        ...

    def wires(self, run_id: str) -> Wires | None:
        """The shaped links of a run whose nodes exist; None: it has none."""
        ...
