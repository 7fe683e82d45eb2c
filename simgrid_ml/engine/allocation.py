"""Who gets nodes when: runs on a stored cluster take turns, any other gets nodes of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from simgrid_ml import wire
from simgrid_ml.backends.base import Backend, NodesRequest
from simgrid_ml.engine import pools
from simgrid_ml.errors import NodeError, PlacementError
from simgrid_ml.node.protocol import address, encode
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.value import to_plain

__all__ = ["Allocation", "Preempted", "is_pooled", "nodes_for"]

T = TypeVar("T")
_LINE_LIMIT = 2**20
_VERDICT_S = 0.5
_MOST_POOLS = 3
"""So often a run asks for nodes again because the pool went away before it had any."""
_RELEASE_S = 15.0


class Preempted(NodeError):
    """A low-priority node was taken away; the job begins again on others."""


@dataclass(frozen=True)
class Allocation:
    """Nodes that are a run's until it lets go.

    Attributes:
        owner: the id from which their addresses come.
        nodes: their names, the head node's first.
        ended: done when some will never say hello, maybe with a ``NodeError``; or None.
        lost: fails when they are taken away.
    """

    owner: str
    nodes: tuple[str, ...]
    ended: Awaitable[object] | None
    lost: asyncio.Future[None] | None = None

    async def unless_lost(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, which has ended in any case when this returns or raises.

        Raises:
            Preempted: a node was taken away.
            NodeError: the pool of the cluster is gone.
        """
        if self.lost is None:
            return await work
        task = asyncio.ensure_future(work)
        try:
            both: set[asyncio.Future[Any]] = {task, self.lost}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.lost.result()
            if isinstance(task.exception(), NodeError):  # what took the node away says so now
                await asyncio.wait({self.lost}, timeout=_VERDICT_S)
                if self.lost.done():
                    self.lost.result()
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def is_pooled(record: RunRecord) -> bool:
    """Whether the run was submitted to a cluster as it was stored, and so shares its nodes."""
    return bool(record.spec().get("pooled"))


@contextlib.asynccontextmanager
async def nodes_for(
    record: RunRecord,
    cluster: ClusterSpec,
    backend: Backend,
    request: NodesRequest,
    log: Callable[..., None],
) -> AsyncIterator[Allocation]:
    """The nodes of one attempt of a run; on leaving they are given back, or gone.

    Raises:
        NodeError: they cannot be had.
        PlacementError: the cluster has become too small.
    """
    if is_pooled(record):
        async with _of_pool(record, cluster, backend, request, log) as given:
            yield given
    else:
        async with backend.nodes(request) as ended:
            yield Allocation(record.id, request.nodes, ended)


@contextlib.asynccontextmanager
async def _of_pool(
    record: RunRecord,
    cluster: ClusterSpec,
    backend: Backend,
    request: NodesRequest,
    log: Callable[..., None],
) -> AsyncIterator[Allocation]:
    from simgrid_ml.engine.pool_nodes import kind_of  # 8 ms that runs without a pool are spared

    kind = kind_of(backend, cluster.backend, request)
    spec = record.spec()
    wish = {
        "op": "acquire",
        "run": record.id,
        "submitter": spec.get("submitter", ""),
        "nodes": len(request.nodes),
        "kind": to_plain(kind),
        "created": spec.get("created", time.time()),
        "socket": request.socket,
    }
    folder = os.path.join(os.path.dirname(os.path.dirname(record.path)), wire.POOLS, cluster.name)
    reader, writer, given = await _given(folder, wish, log)
    try:
        log("given", nodes=given["nodes"])
        mute: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lost = asyncio.ensure_future(_until_lost(folder, reader, mute))
        for future in (mute, lost):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        names = tuple(given["nodes"])
        try:
            if kind.warm:
                yield Allocation(given["owner"], names, mute, lost)
            else:
                async with backend.nodes(replace(request, nodes=names)) as ended:
                    yield Allocation(record.id, names, ended, lost)
        finally:
            if lost.cancel():
                await asyncio.gather(lost, return_exceptions=True)
            with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                writer.write(encode({"op": "release"}))
                await asyncio.wait_for(_until_released(reader), _RELEASE_S)
    finally:
        writer.close()


async def _given(
    folder: str, wish: dict[str, Any], log: Callable[..., None]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, dict[str, Any]]:
    """A conversation with a pool that has given nodes, and what it said with them. A run that only
    waits loses nothing with a pool that is killed: it asks the next one.

    Raises:
        NodeError, PlacementError: there will be none.
    """
    for _ in range(_MOST_POOLS):
        reader, writer = await _ask(folder, wish)
        given = None
        try:
            given = await _turn(reader, log)
        finally:
            if given is None:
                writer.close()
        if given is not None:
            return reader, writer, given
        log("pool-gone")
    raise NodeError(
        f"the process that keeps the nodes of cluster {os.path.basename(folder)!r} went away "
        f"{_MOST_POOLS} times while the run waited for nodes",
        evidence=pools.last_words(folder),
        remedy="somebody stopped or killed it, or the host ran out of memory; submit again",
    )


async def _ask(
    folder: str, wish: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A conversation with the pool in ``folder``, which has heard the wish; starts a new pool
    where there is none, or where it ends just now.

    Raises:
        NodeError: none can be started.
    """
    deadline = time.monotonic() + pools.START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            reader, writer = await _connect(folder)
            with contextlib.suppress(ConnectionError):
                writer.write(encode(wish))
                if await _hear(reader) is not None:
                    return reader, writer
            writer.close()
        pools.start(folder)
        await asyncio.sleep(pools.LOOK_S)
    raise pools.not_up(folder)


async def _connect(folder: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        path = address(os.path.join(folder, wire.SOCKET), held)
        return await asyncio.open_unix_connection(path, limit=_LINE_LIMIT)
    finally:
        os.close(held)


async def _hear(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None: the pool is gone."""
    try:
        line = await reader.readline()
    except ConnectionError:
        return None
    said: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
    return said


async def _turn(reader: asyncio.StreamReader, log: Callable[..., None]) -> dict[str, Any] | None:
    """Wait for the nodes; what the pool says with them. None: it is gone."""
    while (said := await _hear(reader)) is not None:
        if said["op"] == "given":
            return said
        if said["op"] == "refused":
            kind = NodeError if said["kind"] == "node" else PlacementError
            raise kind(said["cause"], evidence=said["evidence"], remedy=said["remedy"])
        log("waiting", position=said["position"], of=said["of"])
    return None


async def _until_lost(
    folder: str, reader: asyncio.StreamReader, mute: asyncio.Future[None]
) -> None:
    """Fails when nodes are taken away; ``mute`` fails when one is lost that may not have said
    hello yet. If it has, its connection tells more."""
    while (said := await _hear(reader)) is not None:
        if said["op"] == "lost":
            if not mute.done():
                mute.set_exception(NodeError(said["cause"], remedy=said["remedy"]))
            continue
        raise Preempted(
            f"{said['node']} of cluster {os.path.basename(folder)!r} was pre-empted",
            remedy="use a dedicated cluster, or a script that goes on from a checkpoint",
        )
    raise _pool_gone(folder)


async def _until_released(reader: asyncio.StreamReader) -> None:
    while (said := await _hear(reader)) is not None and said["op"] != "released":
        pass


def _pool_gone(folder: str) -> NodeError:
    return NodeError(
        f"the process that keeps the nodes of cluster {os.path.basename(folder)!r} went away, "
        "and its nodes with it",
        evidence=pools.last_words(folder),
        remedy="somebody stopped or killed it, or the host ran out of memory; submit again, and "
        "a new one is started",
    )
