"""The switch between shaped nodes: starts the relay program, changes its cables live, asks it.

The relay (``relay.c``; ``relay_program.py`` where there is no compiler) holds the nodes' TUN
interfaces, which their agents hand over through a socket (``node.protocol.hand_over``), and
carries packets between them: serialised, delayed, lost. It needs no rights, and what it holds
vanishes with it. It ends when its stdin is closed, so it cannot outlive who started it.

A *cable* is one direction of one link; a *route* is the cables from one node to another.

* A cable sends one frame after the other: ``departure = max(arrival, cable free) + wire / rate``,
  with 14 bytes of Ethernet header for each segment. There is no bucket that fills while idle.
* Cables in sequence are cut through: a packet begins on the next one as soon as that one can send
  it without a pause. Two equal cables in sequence take as long as one.
* What would wait behind more than ``queue_bytes`` is dropped, as by a switch that is full. A cable
  without a rate drops nothing: the relay stops reading from a node that is too far ahead.
* On the first cable, its sender's own, a TCP acknowledgement that carries nothing passes what
  waits, as it does in the fair queues of Linux hosts. Behind bulk that goes the other way it would
  halve the rate of a link that is used in both directions.
* Jitter shifts each packet by a uniform share of ``±jitter_s``; one that would overtake waits.
* Each packet is lost by its own chance, after it has taken its time on the cable. A node whose
  packets meet loss or a slow cable sends single segments; elsewhere segments stay together, up to
  64 KiB, because that is what makes more than 2 Gbit/s possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from simgrid_ml.errors import NodeError
from simgrid_ml.native import PROGRAMS_VARIABLE, compiled
from simgrid_ml.node.protocol import address
from simgrid_ml.spec.links import Link

__all__ = [
    "CableCounters",
    "Relay",
    "RelayPlan",
    "ceiling_bits_per_s",
    "queue_bytes",
    "relay",
    "relay_program",
    "sends_long",
]

_START_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 5.0
_LONG_BYTES_PER_S = 250e6 / 8
_SWITCH_BUFFER = 512 * 1024
_CEILINGS = {"c": 2e9, "python": 100e6}
"""Bits per second. By iperf3 over 1 ms there and back, on two cores: in C, 0.09 % off at 2 Gbit/s
and 6 % at 5 Gbit/s; in Python, 2 % at 100 Mbit/s and 10 % at 1 Gbit/s."""


@dataclass(frozen=True)
class RelayPlan:
    """What is connected how.

    Attributes:
        addresses: IPv4 address of each node, by its name.
        cables: by name.
        routes: names of the cables from one node to another; without one, packets are dropped.
        seed: of losses and jitter.
    """

    addresses: Mapping[str, str]
    cables: Mapping[str, Link]
    routes: Mapping[tuple[str, str], tuple[str, ...]]
    seed: int = 0


@dataclass(frozen=True)
class CableCounters:
    """What a cable has carried since the relay started.

    Attributes:
        busy_s: how long it was sending.
        bytes: sent, headers of frames included; with what was lost.
        packets: frames sent.
        dropped: frames refused because the queue was full.
        lost: frames lost on the way.
        elapsed_s: since the relay started.
    """

    busy_s: float
    bytes: int
    packets: int
    dropped: int
    lost: int
    elapsed_s: float


def ceiling_bits_per_s(program: str) -> float:
    """The highest rate of a link that was measured to come out within about 2 %.

    Args:
        program: ``c`` or ``python``.
    """
    return _CEILINGS[program]


def queue_bytes(link: Link) -> float:
    """How much may wait for a cable: a switch's buffer, or what TCP needs to fill the cable.

    A buffer of 512 KiB, but no more than 50 ms of the rate, is that of a switch; a long and fast
    cable gets twice rate times delay, because a sender's window is at least a round trip.

    >>> queue_bytes(Link(rate_bytes_per_s=125e6))
    524288.0
    """
    rate = link.rate_bytes_per_s
    if rate is None:
        return 0.0
    return max(32 * 1024.0, min(_SWITCH_BUFFER, 0.05 * rate), 2 * link.delay_s * rate)


def sends_long(plan: RelayPlan, cables: Mapping[str, Link]) -> dict[str, bool]:
    """Which nodes may send segments together: those whose packets meet no loss and no slow cable.

    Args:
        cables: as they are now.
    """
    long = dict.fromkeys(plan.addresses, True)
    for (source, _), route in plan.routes.items():
        for link in (cables[name] for name in route):
            rate = link.rate_bytes_per_s
            if link.loss or (rate is not None and rate < _LONG_BYTES_PER_S):
                long[source] = False
    return long


@dataclass
class Relay:
    """A relay that is up.

    Attributes:
        program: ``c`` or ``python``.
        path: of the socket where agents hand over their ends of the network.
        offset_s: what a packet takes more than it should, as measured at the start; the relay
            delivers earlier by so much.
        ended: done when the program has ended; its exit code.
    """

    program: str
    path: str
    offset_s: float
    ended: asyncio.Task[int]
    _plan: RelayPlan
    _process: asyncio.subprocess.Process
    _cables: dict[str, Link] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _exchanges: set[asyncio.Future[list[str]]] = field(default_factory=set)

    @property
    def pid(self) -> int:
        """Of the program; what it takes of the host's cores can be asked of the kernel."""
        return self._process.pid

    async def set(self, cable: str, link: Link) -> None:
        """Change a cable now; what is already on its way keeps its time.

        Raises:
            KeyError: there is no such cable.
            NodeError: the relay has ended.
        """
        number = list(self._plan.cables).index(cable) if cable in self._plan.cables else None
        if number is None:
            raise KeyError(cable)
        before = sends_long(self._plan, self._cables)
        self._cables[cable] = link
        lines = [_cable_line(number, link)]
        after = sends_long(self._plan, self._cables)
        for node, name in enumerate(self._plan.addresses):
            if before[name] != after[name]:
                lines.append(f"long {node} {int(after[name])}")
        await self._ask(lines, len(lines))

    async def counters(self) -> dict[str, CableCounters]:
        """What each cable has carried.

        Raises:
            NodeError: the relay has ended.
        """
        elapsed, *lines = await self._ask(["counters"], 1 + len(self._plan.cables))
        found = {}
        for name, line in zip(self._plan.cables, lines, strict=True):
            busy, size, packets, dropped, lost = line.split()
            found[name] = CableCounters(
                busy_s=float(busy) / 1e9,
                bytes=int(size),
                packets=int(packets),
                dropped=int(dropped),
                lost=int(lost),
                elapsed_s=float(elapsed) / 1e9,
            )
        return found

    async def _ask(self, lines: list[str], answers: int) -> list[str]:
        """Whoever is cancelled leaves the answers to be read, lest the next takes them for its."""
        exchange = asyncio.ensure_future(self._exchange(lines, answers))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)
        return await asyncio.shield(exchange)

    async def _exchange(self, lines: list[str], answers: int) -> list[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        async with self._turn:
            try:
                self._process.stdin.write("".join(line + "\n" for line in lines).encode())
                await self._process.stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                pass
            said = [(await self._process.stdout.readline()).decode() for _ in range(answers)]
        if not said[-1]:
            raise NodeError(
                "the relay that connects the nodes has ended",
                evidence=f"exit code {self._process.returncode}",
            )
        return [line.strip() for line in said]


@contextlib.asynccontextmanager
async def relay(folder: str, plan: RelayPlan, log: str) -> AsyncIterator[Relay]:
    """Connect the nodes of a plan, which may join at any time, until the context is left.

    Args:
        folder: gets the socket, ``relay.sock``.
        log: file for what the program has to complain about.

    Raises:
        NodeError: the relay did not start.
    """
    program, argv = relay_program()
    path = os.path.join(folder, "relay.sock")
    listening = _listen(path)
    try:
        with open(log, "ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *argv,
                str(listening.fileno()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                pass_fds=(listening.fileno(),),
                start_new_session=True,
            )
    finally:
        listening.close()
    ended = asyncio.ensure_future(process.wait())
    try:
        up = Relay(program, path, 0.0, ended, plan, process, dict(plan.cables))
        up.offset_s = await _start(up, plan, log)
        yield up
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(ended), _END_TIMEOUT_S)
        except asyncio.TimeoutError:
            process.kill()
            await ended
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


async def _start(up: Relay, plan: RelayPlan, log: str) -> float:
    """Tell the plan; returns the offset in seconds once it says that it is ready."""
    try:
        (said,) = await asyncio.wait_for(up._ask(_plan_lines(plan), 1), _START_TIMEOUT_S)
        word, offset = said.split()
        assert word == "ready"
        return float(offset) / 1e9
    except (NodeError, ValueError, asyncio.TimeoutError) as error:
        with open(log, encoding="utf-8", errors="replace") as stream:
            evidence = "\n".join(stream.read().splitlines()[-5:])
        raise NodeError(
            "the relay that is to connect the nodes did not start", evidence=evidence
        ) from error


def relay_program() -> tuple[str, list[str]]:
    """``c`` and the compiled program, or ``python`` and the other."""
    if os.environ.get(PROGRAMS_VARIABLE) != "python":
        try:
            return "c", [compiled("network/relay.c", "-O2")]
        except NodeError:
            pass
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay_program.py")
    return "python", [sys.executable, "-I", "-S", script]


def _listen(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(address(path, folder))
        listening.listen(1024)
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(folder)
    listening.setblocking(False)
    return listening


def _plan_lines(plan: RelayPlan) -> list[str]:
    """The plan in the words of the programs; nodes and cables are numbered in order."""
    nodes = {name: number for number, name in enumerate(plan.addresses)}
    cables = {name: number for number, name in enumerate(plan.cables)}
    lines = [f"plan {len(nodes)} {len(cables)} {plan.seed & (2**64 - 1)}"]
    for name, number in nodes.items():
        lines.append(f"node {number} {name} {plan.addresses[name]}")
    for name, number in cables.items():
        lines.append(_cable_line(number, plan.cables[name]))
    for (source, target), route in plan.routes.items():
        through = " ".join(str(cables[name]) for name in route)
        lines.append(f"route {nodes[source]} {nodes[target]} {len(route)} {through}")
    for name, long in sends_long(plan, plan.cables).items():
        lines.append(f"long {nodes[name]} {int(long)}")
    return [*lines, "start"]


def _cable_line(number: int, link: Link) -> str:
    rate = link.rate_bytes_per_s
    ns_per_byte = 0.0 if rate is None else 1e9 / rate
    values = (ns_per_byte, link.delay_s * 1e9, link.jitter_s * 1e9, link.loss, queue_bytes(link))
    return f"cable {number} " + " ".join(f"{value:.12g}" for value in values)
