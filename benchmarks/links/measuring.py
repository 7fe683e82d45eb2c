"""One link, one measurement: between two network namespaces and a relay of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from dataclasses import dataclass

from simgrid_ml.network.relay import Relay
from simgrid_ml.spec.links import Link
from simgrid_ml.testing.relay_nodes import Namespace, connected, star

__all__ = ["WIRE_SHARE", "Carried", "Taken", "carry", "messages"]

WIRE_SHARE = 1448 / 1514
"""What of an Ethernet frame of 1500 bytes is a TCP program's own: the best goodput there is."""

_MESSAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "message.py")
_PORT = "5201"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Carried:
    """What iperf3 saw: goodput in bit/s, and cores that the relay was using meanwhile."""

    goodput: float
    retransmits: int
    relay_cores: float


@dataclass(frozen=True)
class Taken:
    """How long messages took, in seconds one way, and the offset that the relay took off."""

    times_s: list[float]
    offset_s: float


def carry(link: Link, seconds: float) -> Carried:
    """TCP over one link in each direction of two nodes; the first second does not count."""
    return asyncio.run(_carry(link, seconds))


async def _carry(link: Link, seconds: float) -> Carried:
    with tempfile.TemporaryDirectory(prefix="simgrid-ml-links-") as folder:
        async with connected(folder, star([_half(link)] * 2)) as (up, nodes):
            sender, receiver = nodes.values()
            server = await receiver.run("iperf3", "-s", "-1", "--forceflush")
            assert server.stdout is not None
            while b"listening" not in await server.stdout.readline():
                pass
            begun, spent = asyncio.get_running_loop().time(), _cpu_s(up)
            client = await sender.run(
                *("iperf3", "-c", receiver.address, "-t", str(seconds), "-O", "1", "-J")
            )
            said = json.loads((await client.communicate())[0])
            cores = (_cpu_s(up) - spent) / (asyncio.get_running_loop().time() - begun)
            await server.communicate()
            return Carried(
                said["end"]["sum_received"]["bits_per_second"],
                said["end"]["sum_sent"].get("retransmits", 0),
                cores,
            )


def messages(link: Link, size: int, count: int, pause_s: float) -> Taken:
    """Messages one after the other, with pauses in which nothing is on the way."""
    return asyncio.run(_messages(link, size, count, pause_s))


async def _messages(link: Link, size: int, count: int, pause_s: float) -> Taken:
    with tempfile.TemporaryDirectory(prefix="simgrid-ml-links-") as folder:
        async with connected(folder, star([_half(link)] * 2)) as (up, nodes):
            sender, receiver = nodes.values()
            return Taken(await _one_way(sender, receiver, size, count, pause_s), up.offset_s)


async def _one_way(
    sender: Namespace, receiver: Namespace, size: int, count: int, pause_s: float
) -> list[float]:
    python = (sys.executable, "-I", "-S", _MESSAGE)
    listener = await receiver.run(*python, "receive", _PORT)
    assert listener.stdout is not None
    await listener.stdout.readline()
    words = (receiver.address, _PORT, str(size), str(count), str(pause_s))
    talker = await sender.run(*python, "send", *words)
    out, errors = await listener.communicate()
    await talker.communicate()
    times = [float(line) for line in out.split()]
    if len(times) != count:
        raise RuntimeError(f"{len(times)} of {count} messages arrived: {errors.decode()}")
    return times


def _half(link: Link) -> Link:
    """The way crosses two cables; each has half of the delay."""
    return Link(
        rate_bytes_per_s=link.rate_bytes_per_s,
        delay_s=link.delay_s / 2,
        jitter_s=link.jitter_s / 2,
        loss=1 - (1 - link.loss) ** 0.5,
    )


def _cpu_s(up: Relay) -> float:
    with open(f"/proc/{up.pid}/stat", encoding="ascii") as stream:
        user, system = stream.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS
