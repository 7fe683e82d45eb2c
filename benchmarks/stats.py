"""How a figure is taken and judged: interleaved pairs, an interval, a verdict. Pure.

Two things that are compared are run in turns (A B, B A, A B, …), so that a machine that slows down
meanwhile slows both. What is reported is the median with a bootstrap interval, and a target counts
as met only when the whole interval meets it.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

__all__ = [
    "Interval",
    "Result",
    "Target",
    "Verdict",
    "bus_bandwidth",
    "in_turns",
    "interleaved",
    "judge",
    "median_interval",
    "percentile",
    "wilson_interval",
]

T = TypeVar("T")
U = TypeVar("U")

_RESAMPLES = 2000
_LEVEL = 0.95


class Verdict(str, Enum):
    """Undecided: the interval lies on both sides of the target; measure more, or on less noise."""

    MET = "met"
    NOT_MET = "not met"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Interval:
    """A median and where it would probably lie if everything were measured again."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Target:
    """``at_most`` a bound, or at least it."""

    bound: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


@dataclass(frozen=True)
class Result:
    """One figure of one benchmark.

    Attributes:
        name: what was measured, in words.
        unit: of every value, of the interval and of the target.
        values: as measured, in order; differences or ratios when pairs were compared.
        target: None for context that promises nothing.
        context: what a reader needs to repeat or doubt it.
    """

    name: str
    unit: str
    values: Sequence[float]
    target: Target | None = None
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interval(self) -> Interval:
        return median_interval(self.values)

    @property
    def verdict(self) -> Verdict | None:
        return None if self.target is None else judge(self.interval, self.target)

    def to_json(self) -> dict[str, Any]:
        interval = self.interval
        return {
            "name": self.name,
            "unit": self.unit,
            "n": len(self.values),
            "median": interval.median,
            "interval": [interval.low, interval.high],
            "target": None if self.target is None else str(self.target),
            "verdict": None if self.verdict is None else self.verdict.value,
            "values": list(self.values),
            "context": dict(self.context),
        }


def interleaved(first: Callable[[], T], second: Callable[[], U], pairs: int) -> list[tuple[T, U]]:
    """Measure both ``pairs`` times in the order A B, B A, A B, …; element i is the i-th pair."""
    taken: list[tuple[T, U]] = []
    for number in range(pairs):
        if number % 2 == 0:
            a = first()
            b = second()
        else:
            b = second()
            a = first()
        taken.append((a, b))
    return taken


def in_turns(measures: Sequence[Callable[[], T]], rounds: int) -> list[list[T]]:
    """As ``interleaved`` for more than two: A B C, C B A, …; element i has the values of round i,
    in the order of ``measures``."""
    taken: list[list[T]] = []
    for number in range(rounds):
        if number % 2 == 0:
            taken.append([measure() for measure in measures])
        else:
            taken.append([measure() for measure in reversed(measures)][::-1])
    return taken


def median_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The median and its 95 % percentile bootstrap interval; the same for the same values.

    Raises:
        ValueError: there are no values.

    >>> median_interval([3.0, 1.0, 2.0]).median
    2.0
    >>> median_interval([5.0])
    Interval(median=5.0, low=5.0, high=5.0)
    """
    if not values:
        raise ValueError("no values were measured")
    chance = random.Random(seed)
    count = len(values)
    medians = sorted(statistics.median(chance.choices(values, k=count)) for _ in range(_RESAMPLES))
    tail = (1 - _LEVEL) / 2
    return Interval(
        statistics.median(values), percentile(medians, tail), percentile(medians, 1 - tail)
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of sorted values.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def wilson_interval(hits: int, tries: int) -> tuple[float, float]:
    """Where a share of ``hits`` in ``tries`` probably lies, at 95 %; also where it is 0 or 1.

    >>> [round(bound, 3) for bound in wilson_interval(0, 50)]
    [0.0, 0.071]
    >>> [round(bound, 3) for bound in wilson_interval(25, 50)]
    [0.366, 0.634]
    """
    z = 1.959964
    share = hits / tries
    centre = (share + z * z / (2 * tries)) / (1 + z * z / tries)
    spread = math.sqrt(share * (1 - share) / tries + z * z / (4 * tries * tries))
    half = z / (1 + z * z / tries) * spread
    return max(0.0, centre - half), min(1.0, centre + half)


def judge(interval: Interval, target: Target) -> Verdict:
    """Whether the whole interval meets the target, or the whole interval misses it."""
    inside = (interval.low, interval.high) if target.at_most else (-interval.high, -interval.low)
    bound = target.bound if target.at_most else -target.bound
    if inside[1] <= bound:
        return Verdict.MET
    return Verdict.NOT_MET if inside[0] > bound else Verdict.UNDECIDED


def bus_bandwidth(size_bytes: int, time_s: float, world_size: int) -> float:
    """Bus bandwidth of one allreduce in GB/s: 2(n-1)/n · S/t, comparable across world sizes.

    >>> bus_bandwidth(1_000_000_000, 1.0, 4)
    1.5
    """
    return 2 * (world_size - 1) / world_size * size_bytes / time_s / 1e9
