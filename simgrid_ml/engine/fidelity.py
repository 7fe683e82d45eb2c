"""Did the host deliver what was emulated? Measured before the ranks start, and while they run.

``checks.fidelity`` judges what this writes to ``fidelity.json``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo
from simgrid_ml.engine.agents import Switchboard
from simgrid_ml.engine.sampling import Sampler
from simgrid_ml.errors import NodeError
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.placement import Placement

if TYPE_CHECKING:
    from simgrid_ml.network.wires import Wires

__all__ = ["Fidelity", "pause_s"]

_PERIOD_S = 1.0
_SHARE_OF_CPU = 0.01


class Fidelity:
    """What is seen of one attempt; written to the run directory for ``checks.fidelity``.

    Args:
        nodes: the nodes that are up, by name.
        wires: what is between them; None: nothing that slows them.
        log: appends to the run's events.
    """

    def __init__(
        self,
        record: RunRecord,
        placement: Placement,
        nodes: Mapping[str, NodeInfo],
        wires: Wires | None,
        log: Callable[..., None],
    ) -> None:
        self._record = record
        self._placement = placement
        self._nodes = nodes
        self._wires = wires
        self._log = log
        self._measured: list[dict[str, Any]] = []
        self._agents: dict[str, int] = {}
        self._before: dict[str, dict[str, Any]] = {}

    async def probe(self, board: Switchboard) -> None:
        """Measure what the links really do.

        Raises:
            NodeError: they do not do what was asked.
        """
        seen = board.pids()
        self._agents = {node: seen.get(node, 0) for node in self._placement.nodes}
        if self._wires is None:
            return
        from simgrid_ml.engine.probing import measure_links  # only some runs need it

        links = self._wires.choice.links
        self._measured = await measure_links(board, self._record, self._nodes, links)
        self._log("links-probed", links=self._measured)

    @contextlib.asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        """Sample the host and the nodes until the block is left; then write what was seen."""
        tasks = {task.name: task.node for task in self._placement.tasks}
        sampler = Sampler(tasks, self._agents)
        stop = asyncio.Event()
        self._before = await self._counters()
        looking = asyncio.create_task(_look(sampler, stop))
        try:
            yield
        finally:
            stop.set()
            await looking
            cables = await self._carried()
            # A full disk is told by whoever has something to say that matters more.
            with contextlib.suppress(OSError):
                document = {"links": self._measured, "cables": cables, **sampler.summary()}
                write_json(self._record.file(wire.FIDELITY), document)

    async def _counters(self) -> dict[str, dict[str, Any]]:
        if self._wires is None:
            return {}
        with contextlib.suppress(NodeError):  # the relay has ended; that is told elsewhere
            return await self._wires.counters()
        return {}

    async def _carried(self) -> dict[str, dict[str, float]]:
        """For each cable, the share of the time it was sending, and what it carried and dropped."""
        carried = {}
        for name, after in (await self._counters()).items():
            if name in self._before:
                grown = {key: after[key] - value for key, value in self._before[name].items()}
                busy = grown["busy_s"] / grown["elapsed_s"] if grown["elapsed_s"] > 0 else 0.0
                counts = {key: grown[key] for key in ("bytes", "dropped", "lost")}
                carried[name] = {"busy": round(busy, 4), **counts}
        return carried


async def _look(sampler: Sampler, stop: asyncio.Event) -> None:
    """In a thread, since a host with thousands of processes takes long to read."""
    number = 0
    while True:
        last = stop.is_set()
        cost_s = await asyncio.to_thread(sampler.look)
        if last:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s(number, cost_s))
        number += 1


def pause_s(number: int, cost_s: float) -> float:
    """Seconds until the next look: soon at first, as short runs exist; never so often that
    looking costs more than one per cent of a core.

    >>> pause_s(0, 0.0005), pause_s(100, 0.0005), pause_s(100, 0.02)
    (0.1, 1.0, 2.0)
    """
    return max(min(_PERIOD_S, 0.1 * (number + 1)), cost_s / _SHARE_OF_CPU)
