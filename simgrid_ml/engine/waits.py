"""For whom a job may be waiting: what a run tells that had to be ended.

TensorFlow and torch wait inside themselves for a task that never opens its port, for ever and with
few words. The kernels of the nodes know who listens, so a run that somebody ends, or whose time is
up, can name the one who never did.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from simgrid_ml.spec.placement import Placement

__all__ = ["Board", "Waits"]

_SOON_S, _LATE_S = 0.25, 2.0
"""Between two questions, at first and later."""
_ANSWER_S = 2.0
_PATIENCE_S = 30.0
"""What tasks need to come to listening, and workers to end after the first of them."""


class Board(Protocol):
    """Asks nodes who listens there; ``Switchboard`` is one."""

    heard: dict[str, list[int]]

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
        self._alive: Collection[str] = ()
        self._begun = now()
        self._next_question = 0.0
        self._told_silent = False
        first = self._tasks.get("worker-0")
        self._first = first.name if first is not None and not first.serves else None
        self._first_ended: float | None = None
        self._left: list[str] = []

    def look(self, alive: Collection[str]) -> None:
        """Note who listens. ``alive``: the tasks that have not ended."""
        self._alive = alive
        now = self._now()
        if self._silent:
            self._note_who_listens(now)
        left = sorted(name for name in alive if not self._tasks[name].serves)
        if self._first is not None and self._first not in left and left:
            if self._first_ended is None:
                self._first_ended = now
            elif now - self._first_ended > _PATIENCE_S and not self._left:
                self._left = left
                self._log("first-worker-ended", task=self._first, running=left)

    def _note_who_listens(self, now: float) -> None:
        age_s = now - self._begun
        self._judge()
        if now >= self._next_question:
            self._ask()
            self._next_question = now + min(_LATE_S, max(_SOON_S, age_s / 20))
        if self._heard and not self._silent:
            self._log("all-listen", after_s=round(age_s, 3))
        elif self.never_listened and age_s > _PATIENCE_S and not self._told_silent:
            self._told_silent = True
            self._log("never-listened", tasks=self.never_listened)

    def _judge(self) -> None:
        for name in self._silent:
            port = int(self._endpoints[name].rpartition(":")[2])
            if port in self._board.heard.get(self._tasks[name].node, ()):
                self._heard.add(name)
        self._silent -= self._heard

    def _ask(self) -> list[str]:
        """Asks the nodes of tasks that were not heard; returns those that will answer."""
        nodes = sorted({self._tasks[name].node for name in self._silent})
        return [node for node in nodes if self._board.tell(node, op="listening")]

    async def _ask_and_judge(self) -> None:
        """As ``look`` at this very moment, as the last look is too old to accuse anybody by."""
        before = dict(self._board.heard)
        waiting = set(self._ask())
        deadline = self._now() + _ANSWER_S
        while waiting and self._now() < deadline:
            await asyncio.sleep(0.01)
            waiting = {node for node in waiting if self._board.heard.get(node) is before.get(node)}
        self._judge()
        self._silent -= {name for name in self._silent if self._tasks[name].node in waiting}

    @property
    def never_listened(self) -> list[str]:
        """The tasks that run and that nobody has heard, in order; none where none was heard."""
        silent = self._silent & set(self._alive)
        return [name for name in self._endpoints if self._heard and name in silent]

    def has_listened(self, name: str) -> bool:
        return name in self._heard

    async def silence(self) -> str:
        """Who has never listened, and where; empty if there is nothing to tell."""
        await self._ask_and_judge()
        if not self._heard:
            if not self._silent or self._now() - self._begun < _PATIENCE_S:
                return ""
            return "no task has ever listened at the address it was given"
        who = [self._describe(name) for name in self.never_listened]
        if not who:
            return ""
        more = f" and {len(who) - 8} more" * (len(who) > 8)
        return f"{', '.join(who[:8])}{more} never listened; the others may have waited for that"

    async def told(self) -> list[str]:
        """What a run that had to be ended may have been waiting for, a sentence each."""
        sentences = [await self.silence()]
        if self._left:
            sentences.append(
                f"{self._first} had ended while {', '.join(self._left[:8])} still ran: workers of "
                "TensorFlow 1 wait for the first one's answer unless their sessions have "
                "device_filters"
            )
        return [sentence for sentence in sentences if sentence]

    def _describe(self, name: str) -> str:
        return f"{name} on {self._tasks[name].node} ({self._endpoints[name]})"
