"""One model, trained over shaped links in several ways: what its steps took and carried.

A node's link has the same rate in both directions. With N workers, k servers and parameters of S
bytes, a step sends at least (headers come on top):

* by allreduce: 2(N-1)/N · S from every worker, and as much to it;
* by servers: S to every worker before its step, and S of gradients back; a server that holds the
  share s of the parameters sends, and then receives, N · s · S.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.overhead.jobs import Bench, Ran
from benchmarks.quiet import becomes_quiet
from benchmarks.stats import Result, Target
from simgrid_ml import wire
from simgrid_ml.spec.job import Distribution, Mpi, ParameterServer
from simgrid_ml.spec.links import Link, Links

__all__ = ["PROGRAMS", "Trained", "Trainer", "Way", "results"]

PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
_MORE_THAN_PAYLOAD = 1.10
"""The headers of full packets make 1.036, acknowledgements and names of tensors the rest."""
_PAYLOAD_SHARE = 1448 / 1514  # of an Ethernet frame of 1500 bytes: what TCP's user has of it


@dataclass(frozen=True)
class Way:
    """How ``workers`` come to common parameters; without servers by allreduce."""

    workers: int
    servers: int = 0
    synchronous: bool = True

    def __str__(self) -> str:
        if not self.servers:
            return f"{self.workers} workers, allreduce"
        servers = f"{self.servers} server{'s' if self.servers > 1 else ''}"
        return (
            f"{self.workers} workers, {servers}, {'a' if not self.synchronous else ''}synchronous"
        )

    @property
    def distribution(self) -> Distribution:
        """Every task on a node of its own."""
        if not self.servers:
            return Mpi(nodes=self.workers)
        nodes = self.workers + self.servers
        return ParameterServer(nodes=nodes, workers=self.workers, servers=self.servers)

    def bytes_per_step(self, size: float) -> float:
        """What all nodes together must send for one step of every worker.

        >>> Way(2).bytes_per_step(100), Way(4).bytes_per_step(100), Way(4, 2).bytes_per_step(100)
        (200, 600, 800)
        """
        return 2 * (self.workers if self.servers else self.workers - 1) * size

    def seconds_per_step(self, size: float, largest_share: float, rate: float) -> float:
        """About what a step of every worker takes if nothing but the links takes time.

        Args:
            size: of the parameters, in bytes.
            largest_share: of them, on one server; 1 without servers.
            rate: of each node's link in either direction, in bytes/s.

        >>> [Way(4, k).seconds_per_step(100, 1 / (k or 1), 100) for k in (0, 1, 2, 4)]
        [1.5, 8.0, 4.0, 2.0]
        >>> Way(4, 1, synchronous=False).seconds_per_step(100, 1, 100)
        4.0
        """
        if not self.servers:
            return 2 * (self.workers - 1) / self.workers * size / rate
        at_server, at_worker = self.workers * largest_share * size / rate, size / rate
        if self.synchronous:  # all read, then all write
            return 2 * max(at_server, at_worker)
        return max(at_server, 2 * at_worker)  # some write while others read


@dataclass(frozen=True)
class Trained:
    """One training, from the end of its first steps on.

    Attributes:
        steps_per_s: of a worker, on average.
        sent: bytes that all nodes together sent for one step of every worker, with headers.
        size: bytes of all parameters.
        largest_share: of them, on one server; 1 without servers.
        losses: each worker's, before and after.
        is_disturbed: others had more of the host's cores than they may.
    """

    steps_per_s: float
    sent: float
    size: int
    largest_share: float
    losses: Sequence[tuple[float, float]]
    is_disturbed: bool


@dataclass(frozen=True)
class Trainer:
    """Trains over links of ``rate`` bytes/s.

    Attributes:
        words: further arguments of the program.
        patience_s: how long to wait for a quiet host before each training.
    """

    bench: Bench
    rate: float
    backend: str = "process"
    words: tuple[str, ...] = ()
    patience_s: float = 60.0

    def __call__(self, way: Way) -> Trained:
        """
        Raises:
            RuntimeError: the training failed, or did not train.
        """
        becomes_quiet(self.patience_s)
        how = "allreduce" if not way.servers else "synchronous"
        ran = self.bench.on_nodes(
            "train.py",
            how if way.synchronous else "asynchronous",
            *self.words,
            distribution=way.distribution,
            source=PROGRAMS,
            cluster={
                "backend": self.backend,
                "links": Links(default=Link(rate_bytes_per_s=self.rate)),
            },
        )
        return _read(way, ran)

    def expected(self, way: Way, trained: Trained) -> float:
        """Steps per second, if nothing but the links took time."""
        rate = self.rate * _PAYLOAD_SHARE
        return 1 / way.seconds_per_step(trained.size, trained.largest_share, rate)


def results(trainer: Trainer, way: Way, taken: Sequence[Trained]) -> Iterator[Result]:
    """What there is to say of one way, and what it must come to."""
    one = taken[0]
    yield Result(
        f"{way}: steps/s of a worker",
        "steps/s",
        [trained.steps_per_s for trained in taken],
        context={
            "by_the_links_alone": trainer.expected(way, one),
            "link_bytes_per_s": trainer.rate,
            "backend": trainer.backend,
            "values_on_a_noisy_host": sum(trained.is_disturbed for trained in taken),
        },
    )
    formula = way.bytes_per_step(one.size)
    yield Result(
        f"{way}: bytes sent per step, over the formula's",
        "",
        [trained.sent / formula for trained in taken],
        Target(_MORE_THAN_PAYLOAD),
        {"parameters_bytes": one.size, "formula_bytes": formula, "sent_bytes": one.sent},
    )


def _read(way: Way, ran: Ran) -> Trained:
    told: list[dict[str, Any]] = [
        json.loads(line) for line in ran.lines if line.startswith('{"begun":')
    ]
    if len(told) != way.workers:
        raise RuntimeError(f"{len(told)} of {way.workers} workers told something: {ran.lines}")
    sent = sum(one["sent"] / one["steps"] for one in told)
    if way.servers:  # what they send comes to workers
        sent += sum(one["received"] / one["steps"] for one in told)
    size = told[0]["bytes"]
    held = told[0]["servers"]
    if len(held) != way.servers:
        raise RuntimeError(f"{way} had its parameters on {held}")
    return Trained(
        sum(one["steps"] / (one["ended"] - one["begun"]) for one in told) / way.workers,
        sent,
        size,
        max(held.values()) / size if held else 1.0,
        [(one["losses"][0], one["losses"][1]) for one in told],
        _disturbed(ran, min(one["begun"] for one in told), max(one["ended"] for one in told)),
    )


def _disturbed(ran: Ran, begun: float, ended: float) -> bool:
    """Whether the run's own record says that something else had the cores meanwhile."""
    assert ran.record is not None
    with open(ran.record.file(wire.FIDELITY), encoding="utf-8") as stream:
        seen = json.load(stream)
    return any(
        event["what"] in {"foreign", "steal"}
        and seen["begun"] + event["from_s"] < ended
        and seen["begun"] + event["to_s"] > begun
        for event in seen["events"]
    )
