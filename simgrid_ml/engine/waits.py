"""For whom a job may be waiting: what a run tells that had to be ended.

TensorFlow and torch wait inside themselves for a task that never opens its port, for ever and with
few words. The kernels of the nodes know who listens, so a run that somebody ends, or whose time is
up, can name the one who never did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from simgrid_ml.spec.placement import Placement

__all__ = ["Board", "Waits"]

_SOON_S, _LATE_S = 0.25, 2.0
_PATIENCE_S = 30.0
"""What tasks need to come to listening, and workers to end after the first of them."""


class Board(Protocol):
    """Asks nodes who listens there; ``Switchboard`` is one."""

    heard: dict[str, frozenset[int]]

    def tell(self, node: str, **message: Any) -> bool: ...


class Waits:
    """Watches who listens where the others expect it, and whether the first worker has ended.

    Args:
        endpoints: ``address:port`` of each task that is to listen.
        log: appends to the run's events.
    """

    def __init__(
        self,
        placement: Placement,
        endpoints: Mapping[str, str],
        board: Board,
        log: Callable[..., None],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = {task.name: task for task in placement.tasks}
        self._endpoints = endpoints
        self._board = board
        self._log = log
        self._now = now
        self._silent = set(endpoints)
        self._heard: set[str] = set()
        self._begun = now()
        self._next_look = 0.0
        self._told_silent = False
        first = self._tasks.get("worker-0")
        self._first = first.name if first is not None and not first.serves else None
        self._first_ended: float | None = None
        self._left: tuple[str, ...] = ()

    def look(self, running: Collection[str]) -> None:
        """Note who listens. ``running``: the tasks that have not ended and serve no other."""
        now = self._now()
        if self._silent and now >= self._next_look:
            self._listen()
            age_s = now - self._begun
            self._next_look = now + min(_LATE_S, max(_SOON_S, age_s / 10))
            if self._heard and not self._silent:
                self._log("all-listen", after_s=round(age_s, 3))
            elif self._heard and age_s > _PATIENCE_S and not self._told_silent:
                self._told_silent = True
                self._log("never-listened", tasks=self.never_listened)
        if self._first is not None and self._first not in running and running:
            if self._first_ended is None:
                self._first_ended = now
            elif now - self._first_ended > _PATIENCE_S and not self._left:
                self._left = tuple(running)
                self._log("first-worker-ended", task=self._first, running=sorted(running))

    def _listen(self) -> None:
        """Judge by the last answers, and ask again."""
        for name in self._silent:
            heard = self._board.heard.get(self._tasks[name].node, frozenset())
            if int(self._endpoints[name].rpartition(":")[2]) in heard:
                self._heard.add(name)
        self._silent -= self._heard
        for node in sorted({self._tasks[name].node for name in self._silent}):
            self._board.tell(node, op="listening")

    @property
    def never_listened(self) -> list[str]:
        """The tasks that nobody has heard, in order; none where all or none were heard."""
        return [name for name in self._endpoints if self._heard and name in self._silent]

    def has_listened(self, name: str) -> bool:
        return name in self._heard

    def silence(self) -> str:
        """Who has never listened, and where; empty if there is nothing to tell."""
        if not self._heard:
            if not self._silent or self._now() - self._begun < _PATIENCE_S:
                return ""
            return "no task has ever listened at its address"
        who = [self._describe(name) for name in self.never_listened]
        if not who:
            return ""
        more = f" and {len(who) - 8} more" * (len(who) > 8)
        return f"{', '.join(who[:8])}{more} never listened; the others may have waited for that"

    def told(self) -> list[str]:
        """What a run that had to be ended may have been waiting for, a sentence each."""
        sentences = [self.silence()]
        if self._left and self._first is not None:
            sentences.append(
                f"{self._first} had ended while {', '.join(self._left[:8])} still ran: workers of "
                "TensorFlow 1 wait for the first one's answer unless their sessions have "
                "device_filters"
            )
        return [sentence for sentence in sentences if sentence]

    def _describe(self, name: str) -> str:
        return f"{name} on {self._tasks[name].node} ({self._endpoints[name]})"
