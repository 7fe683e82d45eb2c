"""Did the host deliver what was emulated? Measured before the ranks start, and while they run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from simgrid_ml.backends.base import NodeInfo
from simgrid_ml.engine.agents import Switchboard
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.spec.links import Links
from simgrid_ml.spec.placement import Placement

__all__ = ["Fidelity"]


class Fidelity:
    """What is seen of one attempt; written to the run directory for ``checks.fidelity``.

    Args:
        nodes: the nodes that are up, by name.
        capacity: what each was to get of the host.
        links: what was to be between them; None: nothing that slows them.
        log: appends to the run's events.
    """

    def __init__(
        self,
        record: RunRecord,
        placement: Placement,
        nodes: Mapping[str, NodeInfo],
        capacity: Capacity,
        links: Links | None,
        log: Callable[..., None],
    ) -> None:
        self._record = record
        self._placement = placement
        self._nodes = nodes
        self._capacity = capacity
        self._links = links
        self._log = log

    async def probe(self, board: Switchboard) -> None:
        """Measure what the links really do.

        Raises:
            NodeError: they do not do what was asked.
        """

    @contextlib.asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        """Sample the host and the nodes until the block is left."""
        yield
