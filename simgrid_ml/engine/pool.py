"""The process that owns the nodes of one stored cluster, and lends them to runs in turn.

``python -m simgrid_ml.engine.pool FOLDER LOCK_FD``; the lock was taken by who started it. It ends
by itself when there is neither a node nor a run, and its cluster asks for no minimum of nodes.
Killed, it takes the nodes along: their connections close.

A run's supervisor connects and says ``acquire``; it hears ``waiting`` with its place in the
queue, then ``given`` with the nodes, whose agents dial the run at the same time, maybe ``lost``
(one of them is no more) or ``preempted``; or ``refused``. It says ``release`` and hears
``released`` when nothing of the run is left on the nodes; a supervisor that is gone has released
them as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from simgrid_ml import wire
from simgrid_ml.backends.base import NodesRequest
from simgrid_ml.engine import plugins
from simgrid_ml.engine.gpu_requests import devices_for_pool
from simgrid_ml.engine.pool_nodes import Nodes, kind_of
from simgrid_ml.engine.pool_plan import Kind, Scale, Waiting, in_fair_order, next_wake_s, plan
from simgrid_ml.environments.build import read_by_nodes
from simgrid_ml.errors import NodeError, PlacementError, SimgridError, SpecError
from simgrid_ml.node.protocol import address, encode
from simgrid_ml.record.run import RunLock
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.capacity import size_nodes
from simgrid_ml.spec.cluster import ClusterSpec, stored_cluster
from simgrid_ml.spec.job import JobSpec
from simgrid_ml.spec.value import from_plain

__all__ = ["Pool", "usual_kind"]

_LINE_LIMIT = 2**20
_KEPT_ERRORS = 5
_PATIENCE_S = 10.0


class Ticket:
    """A run that waits for nodes, or has some."""

    def __init__(self, said: Mapping[str, Any], writer: asyncio.StreamWriter) -> None:
        self.wish = Waiting(
            run=said["run"],
            submitter=said["submitter"],
            nodes=said["nodes"],
            kind=from_plain(said["kind"], Kind, "kind"),
            created_s=said["created"],
        )
        self.socket: str = said["socket"]
        self.nodes: tuple[str, ...] = ()
        self.position = 0  # in the queue, from 1; 0: it has its nodes, or they are starting
        self._writer = writer

    def tell(self, op: str, **fields: Any) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode({"op": op, **fields}))


def usual_kind(cluster: ClusterSpec) -> Kind:
    """Of what kind nodes are that no run has asked for yet.

    Raises:
        SimgridError: no such nodes can be.
    """
    backend = plugins.backend(cluster.backend)
    shm = JobSpec(source="/", entry_script="-").shm_size_bytes
    names = tuple(f"node{n}" for n in range(cluster.max_nodes))
    host = backend.inventory()
    request = NodesRequest(
        run_id="",
        run_dir="",
        nodes=names,
        socket="",
        capacity=size_nodes(cluster, cluster.max_nodes, host, shm),
        links=cluster.links,
        visible=read_by_nodes(None),
        gpus=dict.fromkeys(names, devices_for_pool(cluster, host.gpus)),
    )
    kind = kind_of(backend, cluster.backend, request)
    if not kind.warm and cluster.links is None and cluster.vm_size:
        raise SpecError(
            f"{cluster.vm_size} has a network rate, which is measured and kept per run, so its "
            "nodes cannot stay warm",
            remedy="use a size without a published one, such as Standard_NC6, or min_nodes 0",
            where="cluster.min_nodes",
        )
    if not kind.warm:
        raise SpecError(
            f"no nodes of cluster {cluster.name!r} can be kept warm: each run starts its own, "
            "since it measures and may change the links between them",
            remedy="set min_nodes to 0, or leave the links out",
            where="cluster.min_nodes",
        )
    return kind


class Pool:
    """The pool in ``folder``: ``pools/NAME`` of a workspace."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.name = os.path.basename(folder)
        self.store = RunStore(os.path.dirname(os.path.dirname(folder)))
        runs = self.store.folder(wire.RUNS)
        os.makedirs(runs, exist_ok=True)
        self.tickets: dict[str, Ticket] = {}
        self.wake = asyncio.Event()
        self.stopping = False
        self.closing = False
        self.next: str | None = None  # the run that goes next, until it has its nodes
        self.lost: set[str] = set()  # pre-empted, and not replaced yet
        self.errors: list[dict[str, Any]] = []
        self.schedule: list[asyncio.TimerHandle] | None = None
        self.spec: ClusterSpec | None = None
        self.usual: Kind | None = None
        self.last_spec = ClusterSpec(name=self.name)
        owner = f"{self.name}-{secrets.token_hex(4)}"
        self.nodes = Nodes(
            folder, owner, (runs,), self.wake.set, self.errors_end, self.lose, self.fail
        )
        self.read_spec()

    # -- the cluster -----------------------------------------------------------------------
    def read_spec(self) -> None:
        """The cluster as it is stored now; one that was deleted keeps no idle node."""
        try:
            stored = self.store.clusters()
            found = stored_cluster(stored, self.name) if self.name in stored else None
        except SimgridError as error:  # what cannot be read changes nothing
            self.note(error.to_json())
            return
        is_new = found != self.spec
        self.spec = found
        self.last_spec = found or self.last_spec
        if is_new:
            self.usual = None
            self.errors = []  # of what the cluster was before
        if found is None or not found.min_nodes or self.usual is not None:
            return
        try:
            self.usual = usual_kind(found)
        except SimgridError as error:  # there is no minimum then, but all else holds
            self.note(error.to_json())

    @property
    def scale(self) -> Scale:
        spec = self.last_spec
        if self.spec is None or self.stopping:
            return Scale(0, spec.max_nodes, 0)
        return Scale(spec.min_nodes, spec.max_nodes, spec.idle_seconds_before_scaledown)

    def note(self, error: dict[str, Any]) -> None:
        self.errors = [*self.errors, {"t": time.time(), **error}][-_KEPT_ERRORS:]

    def errors_end(self) -> None:
        """Nodes have come up: whatever was wrong is no more."""
        self.errors = []

    def lose(self, run: str, error: NodeError) -> None:
        """A node that ``run`` has is no more; who knew its agent sees that by itself."""
        if run in self.tickets:
            self.tickets[run].tell("lost", cause=error.cause, remedy=error.remedy)

    def fail(self, kind: Kind, error: SimgridError) -> None:
        """Nodes of this kind could not be started: who waits for such hears why."""
        self.note(error.to_json())
        if self.usual == kind:
            self.usual = None  # not again and again: until the cluster changes, or a run comes
        for ticket in [t for t in self.tickets.values() if not t.nodes and t.wish.kind == kind]:
            self.refuse(ticket, error)
        self.wake.set()

    def refuse(self, ticket: Ticket, error: SimgridError) -> None:
        kind = "placement" if isinstance(error, PlacementError) else "node"
        said = {"cause": error.cause, "evidence": error.evidence, "remedy": error.remedy}
        ticket.tell("refused", kind=kind, **said)
        self.tickets.pop(ticket.wish.run, None)

    def refuse_the_impossible(self) -> None:
        """The cluster may have become smaller since a run was submitted; one that was deleted
        has not."""
        if self.spec is None:
            return
        most = self.last_spec.max_nodes
        for ticket in list(self.tickets.values()):
            if not ticket.nodes and ticket.wish.nodes > most:
                error = PlacementError(
                    f"the run waits for {ticket.wish.nodes} nodes, but cluster {self.name!r} now "
                    f"has at most {most}",
                    remedy="raise max_nodes of the cluster, or ask for fewer nodes",
                )
                self.refuse(ticket, error)

    # -- steering --------------------------------------------------------------------------
    async def live(self) -> None:
        """Until there is nothing left to look after."""
        while True:
            self.wake.clear()
            self.steer()
            if not (self.tickets or self.nodes.busy or self.scale.min_nodes):
                self.closing = True
                return
            values = [node.value() for node in self.nodes.live.values()]
            now = time.time()
            at = next_wake_s(values, self.scale, now)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.wake.wait(), None if at is None else at - now)

    def steer(self) -> None:
        """Decide and do what is to be done now."""
        if self.look():
            self.look()  # places that were made can be given at once
        self.nodes.remove_places()

    def look(self) -> bool:
        """One look at everything, and what follows from it; whether places were made."""
        waiting = {run: t for run, t in self.tickets.items() if not t.nodes}
        in_use = self.in_use()
        made = plan(
            [node.value() for node in self.nodes.live.values()],
            [ticket.wish for ticket in waiting.values()],
            in_use,
            self.scale,
            time.time(),
            self.usual,
            self.next,
        )
        self.next = made.next
        for run, names in made.give:
            self.give(waiting.pop(run), names)
        for name in made.end:
            self.nodes.end(name)
        peers = tuple(f"node{n}" for n in range(self.last_spec.max_nodes))
        for kind, names in made.start:
            self.lost -= set(names)
            if kind.warm:
                self.nodes.start(kind, names, peers)
            else:
                self.nodes.make_places(kind, names)
        queue = [ticket.wish for run, ticket in waiting.items() if run not in made.sure]
        for run in made.sure:
            waiting[run].position = 0
        for position, wish in enumerate(in_fair_order(queue, self.in_use(), self.next), 1):
            ticket = waiting[wish.run]
            if ticket.position != position:
                ticket.position = position
                ticket.tell("waiting", position=position, of=len(queue))
        return any(not kind.warm for kind, _ in made.start)

    def in_use(self) -> Counter[str]:
        """Nodes in use by submitter."""
        used: Counter[str] = Counter()
        for ticket in self.tickets.values():
            used[ticket.wish.submitter] += len(ticket.nodes)
        return used

    def give(self, ticket: Ticket, names: tuple[str, ...]) -> None:
        ticket.nodes = names
        ticket.tell("given", nodes=list(names), owner=self.nodes.live[names[0]].owner)
        for name in names:
            self.nodes.lend(name, ticket.wish.run, ticket.socket)
        if self.spec is not None and self.spec.min_nodes:
            self.usual = ticket.wish.kind
        if self.schedule is None:
            loop = asyncio.get_running_loop()
            self.schedule = [
                loop.call_later(one.after_s, self.preempt, one.node)
                for one in self.last_spec.preemptions
            ]

    def preempt(self, name: str) -> dict[str, Any]:
        """Take a node away; its run hears of it first."""
        node = self.nodes.live.get(name)
        if node is None or node.state not in ("idle", "running"):
            return {"error": f"no node {name}", "nodes": sorted(self.nodes.live)}
        run = node.run if node.state == "running" else None
        if run in self.tickets:
            self.tickets[run].tell("preempted", node=name)
        self.lost.add(name)
        self.nodes.vanish(name)
        return {"run": run}

    # -- conversations ---------------------------------------------------------------------
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            line = await reader.readline()
            if not line or self.closing:
                return  # who asked starts another pool
            said = json.loads(line)
            if said["op"] == "acquire":
                await self.serve_run(said, reader, writer)
            elif (answer := await self.answer(said)) is not None:
                writer.write(encode(answer))
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def serve_run(
        self, said: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        ticket = Ticket(said, writer)
        run = ticket.wish.run
        self.stopping = False  # that was before it came
        self.read_spec()
        ticket.tell("known")
        self.tickets[run] = ticket
        self.refuse_the_impossible()
        self.wake.set()
        try:
            await reader.readline()  # "release", or nothing if the supervisor is gone
        except ConnectionError:
            pass
        try:
            await self.nodes.back(ticket.nodes, run)
        finally:
            if self.tickets.get(run) is ticket:
                del self.tickets[run]
            self.wake.set()
        ticket.tell("released")

    async def answer(self, said: dict[str, Any]) -> dict[str, Any] | None:
        """What to say to a request of one line."""
        if said["op"] == "status":
            return self.status()
        if said["op"] == "update":
            self.stopping = False
            self.read_spec()
            self.refuse_the_impossible()
            self.steer()
            return self.status()
        if said["op"] == "preempt":
            return self.preempt(said["node"])
        if said["op"] == "stop":
            idle = sum(node.state in ("idle", "preparing") for node in self.nodes.live.values())
            self.stopping = True
            if said["runs_too"]:
                for ticket in [t for t in self.tickets.values() if not t.nodes]:
                    self.refuse(ticket, _stopped(self.name))
                await self.nodes.end_all()
                self.tickets.clear()
            self.wake.set()
            return {"ended": idle, "runs": sorted(self.tickets)}
        return None

    def status(self) -> dict[str, Any]:
        """What there is now."""
        nodes = [node.to_json() for _, node in sorted(self.nodes.live.items())]
        there = sum(node["state"] != "leaving" for node in nodes)
        wanted = sum(ticket.wish.nodes for ticket in self.tickets.values())
        scale = self.scale
        return {
            "errors": self.errors,
            "nodes": nodes,
            "pid": os.getpid(),
            "preempted": sorted(self.lost),
            "target": min(scale.max_nodes, max(scale.min_nodes, there, wanted)),
            "waiting": [
                {"nodes": t.wish.nodes, "position": t.position, "run": run}
                for run, t in sorted(self.tickets.items(), key=lambda item: item[1].position)
                if not t.nodes and t.position
            ],
        }


def _stopped(cluster: str) -> NodeError:
    return NodeError(
        f"all nodes of cluster {cluster!r} were ended while the run waited for some",
        remedy="submit again",
    )


async def _live(folder: str) -> None:
    _remove_groups(folder)
    pool = Pool(folder)
    path = os.path.join(folder, wire.SOCKET)
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    draft = os.path.join(folder, ".draft")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    server = await asyncio.start_unix_server(pool.serve, address(draft, held), limit=_LINE_LIMIT)
    os.chmod(draft, 0o600)
    os.rename(draft, path)  # whoever sees it can connect
    try:
        await asyncio.wait_for(_first_wish(pool), _PATIENCE_S)
        await pool.live()
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # from now on the next user starts another pool
        server.close()
        await pool.nodes.end_all()
        _remove_groups(folder)
        os.close(held)


async def _first_wish(pool: Pool) -> None:
    """Somebody started this process, and is about to say why."""
    if not pool.scale.min_nodes:
        await pool.wake.wait()


def _remove_groups(folder: str) -> None:
    """What a pool that was killed left in its folder; nobody else is alive in it."""
    import shutil

    for name in os.listdir(folder):
        if name.isdigit():
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def main(argv: list[str]) -> int:
    folder, lock = argv[0], RunLock(int(argv[1]))
    os.set_inheritable(lock.fd, False)
    with contextlib.suppress(asyncio.TimeoutError):  # nobody came
        asyncio.run(_live(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
