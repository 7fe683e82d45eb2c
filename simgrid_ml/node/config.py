"""What a backend tells the agents it starts: one JSON document in their command line."""

from __future__ import annotations

import json

TYPE_CHECKING = False  # agents do without typing; see agent.py
if TYPE_CHECKING:
    from typing import Dict, Optional, Sequence

__all__ = ["Config"]


class Config:
    """The nodes of one run.

    Args:
        socket: the supervisor's control socket.
        nodes: names of the nodes that this process starts; in a container its only one.
        contained: whether the process is in a container already, and PID 1 there.
        isolation: what the nodes are to have of their own, if the host allows it.
        shm_bytes: size of each node's ``/dev/shm``.
        hosts: a file to see as ``/etc/hosts``.
        shared: a folder in ``/dev/shm`` for nodes without own mounts.
        log: takes what a contained agent has to say before it has a connection.
        uid, gid: whom a contained agent and all it spawns run as.
        unshare: whether a contained agent is in the host's network, and has to leave it.
        relay: socket of the relay that connects the nodes; None: somebody else does, or they share
            the host's loopback.
        interface, addresses, netmask, mtu: of the nodes' ends of the network.
    """

    def __init__(
        self,
        *,
        socket: str,
        nodes: Sequence[str],
        contained: bool = False,
        isolation: Sequence[str] = (),
        shm_bytes: int = 2**26,
        hosts: str = "",
        shared: str = "",
        log: str = "",
        uid: int = 0,
        gid: int = 0,
        unshare: bool = False,
        relay: Optional[str] = None,
        interface: str = "eth0",
        addresses: Optional[Dict[str, str]] = None,
        netmask: str = "",
        mtu: int = 1500,
    ) -> None:
        self.socket = socket
        self.nodes = list(nodes)
        self.contained = contained
        self.isolation = list(isolation)
        self.shm_bytes = shm_bytes
        self.hosts = hosts
        self.shared = shared
        self.log = log
        self.uid = uid
        self.gid = gid
        self.unshare = unshare
        self.relay = relay
        self.interface = interface
        self.addresses = addresses or {}
        self.netmask = netmask
        self.mtu = mtu

    @classmethod
    def decode(cls, text: str) -> Config:
        """The configuration whose ``encode`` gave ``text``."""
        return cls(**json.loads(text))

    def encode(self) -> str:
        """One argument of a command line."""
        return json.dumps(vars(self))
