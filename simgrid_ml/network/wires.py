"""The shaped links of one run's nodes while they exist: what backends and the engine hold.

A backend asks ``choose`` how, enters ``wires``, and starts its nodes with what that yields:

* method ``relay``: ``relay`` is the socket where the agents hand over their interfaces
  (``node.config.Config.relay``, with ``interface``, ``addresses``, ``netmask`` and ``mtu``);
* method ``htb``: the nodes are connected by a switch (``switch.switched``, shaped) whose plugs have
  the ``rates``; the switch is given to ``through``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from simgrid_ml.errors import NotFoundError, SpecError
from simgrid_ml.network import relay as relays
from simgrid_ml.network.addresses import INTERFACE, NETMASK, addresses
from simgrid_ml.network.choose import Choice, check_rate
from simgrid_ml.network.plan import relay_plan
from simgrid_ml.spec.links import Link, both_ways, describe, targets
from simgrid_ml.spec.links_text import parse_link
from simgrid_ml.spec.value import to_plain

__all__ = ["MTU", "Wires", "wires"]

MTU = 1500
"""As on Ethernet: rates are those of frames of 1514 bytes, of which TCP gets 1448."""


class SetsRates(Protocol):
    """A switch whose ports have rates."""

    async def set_rate(self, node: str, rate_bytes_per_s: float | None) -> None: ...


class Wires:
    """Links that are up.

    Attributes:
        choice: how they are emulated.
        addresses: of the nodes, by name.
        netmask, interface, mtu: of the nodes' ends.
        relay: where agents hand over their ends; None: by htb.
        rates: of the nodes' links in bytes per second, for htb; empty otherwise.
    """

    netmask = NETMASK
    interface = INTERFACE
    mtu = MTU

    def __init__(self, choice: Choice, given: Mapping[str, str]) -> None:
        self.choice = choice
        self.addresses = dict(given)
        self.relay: str | None = None
        self.rates: dict[str, float] = {}
        self._now = targets(choice.links, given)
        self._relay: relays.Relay | None = None
        self._switch: SetsRates | None = None

    def through(self, switch: SetsRates) -> None:
        """The switch that has the rates, for changes."""
        self._switch = switch

    def for_agents(self) -> dict[str, Any]:
        """What the nodes' agents are told of it: arguments of ``node.config.Config``."""
        return {
            "relay": self.relay,
            "interface": self.interface,
            "addresses": self.addresses,
            "netmask": self.netmask,
            "mtu": self.mtu,
        }

    async def ended(self) -> int:
        """Waits until the relay ends, which it should not; then no packet arrives any more.

        Returns:
            its exit code; never, for htb.
        """
        if self._relay is None:
            await asyncio.Event().wait()
            raise AssertionError
        return await asyncio.shield(self._relay.ended)

    @property
    def end_code(self) -> int | None:
        """The relay's exit code; None while it runs, and for htb."""
        relay = self._relay
        return relay.ended.result() if relay is not None and relay.ended.done() else None

    async def set(self, target: str, words: Mapping[str, Any]) -> Link:
        """Change a link now, in both directions; what is not said stays.

        Args:
            target: a node, a rack, or a pair as ``node0-node1``.
            words: ``rate``, ``delay``, ``jitter``, ``loss``, as in a run file.

        Returns:
            the link as it is now.

        Raises:
            UsageError: there is no such link, or it cannot be so.
            NodeError: the relay has ended.
        """
        if target not in self._now:
            raise NotFoundError(
                f"there is no link {target!r} in this run",
                remedy=f"it has: {', '.join(self._now)}",
            )
        link = parse_link(words, target, base=self._now[target])
        if link.nic:
            raise SpecError(f"{target}: rate: nic is for clusters", remedy="such as 1Gbit")
        check_rate(self.choice, target, link)
        if self._relay is not None:
            for cable in both_ways(target):
                await self._relay.set(cable, link)
        if self._switch is not None:
            await self._switch.set_rate(target, link.rate_bytes_per_s)
        self._now[target] = link
        return link

    async def counters(self) -> dict[str, dict[str, Any]]:
        """What each cable has carried so far, by its name; nothing is known of htb's."""
        if self._relay is None:
            return {}
        return {name: vars(one) for name, one in (await self._relay.counters()).items()}

    def to_json(self) -> dict[str, Any]:
        """For the run's record and for ``simgrid-ml link show``: the way chosen, and each link."""
        return {
            "method": self.choice.method,
            "program": self.choice.program,
            "ceiling_bytes_per_s": self.choice.ceiling_bytes_per_s,
            "offset_s": 0.0 if self._relay is None else self._relay.offset_s,
            "mtu": self.mtu,
            "links": {
                target: {**to_plain(link), "text": describe(link)}
                for target, link in self._now.items()
            },
        }


@contextlib.asynccontextmanager
async def wires(
    choice: Choice, *, run_id: str, nodes: Sequence[str], folder: str, log: str
) -> AsyncIterator[Wires]:
    """What connects the nodes of a run, until the context is left.

    Args:
        choice: of ``choose``.
        run_id: decides the addresses, and the chances of losses and jitter.
        nodes: their names.
        folder: gets the relay's socket; nodes see it at the same path.
        log: file for what the relay has to complain about.

    Raises:
        NodeError: they cannot be made.
    """
    up = Wires(choice, addresses(run_id, nodes))
    if choice.method == "htb":
        links = choice.links
        rates = {node: links.of(node).rate_bytes_per_s for node in nodes}
        up.rates = {node: rate for node, rate in rates.items() if rate is not None}
        yield up
        return
    seed = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], sys.byteorder)
    plan = relay_plan(choice.links, up.addresses, seed)
    async with relays.relay(folder, plan, log) as relay:
        up._relay = relay
        up.relay = relay.path
        yield up
