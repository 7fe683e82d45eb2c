"""Who gets nodes when: runs on a stored cluster take turns, any other gets nodes of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from simgrid_ml.backends.base import Backend, NodesRequest
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.cluster import ClusterSpec

__all__ = ["nodes_for"]


@contextlib.asynccontextmanager
async def nodes_for(
    record: RunRecord,
    cluster: ClusterSpec,
    backend: Backend,
    request: NodesRequest,
    log: Callable[..., None],
) -> AsyncIterator[Awaitable[object] | None]:
    """The nodes of one attempt of a run; on leaving they are given back, or gone.

    Yields what ``Backend.nodes`` yields.

    Raises:
        NodeError: they cannot be had.
    """
    async with backend.nodes(request) as ended:
        yield ended
