"""Network namespaces that a relay connects, without a run: for tests and benchmarks of links."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from simgrid_ml.network.relay import Relay, RelayPlan, relay
from simgrid_ml.spec.links import Link

__all__ = ["NETMASK", "Namespace", "connected", "star"]

NETMASK = "255.255.255.0"
_HOLD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from simgrid_ml.node import isolation
from simgrid_ml.node.protocol import hand_over
isolation.unshare_network()
tun = isolation.open_tun("eth0", sys.argv[4], sys.argv[5], relay=True)
hand_over(sys.argv[2], sys.argv[3], tun)
os.close(tun)
print("up", flush=True)
sys.stdin.read()
"""
_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclass(frozen=True)
class Namespace:
    """What stands for a node: a network namespace that lives as long as its process."""

    name: str
    address: str
    pid: int

    def inside(self, *command: str) -> list[str]:
        """The command line that runs ``command`` in it."""
        own_user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.pid), "--net", *own_user, *command]

    async def run(self, *command: str) -> asyncio.subprocess.Process:
        """Start a command in it, with pipes."""
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *self.inside(*command), stdin=pipe, stdout=pipe, stderr=pipe
        )


def star(links: list[Link]) -> RelayPlan:
    """Nodes around one switch: what node i sends takes the cables ``up:i`` and ``down:j``.

    >>> star([Link(), Link()]).routes["node0", "node1"]
    ('up:node0', 'down:node1')
    """
    names = [f"node{number}" for number in range(len(links))]
    addresses = {name: f"10.99.0.{number + 1}" for number, name in enumerate(names)}
    cables = {}
    for name, link in zip(names, links, strict=True):
        cables[f"up:{name}"] = cables[f"down:{name}"] = link
    routes = {(a, b): (f"up:{a}", f"down:{b}") for a in names for b in names if a != b}
    return RelayPlan(addresses, cables, routes)


@contextlib.asynccontextmanager
async def connected(
    folder: str, plan: RelayPlan
) -> AsyncIterator[tuple[Relay, dict[str, Namespace]]]:
    """A relay, and a namespace for each node of its plan."""
    async with (
        relay(folder, plan, os.path.join(folder, "relay.log")) as up,
        contextlib.AsyncExitStack() as stack,
    ):
        nodes = {}
        for name in plan.addresses:
            nodes[name] = await stack.enter_async_context(_namespace(up, plan, name))
        yield up, nodes


@contextlib.asynccontextmanager
async def _namespace(up: Relay, plan: RelayPlan, name: str) -> AsyncIterator[Namespace]:
    pipe = asyncio.subprocess.PIPE
    address = plan.addresses[name]
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", _HOLD, _PACKAGES, up.path, name, address, NETMASK),
        stdin=pipe,
        stdout=pipe,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        if await holder.stdout.readline() != b"up\n":
            raise RuntimeError(f"{name} has no network namespace")
        yield Namespace(name, address, holder.pid)
    finally:
        holder.stdin.close()
        await holder.wait()
