"""Before the ranks start: do the links do what was asked? A program on either end measures it.

Pairs are probed one after the other, neighbours in the ring of nodes: together they take at most
about ``_BUDGET_S``. TCP measures a rate only where one connection can fill the link; where it
cannot, the record says so instead of blaming the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import statistics
from collections.abc import Mapping
from typing import Any

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo
from simgrid_ml.checks.fidelity import DELAY_SLACK_S, RATE_TOLERANCE, deviations
from simgrid_ml.engine.agents import Switchboard
from simgrid_ml.errors import NodeError
from simgrid_ml.network.relay import queue_bytes
from simgrid_ml.record.read import tail
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.links import Link, Links, between, describe

__all__ = ["Wish", "is_broken", "measure_links", "measured", "ring", "train_bytes", "window_bytes"]

_BUDGET_S = 1.5
_MOST_PAIRS = 4
_TRAIN_S = 0.25
_START_S = 0.06
_FIRST_WINDOW = 10 * 1448
_SURELY_IN_FLIGHT = 3e5
_MOST_IN_FLIGHT = 1.5e6
"""Bytes on their way that one connection fills a link with: surely, and at most. In between it may,
but also may lose some at first, and then needs longer than a probe takes."""
_WINDOW = 0.75
_PACE = 1.25
_PING_WIRE = 67
_OVERHEAD = 66
"""Bytes of a ping on the wire, and around the payload of a segment: Ethernet, IP, TCP."""
_BROKEN = (0.5, 1.2)
"""Share of the rate below which, and above which, a link does not do what it is for. Below is wide:
a host that is busy slows every link, and the stamp of the run says so."""


class Wish:
    """What was asked of the way from one node to another and back.

    ``delay_s`` and ``jitter_s`` are the mean of both ways, as half a round trip is.
    """

    def __init__(self, links: Links, a: str, b: str) -> None:
        there, back = between(links, a, b), between(links, b, a)
        self.pair = (a, b)
        self.there = there
        self.back = back
        self.rate_bytes_per_s = there.rate_bytes_per_s
        self.delay_s = (there.delay_s + back.delay_s) / 2
        self.jitter_s = (there.jitter_s + back.jitter_s) / 2

    def to_json(self) -> dict[str, Any]:
        return {
            "rate_bytes_per_s": self.rate_bytes_per_s,
            "delay_s": self.delay_s,
            "jitter_s": self.jitter_s,
            "loss": self.there.loss,
        }

    @property
    def pings(self) -> int:
        return 3 if self.delay_s > 0.01 else 20

    @property
    def in_flight_bytes(self) -> float:
        return self.rate * 2 * self.delay_s

    @property
    def rate(self) -> float:
        """Bytes per second; 0.0: none was asked for."""
        return self.rate_bytes_per_s or 0.0

    @property
    def is_long(self) -> bool:
        """Whether so much is on its way that TCP may not fill it within the time of a probe."""
        return self.in_flight_bytes > _SURELY_IN_FLIGHT

    @property
    def waiting_bytes(self) -> float:
        """What may wait before the link."""
        return queue_bytes(Link(rate_bytes_per_s=self.rate_bytes_per_s))

    @property
    def takes_s(self) -> float:
        """About how long its probe takes."""
        doublings = math.log2(max(1.0, self.in_flight_bytes / _FIRST_WINDOW)) + 1
        ways = 1 + self.pings + (doublings if train_bytes(self)[0] else 0.0)
        train_s = train_bytes(self)[0] / (self.rate_bytes_per_s or math.inf)
        return _START_S + train_s + 2 * self.delay_s * ways


def train_bytes(wish: Wish) -> tuple[int, str]:
    """How much to send to learn the rate; 0, and why that would tell nothing."""
    rate = wish.rate_bytes_per_s
    if rate is None:
        return 0, "no rate was asked for"
    if wish.there.loss or wish.back.loss:
        return 0, "packets are lost, so TCP sends slower than the link"
    if wish.in_flight_bytes > _MOST_IN_FLIGHT:
        return 0, "one TCP connection cannot fill a link of such rate and delay"
    return int(max(32 * 1448, _TRAIN_S * rate, 8 * wish.in_flight_bytes)), ""


def window_bytes(wish: Wish) -> int:
    """What TCP is told that the listener has room for; 0: as much as it likes.

    Enough to fill the link and a part of what may wait before it; the kernel gives away up to 1.7
    times as much.
    """
    return int(_WINDOW * wish.in_flight_bytes + wish.waiting_bytes / 4)


def ring(nodes: tuple[str, ...], links: Links) -> list[Wish]:
    """What to probe: neighbours in the ring, first one of each kind, within the time there is."""
    if len(nodes) < 2:
        return []
    wishes = [Wish(links, a, b) for a, b in zip(nodes, (*nodes[1:], nodes[0]), strict=True)]
    kinds: dict[tuple[Link, Link], list[Wish]] = {}
    for wish in wishes:
        kinds.setdefault((wish.there, wish.back), []).append(wish)
    ordered = [same[0] for same in kinds.values()]
    ordered += [wish for same in kinds.values() for wish in same[1:]]
    chosen = ordered[:1]
    for wish in ordered[1:_MOST_PAIRS]:
        if sum(one.takes_s for one in (*chosen, wish)) > _BUDGET_S:
            break
        chosen.append(wish)
    return chosen


def measured(wish: Wish, said: Mapping[str, Any]) -> dict[str, Any]:
    """The figures behind what a probe said, in the terms of what was asked.

    The rate is that of frames, and the delay is without the time that a ping itself takes to send.
    """
    if "error" in said:
        return {"error": said["error"]}
    trips = said["round_trips_s"]
    # Without jitter, the shortest one: whatever is longer waited for a core of the host.
    trip = statistics.median(trips) if wish.jitter_s else min(trips)
    sending_s = sum(_PING_WIRE / (way.rate_bytes_per_s or math.inf) for way in _ways(wish))
    told: dict[str, Any] = {"delay_s": max(0.0, trip - sending_s) / 2, "round_trips": len(trips)}
    why_not = train_bytes(wish)[1]
    if said.get("sent_again"):
        told["rate_not_measured"] = f"{said['sent_again']} segments were lost and sent again"
    elif "train" in said:
        segment = said["segment_bytes"]
        payload = said["train"]["bytes_per_s"]
        told["goodput_bytes_per_s"] = payload
        told["rate_bytes_per_s"] = payload * (segment + _OVERHEAD) / segment
        if wish.is_long and told["rate_bytes_per_s"] < (1 - RATE_TOLERANCE) * wish.rate:
            del told["rate_bytes_per_s"]
            told["rate_not_measured"] = "one TCP connection did not fill so fast and long a link"
    else:
        told["rate_not_measured"] = why_not
    return told


def is_broken(asked: Mapping[str, Any], got: Mapping[str, Any]) -> bool:
    """Whether a link does not do what it is for: not merely badly, but not at all."""
    rate, found = asked["rate_bytes_per_s"], got.get("rate_bytes_per_s")
    if "error" in got or (rate and found and not _BROKEN[0] <= found / rate <= _BROKEN[1]):
        return True
    least = float(asked["delay_s"]) / 2 - float(asked["jitter_s"]) - DELAY_SLACK_S
    return float(got["delay_s"]) < least


async def measure_links(
    board: Switchboard,
    record: RunRecord,
    nodes: Mapping[str, NodeInfo],
    links: Links,
) -> list[dict[str, Any]]:
    """Asked and measured for some pairs of nodes, as ``fidelity.json`` has them.

    Raises:
        NodeError: a link does not work, or not at all as asked, also at the second try.
    """
    found = []
    for wish in ring(tuple(nodes), links):
        asked = wish.to_json()
        got = await _measure(board, record, nodes, wish)
        if is_broken(asked, got):  # a host that was busy for a moment is no broken link
            got = await _measure(board, record, nodes, wish)
        a, b = wish.pair
        if is_broken(asked, got):
            raise NodeError(
                f"the link from {a} to {b} was to be {describe(wish.there)}, and is not",
                evidence="\n".join(deviations(asked, got)),
                remedy="ask for a slower link, or leave the host more idle cores; "
                "`simgrid-ml doctor` says what it can emulate",
            )
        found.append({"from": a, "to": b, "asked": asked, "measured": got})
    return found


async def _measure(
    board: Switchboard, record: RunRecord, nodes: Mapping[str, NodeInfo], wish: Wish
) -> dict[str, Any]:
    a, b = wish.pair
    meet = record.file(wire.TMP, f"probe-{a}-{b}")
    answer = f"{meet}.json"
    deadline_s = 5.0 + 4 * wish.takes_s
    pace = int(_PACE * wish.rate) if wish.is_long else 0
    figures = (str(wish.pings), str(train_bytes(wish)[0]), str(pace), str(deadline_s))
    window = str(window_bytes(wish))
    listener = board.spawn(b, _program(nodes[b], "listen", meet, nodes[b].address, window), {})
    asker = board.spawn(
        a, _program(nodes[a], "ask", meet, nodes[b].address, *figures), {}, stdout=answer
    )
    try:
        code = await asyncio.wait_for(asker.wait(), 3 * deadline_s)
        if code != 0:
            raise NodeError(
                f"the probe of the links could not run on {a}: exit code {code}",
                evidence=tail(answer, 20),
                remedy="nodes need a python3 of version 3.8 or later on their PATH",
            )
        with open(answer, encoding="utf-8") as stream:
            return measured(wish, json.load(stream))
    except asyncio.TimeoutError:
        return {"error": f"nothing came through within {3 * deadline_s:.3g} s"}
    finally:
        for process in (listener, asker):
            process.signal(9)
        for path in (meet, answer):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _program(node: NodeInfo, *words: str) -> tuple[str, ...]:
    return ("python3", "-I", "-S", os.path.join(node.package, "node", "probe.py"), *words)


def _ways(wish: Wish) -> tuple[Link, Link]:
    return wish.there, wish.back
