"""How much of every GPU is taken over a run's time: ``gpu-memory.jsonl``.

A line ``{"t", "used"}`` whenever something has changed, with bytes per node and GPU; the last also
has ``peaks``, the most that was ever taken of each, and ``processes``, who took what.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from simgrid_ml.engine.gpu_rows import user_rows
from simgrid_ml.node.gpu_ledger import Ledger
from simgrid_ml.record.journal import Journal

__all__ = ["recorded"]

PERIOD_S = 0.5
LINES = 1000
"""After so many lines the period doubles, and again: what grows for days must stay small."""


@contextlib.asynccontextmanager
async def recorded(path: str, ledgers: Mapping[str, str]) -> AsyncIterator[None]:
    """Write it down until the block is left.

    Args:
        path: of the journal.
        ledgers: path of each node's ledger.
    """
    opened = {node: Ledger(file) for node, file in ledgers.items()}
    journal = Journal(path)
    looking = asyncio.create_task(_look(opened, journal))
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        with contextlib.suppress(OSError):  # a full disk is told by whoever matters more
            journal.append(_at_the_end(opened))
            journal.close()
        for ledger in opened.values():
            ledger.close()


async def _look(
    ledgers: Mapping[str, Ledger], journal: Journal, period_s: float = PERIOD_S
) -> None:
    before: dict[str, list[int]] | None = None
    lines = 0
    while True:
        used = _used(ledgers)
        if used != before:
            journal.append({"t": time.time(), "used": used})
            before = used
            lines += 1
            if lines % LINES == 0:
                period_s *= 2
        await asyncio.sleep(period_s)


def _used(ledgers: Mapping[str, Ledger]) -> dict[str, list[int]]:
    return {node: list(ledger.used()) for node, ledger in ledgers.items()}


def _at_the_end(ledgers: Mapping[str, Ledger]) -> dict[str, Any]:
    return {
        "t": time.time(),
        "used": _used(ledgers),
        "peaks": {node: list(ledger.peaks()) for node, ledger in ledgers.items()},
        "processes": {node: user_rows(ledger, ended=True) for node, ledger in ledgers.items()},
    }
