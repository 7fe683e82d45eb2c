"""How one of the kernel's counters grew while a run went on. Pure."""

from __future__ import annotations

import math

__all__ = ["MOST_EVENTS", "Course"]

MOST_EVENTS = 50
_INTERVAL_S = 0.5
"""The shortest time that is judged by itself: the kernel counts in hundredths of a second."""


class Course:
    """How a counter grew: its mean growth per second, its worst half second, when it was too much.

    Args:
        time_s, value: when it was read first, and what it said.
        degraded, invalid: from which growth per second on it is an event; and counts as time
            ``above``.
        most: it cannot grow faster; what says so is the clocks' coarseness.
    """

    def __init__(
        self,
        time_s: float,
        value: float,
        degraded: float,
        invalid: float | None,
        most: float = math.inf,
    ) -> None:
        self._first = self._closed = self._last = (time_s, value)
        self._most = most
        self._degraded = degraded
        self._above = degraded if invalid is None else invalid
        self.worst = 0.0
        self.above_s = 0.0
        self.events: list[tuple[float, float, float]] = []
        """From, to, worst value: the first stretches of at least ``degraded``."""

    def see(self, time_s: float, value: float) -> None:
        """The counter once more."""
        self._last = (time_s, value)
        if time_s - self._closed[0] >= _INTERVAL_S:
            self._close()

    def to_json(self) -> dict[str, float]:
        """``mean`` and ``worst`` per second; ``window_s``; ``above_s`` of it."""
        if self._closed == self._first and self._last != self._first:
            self._close()  # all there was is shorter than an interval
        mean = min(self._most, _growth(self._first, self._last))
        return {
            "mean": round(mean, 6),
            "worst": round(max(mean, self.worst), 6),  # its last moments were no interval
            "window_s": round(self.window_s, 3),
            "above_s": round(self.above_s, 3),
        }

    @property
    def window_s(self) -> float:
        return self._last[0] - self._first[0]

    def _close(self) -> None:
        begin, end = self._closed[0], self._last[0]
        value = min(self._most, _growth(self._closed, self._last))
        self._closed = self._last
        self.worst = max(self.worst, value)
        if value >= self._above:
            self.above_s += end - begin
        if value < self._degraded:
            return
        if self.events and self.events[-1][1] == begin:
            since, _, worst = self.events.pop()
            begin, value = since, max(worst, value)
        if len(self.events) < MOST_EVENTS:
            self.events.append((begin, end, value))


def _growth(before: tuple[float, float], after: tuple[float, float]) -> float:
    passed = after[0] - before[0]
    return max(0.0, (after[1] - before[1]) / passed) if passed > 0 else 0.0
