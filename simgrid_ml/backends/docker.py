"""Virtual nodes as containers of a Docker engine, one per node.

A container has the node's name, an address of its own, its share of cores and memory, and a
read-only root. Its PID 1 is the node's agent: the container ends when the agent's connection does,
and the engine removes what has ended, so nothing outlives a supervisor, however it ends. There is
no network of the engine's in it; the package ``network`` connects the nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo, NodesRequest
from simgrid_ml.backends.container import (
    LABELS,
    container_body,
    container_name,
    mount_points,
    node_tmp,
)
from simgrid_ml.backends.engine_api import Deaths, Engine, EngineError
from simgrid_ml.backends.host_image import host_image
from simgrid_ml.backends.image import NodeImage
from simgrid_ml.backends.images import fetch, named_image
from simgrid_ml.errors import HostError, NodeError, PlacementError
from simgrid_ml.gpus.containers import for_containers, named_devices
from simgrid_ml.gpus.discover import host_gpus
from simgrid_ml.native import PACKAGE, node_program
from simgrid_ml.network.addresses import INTERFACE, MAX_NODES, NETMASK, addresses
from simgrid_ml.network.bridge import Plug
from simgrid_ml.network.switch import Switch, can_switch, switched
from simgrid_ml.node.config import Config
from simgrid_ml.node.privileges import can_forbid_namespaces
from simgrid_ml.record.read import tail
from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.spec.job import ImageSpec
from simgrid_ml.spec.links import Links
from simgrid_ml.spec.placement import HostInventory

if TYPE_CHECKING:
    from simgrid_ml.network.choose import Choice
    from simgrid_ml.network.wires import Wires

__all__ = ["DockerBackend", "our_containers"]

_JANITOR = os.path.join(PACKAGE, "backends", "janitor.py")
_GONE_S = 15.0
_NOTICED_S = 1.0
"""How long an engine may take a process for running that has ended."""

T = TypeVar("T")


def our_containers(engine: Engine) -> list[tuple[str, str, str]]:
    """(id, name, run directory) of every container that this backend made on the engine."""
    return [
        (each["Id"], each["Names"][0].lstrip("/"), each["Labels"].get(LABELS.DIRECTORY, ""))
        for each in engine.containers(LABELS.DIRECTORY)
    ]


class DockerBackend:
    """See the module."""

    joins = True

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._wires: dict[str, Wires] = {}  # of the runs that have shaped links, by their ids
        self._switches: dict[str, _Shared] = {}
        self._limits: dict[str, list[str]] = {}  # by run, what each request's nodes have not

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = Engine()
        return self._engine

    def inventory(self) -> HostInventory:
        info = self.engine.info()
        return HostInventory(
            cpus=int(info["NCPU"]),
            memory_bytes=int(info["MemTotal"]),
            isolation=("hostname", "pid", "mount", "ipc", "network"),
            enforces_sizes=True,
            max_nodes=MAX_NODES,
            gpus=for_containers(host_gpus(own_cgroups=True), info),
        )

    def fetch_image(
        self, wanted: ImageSpec, log: Callable[[str], None], check: Callable[[], None]
    ) -> None:
        fetch(self.engine, wanted, log, check)

    def image(
        self, wanted: ImageSpec, visible: Sequence[str], log: Callable[[str], None]
    ) -> NodeImage:
        return named_image(self.engine, wanted, visible, log)

    def choose_links(
        self, links: Links | None, nodes: tuple[str, ...], capacity: Capacity
    ) -> tuple[Choice | None, str]:
        """See ``ShapesLinks``; a node has the rate of its VM size, where one is published."""
        if links is None and capacity.nic_bytes_per_s is None and can_switch():
            return None, ""
        from simgrid_ml.network.choose import abilities, choose

        host, nic = abilities(None), capacity.nic_bytes_per_s
        choice, limit = choose(links, nodes, nic, host, shapes_nic=True)
        if choice is None and not can_switch():  # the relay needs no rights
            try:
                choice, limit = choose(Links(), nodes, None, host)
            except PlacementError as error:
                raise HostError(
                    "containers cannot be connected by this user",
                    evidence=error.cause,
                    remedy="run as root, or `modprobe tun` and `chmod 666 /dev/net/tun`",
                ) from error
        return choice, limit

    def wires(self, run_id: str) -> Wires | None:
        """See ``ShapesLinks``."""
        return self._wires.get(run_id)

    @contextlib.asynccontextmanager
    async def nodes(self, request: NodesRequest) -> AsyncIterator[Awaitable[object]]:
        choice, limit = self.choose_links(request.links, request.nodes, request.capacity)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._limited(request.run_id, limit))
            links = None
            if choice is not None:
                links = await stack.enter_async_context(self._shaped(request, choice))
            switch = None
            if links is None or links.relay is None:
                # Under way while containers start.
                switch = await stack.enter_async_context(
                    self._switch(request.run_id, shaped=links is not None)
                )
            if links is not None and switch is not None:
                links.through(switch)
            threads = ThreadPoolExecutor(len(request.nodes) + 2)
            stack.push_async_callback(_end_threads, threads)
            containers = _Containers(self.engine, request, threads, links, switch)
            ended = await stack.enter_async_context(containers.up())
            yield ended

    def describe(self, run_id: str, hello: Mapping[str, Any]) -> NodeInfo:
        return NodeInfo(
            name=hello["node"],
            address=hello["address"],
            interface=hello["interface"],
            hostname=hello["hostname"],
            package=PACKAGE,
            rank_command=node_program("rank"),
            rsh_command=node_program("rsh"),
            variables={"TMPDIR": hello["tmp"], "HOME": hello["tmp"]},
            isolation=tuple(hello["isolation"]),
            limits=(*hello["limits"], *filter(None, set(self._limits.get(run_id, ())))),
        )

    @contextlib.contextmanager
    def _limited(self, run_id: str, limit: str) -> Iterator[None]:
        limits = self._limits.setdefault(run_id, [])
        limits.append(limit)
        try:
            yield
        finally:
            limits.remove(limit)
            if not limits:
                del self._limits[run_id]

    @contextlib.asynccontextmanager
    async def _shaped(self, request: NodesRequest, choice: Choice) -> AsyncIterator[Wires]:
        from simgrid_ml.network.wires import wires

        folder = os.path.join(request.run_dir, wire.TMP)
        os.makedirs(folder, exist_ok=True)
        run_id = request.run_id
        entered = wires(choice, run_id=run_id, nodes=request.nodes, folder=folder, log=request.log)
        async with entered as links:
            self._wires[run_id] = links
            try:
                yield links
            finally:
                del self._wires[run_id]

    @contextlib.asynccontextmanager
    async def _switch(self, run_id: str, *, shaped: bool) -> AsyncIterator[Switch]:
        """One for all requests of a run id: nodes that come later join those that are there."""
        shared = self._switches.setdefault(run_id, _Shared())
        shared.users += 1
        try:
            async with shared.turn:
                if shared.switch is None:
                    shared.switch = await shared.stack.enter_async_context(switched(shaped=shaped))
            yield shared.switch
        finally:
            shared.users -= 1
            if not shared.users:
                del self._switches[run_id]
                await shared.stack.aclose()


class _Shared:
    """A switch and how many requests use it."""

    def __init__(self) -> None:
        self.users = 0
        self.turn = asyncio.Lock()
        self.stack = contextlib.AsyncExitStack()
        self.switch: Switch | None = None


class _Containers:
    """The containers of one request, from their creation to their removal.

    Args:
        threads: one for each node, and one to listen to the engine.
        links: the shaped links between the nodes, if they are shaped.
        switch: connects them, unless the links' relay does.
    """

    image: NodeImage

    def __init__(
        self,
        engine: Engine,
        request: NodesRequest,
        threads: ThreadPoolExecutor,
        links: Wires | None,
        switch: Switch | None,
    ) -> None:
        self._engine = engine
        self._request = request
        self._threads = threads
        self._links = links
        self._switch = switch
        self._addresses = addresses(request.run_id, request.peers or request.nodes)
        self._number = secrets.token_hex(8)
        self._label = f"{LABELS.REQUEST}={self._number}"
        self._ids: dict[str, str] = {}  # container id by node
        self._codes: dict[str, int | None] = {}  # exit code by container id
        self._left: list[str] = []  # what may be there yet, in words
        self._user = os.getuid(), os.getgid()
        self._ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[Awaitable[object]]:
        """Start them; yields what is done with the first container that ends, and says how."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._watched_by_janitor())
            self.image, self._user = await asyncio.gather(
                self._call(self._find_image), self._call(self._find_user)
            )
            stack.push_async_callback(self._remove)
            before = time.time()
            await self._start()
            stack.callback((await self._call(self._watch, before)).close)
            if self._switch is not None:
                try:
                    await self._plug(self._switch)
                except HostError as error:
                    raise await self._call(self._early_end) or error from None
            if self._links is not None:
                watch = asyncio.ensure_future(self._end_with(self._links))
                stack.callback(watch.cancel)
            yield self._ended

    def _find_image(self) -> NodeImage:
        wanted = self._request.image
        if wanted is not None:
            return NodeImage.decode(wanted)
        return host_image(self._engine, self._request.visible)

    def _find_user(self) -> tuple[int, int]:
        """Whom agents become: the caller, who is root in the containers of an engine of theirs."""
        if os.getuid() != 0 and self._engine.is_rootless():
            return 0, 0
        return os.getuid(), os.getgid()

    async def _start(self) -> None:
        """Create and start all at once; returns, or raises, when no request is under way."""
        starts = (self._call(self._start_one, node) for node in self._request.nodes)
        every = asyncio.gather(*starts, return_exceptions=True)
        try:
            ends = await asyncio.shield(every)
        except asyncio.CancelledError:
            await every  # a thread cannot be interrupted
            raise
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    def _start_one(self, node: str) -> None:
        request = self._request
        name = container_name(request.run_dir, node)
        os.makedirs(node_tmp(request, node), exist_ok=True)
        for source, point in mount_points(request, self.image, node):
            _make_like(source, point)
        network: dict[str, Any] = {"interface": INTERFACE, "netmask": NETMASK}
        if self._links is not None:
            network = self._links.for_agents()
        config = Config(
            socket=request.socket,
            nodes=(node,),
            contained=True,
            log=request.log,
            uid=self._user[0],
            gid=self._user[1],
            unshare=self._unshares(),
            **{**network, "addresses": self._addresses},
        )
        try:
            body = container_body(request, self.image, config, self._number, self._named_gpus())
            self._ids[node] = self._engine.create(name, body)
            self._engine.start(self._ids[node])
        except EngineError as error:
            if error.status == 0:
                self._left.append(f"the container of {node}, if there is one: {error.cause}")
            raise NodeError(
                f"{node} could not be started as a container",
                evidence=f"{name} of {self.image.name}: {error.evidence or error.cause}",
                remedy="`simgrid-ml doctor` checks the engine; an image needs Python 3.8 or later",
            ) from error
        if limits := request.gpu_limits.get(node):
            self._limit_gpus(node, limits)

    def _named_gpus(self) -> tuple[str, ...]:
        """What of GPUs the engine's specifications of CDI name; not asked for where none is."""
        if not any(self._request.gpus.values()):
            return ()
        return tuple(named_devices(self._engine.info().get("CDISpecDirs") or ()))

    def _limit_gpus(self, node: str, limits: Mapping[str, int]) -> None:
        """By the container's control group, before anything but the agent is in it."""
        from simgrid_ml.gpus import mps, nvml

        try:
            with nvml.opened() as library:
                try:
                    mps.limit_memory(library, mps.cgroup_of(self._pid(node)), limits)
                except library.NVMLError as error:
                    raise OSError(nvml.sentence(error)) from error
        except (OSError, nvml.NvmlUnavailable) as error:
            raise NodeError(
                f"the GPU memory of {node} could not be limited by its control group",
                evidence=str(error),
                remedy="gpu_sharing=time-sliced leaves limits to the frameworks",
            ) from error

    def _unshares(self) -> bool:
        """Whether nodes start in the host's network and leave it, which is faster."""
        shaped = self._links is not None and self._links.relay is not None
        return self.image.kind == "host" and not shaped and can_forbid_namespaces()

    async def _plug(self, switch: Switch) -> None:
        nodes = self._request.nodes
        pids = await asyncio.gather(*(self._call(self._pid, node) for node in nodes))
        rates = {} if self._links is None else self._links.rates
        await switch.plug(
            [
                Plug(node, pid, self._addresses[node], NETMASK, INTERFACE, rates.get(node))
                for node, pid in zip(nodes, pids, strict=True)
            ]
        )

    def _early_end(self) -> NodeError | None:
        """Why nodes cannot be connected, if that is so since they have ended already."""
        deadline = time.monotonic() + _NOTICED_S
        while not (ended := self._not_running()):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)
        return NodeError(
            f"the agents of {', '.join(sorted(ended))} ended before they had reported",
            evidence=tail(self._request.log, 10) or self._exits(ended),
            remedy="`simgrid-ml doctor` checks what nodes need",
        )

    def _exits(self, nodes: Sequence[str]) -> str:
        """How agents ended that had no log yet: nobody has seen what they said."""
        codes = {node: self._codes.get(self._ids[node]) for node in nodes}
        python = self.image.python[0]
        return "\n".join(
            f"{node}: exit code {code} of {python}"
            for node, code in sorted(codes.items())
            if code is not None
        )

    def _not_running(self) -> list[str]:
        found = self._engine.containers(self._label)
        running = {each["Id"] for each in found if each["State"] == "running"}
        return [node for node, container in self._ids.items() if container not in running]

    def _pid(self, node: str) -> int:
        return int(self._engine.inspect(self._ids[node])["State"]["Pid"])

    # -- the end ---------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def _watched_by_janitor(self) -> AsyncIterator[None]:
        # Not a process of the loop: the end of the loop would be its end.
        janitor = subprocess.Popen(
            [sys.executable, "-I", "-S", _JANITOR, self._engine.address, self._label],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env={wire.RUN_DIR_VARIABLE: self._request.run_dir},
        )
        try:
            yield
        finally:
            assert janitor.stdin is not None
            # It may have been killed, and it may have a minute of work.
            with contextlib.suppress(BrokenPipeError):
                janitor.stdin.write(b"" if self._left else b"done\n")
                janitor.stdin.close()
            if self._left:
                threading.Thread(target=janitor.wait, daemon=True).start()
            else:
                await self._call(janitor.wait)

    def _watch(self, since_s: float) -> Deaths:
        """Notice, in a thread, which containers end, or have ended, and how."""
        deaths = self._engine.deaths(self._label, since_s)
        loop = self._ended.get_loop()

        def listen() -> None:
            for container, code in deaths:
                self._codes[container] = code
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._note_end, container)

        self._threads.submit(listen)
        return deaths

    def _note_end(self, container: str) -> None:
        if not self._ended.done():
            self._ended.set_result(
                self._exits([node for node, each in self._ids.items() if each == container])
            )

    async def _end_with(self, links: Wires) -> None:
        """Without the relay no packet arrives, and everything would wait for ever."""
        code = await links.ended()
        _complain(f"the relay that connects the nodes ended with code {code}")
        await self._remove()

    async def _remove(self) -> None:
        """All of them, whatever state they are in; they have been told to end."""
        known = set(self._ids.values())
        found, *failures = await asyncio.gather(
            self._call(self._engine.containers, self._label),
            *(self._call(self._remove_one, container) for container in known),
            return_exceptions=True,
        )
        if isinstance(found, BaseException):
            failures.append(found)
        else:  # the answer to `create` may have been lost
            unknown = {each["Id"] for each in found} - known
            failures += await asyncio.gather(
                *(self._call(self._remove_one, container) for container in unknown),
                return_exceptions=True,
            )
        for failure in failures:
            if isinstance(failure, BaseException):
                self._left.append(str(failure))
                _complain(f"removing containers: {failure}")

    def _remove_one(self, container: str) -> None:
        self._engine.remove(container)
        self._engine.wait_removed(container, _GONE_S)

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        """In a thread of ours: the loop's own pool has too few for many nodes."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *arguments))


async def _end_threads(threads: ThreadPoolExecutor) -> None:
    """Wait for them, in another one: an engine may take long to answer what was asked last."""
    await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)


def _make_like(source: str, point: str) -> None:
    """An empty folder, or an empty file, to mount ``source`` on."""
    if os.path.isdir(source):
        os.makedirs(point, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(point), exist_ok=True)
        with open(point, "ab"):
            pass


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
