"""The nodes of a pool that exist: started in groups, each watched by a task of its own.

A group is what one call of ``Backend.nodes`` started. Its nodes go one by one, by a word to their
agent; when the last is gone so is what the backend made for the group, and its folder.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from simgrid_ml import wire
from simgrid_ml.backends.base import Backend, NodesRequest, ShapesLinks
from simgrid_ml.backends.image import OffersImages
from simgrid_ml.engine import plugins
from simgrid_ml.engine.agents import Switchboard
from simgrid_ml.engine.pool_plan import Kind, Node
from simgrid_ml.engine.pools import POOL_LOG
from simgrid_ml.errors import HostError, NodeError, SimgridError
from simgrid_ml.record.read import tail

__all__ = ["LiveNode", "Nodes", "kind_of"]

START_DEADLINE_S = 30.0
RENEW_DEADLINE_S = 10.0
"""A node that is not as good as new so long after its run has let go of it is ended."""


def kind_of(backend: Backend, name: str, nodes: NodesRequest) -> Kind:
    """Of what kind the nodes of a request are."""
    choice = None
    if isinstance(backend, ShapesLinks):
        choice, _ = backend.choose_links(nodes.links, nodes.nodes, nodes.capacity)
    return Kind(
        backend=name,
        capacity=nodes.capacity,
        joins=backend.joins and choice is None,
        warm=choice is None,
        links=nodes.links,
        image=nodes.image,
        # Nodes that are not made of images see the whole host.
        visible=nodes.visible if isinstance(backend, OffersImages) else (),
        gpus=nodes.gpus.get(nodes.nodes[0], ()) if isinstance(backend, OffersImages) else (),
    )


class LiveNode:
    """A node of the pool; without a board a place for one that its run starts and ends."""

    def __init__(
        self, name: str, kind: Kind, group: int, owner: str, board: Switchboard | None
    ) -> None:
        self.name = name
        self.kind = kind
        self.group = group
        self.owner = owner  # the id that its address comes from
        self.board = board
        self.state = "preparing"
        self.run: str | None = None
        self.since_s = time.time()
        self.address: str | None = None
        self.lent: asyncio.Task[None] | None = None

    def becomes(self, state: str, run: str | None = None) -> None:
        self.state, self.run, self.since_s = state, run, time.time()

    def value(self) -> Node:
        return Node(self.name, self.kind, self.group, self.state, self.since_s)

    def to_json(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "name": self.name,
            "run": self.run,
            "since": self.since_s,
            "state": self.state,
        }


class Nodes:
    """All nodes of one cluster.

    Args:
        folder: the pool's; every group gets a folder of its own in it.
        owner: a name for labels and addresses that no other pool has.
        writable: what the nodes share with their runs.
        changed: called whenever a node has come, gone, or changed its state.
        came: called when a group of nodes has come up.
        lost: called with a run, and why a node that was lent to it is no more.
        failed: called with the kind of nodes that could not be started, and why.
    """

    def __init__(
        self,
        folder: str,
        owner: str,
        writable: Sequence[str],
        changed: Callable[[], None],
        came: Callable[[], None],
        lost: Callable[[str, NodeError], None],
        failed: Callable[[Kind, SimgridError], None],
    ) -> None:
        self._folder = folder
        self._log = os.path.join(folder, POOL_LOG)
        self._owner = owner
        self._writable = tuple(writable)
        self._changed = changed
        self._came = came
        self._lost = lost
        self._failed = failed
        self._backends: dict[str, Backend] = {}  # which know what connects their nodes
        self._groups: dict[int, asyncio.Task[None]] = {}
        self._last_group = 0
        self.live: dict[str, LiveNode] = {}

    @property
    def busy(self) -> bool:
        """Whether anything of any node exists."""
        return bool(self._groups or self.live)

    def make_places(self, kind: Kind, names: tuple[str, ...]) -> None:
        """For nodes that their run will start."""
        self._last_group += 1
        for name in names:
            self.live[name] = LiveNode(name, kind, self._last_group, self._owner, None)
            self.live[name].becomes("idle")

    def remove_places(self) -> None:
        """Those that no run has taken."""
        for name, node in list(self.live.items()):
            if node.board is None and node.state == "idle":
                del self.live[name]

    def start(self, kind: Kind, names: tuple[str, ...], peers: tuple[str, ...]) -> None:
        """Begin to start nodes; they are ``preparing`` from now on, and then ``idle``."""
        self._last_group += 1
        number = self._last_group
        owner = self._owner if kind.joins else f"{self._owner}-{number}"
        folder = os.path.join(self._folder, str(number))
        board = Switchboard(
            os.path.join(folder, wire.SOCKET),
            environment_of=lambda node: {},
            cwd="/",
            log_of=lambda node: os.devnull,
        )
        for name in names:
            self.live[name] = LiveNode(name, kind, number, owner, board)
        request = NodesRequest(
            run_id=owner,
            run_dir=folder,
            nodes=names,
            socket=os.path.join(folder, wire.SOCKET),
            capacity=kind.capacity,
            links=kind.links,
            image=kind.image,
            visible=kind.visible,
            writable=self._writable,
            peers=peers if kind.joins else (),
            gpus=dict.fromkeys(names, kind.gpus),
            log=os.path.join(folder, "nodes.log"),
        )
        life = asyncio.create_task(self._live(request, kind, board))
        self._groups[number] = life
        life.add_done_callback(lambda _: self._gone(number))

    async def _live(self, request: NodesRequest, kind: Kind, board: Switchboard) -> None:
        """The life of one group."""
        backend = self._backends.setdefault(kind.backend, plugins.backend(kind.backend))
        os.makedirs(request.run_dir, 0o700)
        try:
            async with board.listening(), backend.nodes(request) as ended:
                try:
                    said = asyncio.ensure_future(board.hellos(request.nodes, START_DEADLINE_S))
                    first = {said} if ended is None else {said, asyncio.ensure_future(ended)}
                    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                    if not said.done():
                        said.cancel()
                        raise NodeError(
                            f"the agents of {', '.join(request.nodes)} ended before they had "
                            "reported",
                            remedy="`simgrid-ml doctor` checks what nodes need",
                        )
                    for name, hello in said.result().items():
                        about = backend.describe(request.run_id, hello)
                        self.live[name].address = about.address
                        if self.live[name].state == "preparing":
                            self.live[name].becomes("idle")
                    self._came()
                    self._changed()
                    await asyncio.gather(*(self._until_gone(name) for name in request.nodes))
                finally:
                    board.dismiss()
        except SimgridError as error:
            error.evidence = error.evidence or tail(request.log, 5) or tail(self._log, 5)
            self._failed(kind, error)
        except Exception as error:
            traceback.print_exception(type(error), error, error.__traceback__)
            self._failed(kind, HostError(f"nodes could not be started: {error}", remedy=_DOCTOR))
        finally:
            await asyncio.to_thread(shutil.rmtree, request.run_dir, ignore_errors=True)

    async def _until_gone(self, name: str) -> None:
        board = self.live[name].board
        assert board is not None, "places have no group"
        await board.until_gone(name)
        del self.live[name]
        self._changed()

    def _gone(self, number: int) -> None:
        del self._groups[number]
        for name, node in list(self.live.items()):
            if node.group == number:  # it never came up
                del self.live[name]
        self._changed()

    def lend(self, name: str, run: str, socket: str) -> None:
        """Give an idle node to ``run``, which listens on ``socket``."""
        node = self.live[name]
        node.becomes("running", run)
        if node.board is None:
            return
        process = node.board.attach(name, socket)

        async def until_back() -> None:
            try:
                await process.wait()
            except NodeError as error:
                if node.state == "running":
                    self._lost(run, error)
                return
            if node.state == "running":
                node.becomes("idle")
                self._changed()

        node.lent = asyncio.create_task(until_back())

    async def back(self, names: Sequence[str], run: str) -> None:
        """Returns when no node in ``names`` has anything of ``run`` any more."""
        for name in names:
            if (place := self.live.get(name)) and place.board is None and place.run == run:
                del self.live[name]
        lent = [
            node
            for name in names
            if (node := self.live.get(name)) is not None and node.lent and node.run == run
        ]
        waits = [node.lent for node in lent if node.lent is not None]
        if waits:
            _, late = await asyncio.wait(waits, timeout=RENEW_DEADLINE_S)
            for node in lent:
                if node.lent in late:
                    self.vanish(node.name)

    def end(self, name: str) -> None:
        """Ask a node to end."""
        node = self.live[name]
        node.becomes("leaving", node.run)
        if node.board is None:
            del self.live[name]
        else:
            node.board.tell(name, op="bye")

    def vanish(self, name: str) -> None:
        """Take a node away at once, whatever it does."""
        node = self.live[name]
        node.becomes("leaving", node.run)
        if node.board is not None:  # otherwise its run hears that it is to end
            node.board.drop(name)

    async def end_all(self) -> None:
        """End every node at once; returns when nothing of them exists any more."""
        for node in list(self.live.values()):
            if node.state == "preparing":
                self._groups[node.group].cancel()
            node.becomes("leaving", node.run)
            if node.board is None:
                del self.live[node.name]
            else:
                node.board.hang_up()
        if self._groups:
            _, late = await asyncio.wait(list(self._groups.values()), timeout=RENEW_DEADLINE_S)
            for life in late:
                life.cancel()
            await asyncio.gather(*late, return_exceptions=True)


_DOCTOR = "`simgrid-ml doctor` checks what nodes need"
