"""Measures while nobody else does: what others take of the cores meanwhile spoils a value."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["becomes_quiet", "undisturbed"]

T = TypeVar("T")

_FOREIGN = 0.05
_LOOK_S = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")


def undisturbed(measure: Callable[[], T], patience_s: float) -> T:
    """What ``measure`` returns, taken while others had at most 5 % of the cores.

    Args:
        measure: runs everything in processes that it waits for.
        patience_s: how long to wait and try again; then the value least disturbed counts.
    """
    deadline = time.monotonic() + patience_s
    best: tuple[float, T] | None = None
    while best is None or (best[0] > _FOREIGN and time.monotonic() < deadline):
        becomes_quiet(deadline - time.monotonic())
        taken = _foreign(measure)
        if best is None or taken[0] < best[0]:
            best = taken
    return best[1]


def becomes_quiet(patience_s: float) -> bool:
    """Wait until others leave the cores alone; False: they did not in ``patience_s``."""
    deadline = time.monotonic() + patience_s
    while _foreign(lambda: time.sleep(_LOOK_S))[0] > _FOREIGN:
        if time.monotonic() >= deadline:
            return False
    return True


def _foreign(measure: Callable[[], T]) -> tuple[float, T]:
    """The share of the cores that others had, and what ``measure`` returned."""
    begun, busy, own = time.monotonic(), _busy_s(), _own_s()
    value = measure()
    elapsed = (time.monotonic() - begun) * len(os.sched_getaffinity(0))
    return max(0.0, (_busy_s() - busy) - (_own_s() - own)) / elapsed, value


def _busy_s() -> float:
    """User, nice and system time of all processes of the host, without interrupts."""
    with open("/proc/stat", encoding="ascii") as stream:
        user, nice, system = stream.readline().split()[1:4]
    return (int(user) + int(nice) + int(system)) / _TICKS


def _own_s() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
