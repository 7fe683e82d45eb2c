"""Virtual nodes as containers of a Docker engine, one per node.

A container has the node's name, an address of its own, its share of cores and memory, and a
read-only root. Its PID 1 is the node's agent: the container ends when the agent's connection does,
and the engine removes what has ended, so nothing outlives a supervisor, however it ends. There is
no network of the engine's in it either (``network`` tells why and what instead).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo, NodesRequest
from simgrid_ml.backends.engine_api import Deaths, Engine, EngineError
from simgrid_ml.backends.host_image import host_image
from simgrid_ml.backends.image import NodeImage
from simgrid_ml.errors import NodeError
from simgrid_ml.native import PACKAGE, node_program
from simgrid_ml.network.addresses import INTERFACE, NETMASK, addresses
from simgrid_ml.network.bridge import Wiring
from simgrid_ml.network.switch import switched
from simgrid_ml.node.config import Config
from simgrid_ml.spec.placement import HostInventory

__all__ = ["LABELS", "DockerBackend", "container_name", "our_containers"]

_AGENT = os.path.join(PACKAGE, "node", "agent.py")
_JANITOR = os.path.join(PACKAGE, "backends", "janitor.py")
_GONE_S = 15.0
_CPU_PERIOD_US = 100_000

_CAPABILITIES = ("NET_ADMIN", "SETGID", "SETUID", "SYS_ADMIN")
"""For the agent's first milliseconds. It leaves the host's network namespace for one of its own,
becomes the caller's user and drops all of them, for good, before it listens to anybody. The engine
would make that namespace as well, in twice the time of everything else that starting takes: 0.19 s
instead of 0.09 s for one container, 1.8 s instead of 1.0 s for sixteen."""

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/class/net",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""The engine's own list, and the names of the host's interfaces."""

T = TypeVar("T")


class LABELS:
    """What everything this backend makes carries; it is found and removed by these alone."""

    RUN = wire.LABEL
    NODE = f"{wire.LABEL}.node"
    DIRECTORY = f"{wire.LABEL}.directory"


def container_name(run_dir: str, node: str) -> str:
    """For people who look at ``docker ps``; runs of two workspaces may have one id."""
    run = re.sub(r"[^a-zA-Z0-9_.-]", "_", os.path.basename(run_dir))
    digest = hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:8]
    return f"{wire.LABEL}-{run}-{digest}-{node}"


def our_containers(engine: Engine) -> list[tuple[str, str, str]]:
    """(id, name, run directory) of every container that this backend made on the engine."""
    return [
        (each["Id"], each["Names"][0].lstrip("/"), each["Labels"].get(LABELS.DIRECTORY, ""))
        for each in engine.containers(LABELS.DIRECTORY)
    ]


class DockerBackend:
    """See the module."""

    joins = False

    def __init__(self) -> None:
        self._engine: Engine | None = None

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
        )

    @contextlib.asynccontextmanager
    async def nodes(self, request: NodesRequest) -> AsyncIterator[Awaitable[object]]:
        with ThreadPoolExecutor(max_workers=len(request.nodes) + 2) as threads:
            containers = _Containers(self.engine, request, threads)
            async with containers.up() as ended:
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
            limits=tuple(hello["limits"]),
        )


class _Containers:
    """The containers of one request, from their creation to their removal."""

    def __init__(self, engine: Engine, request: NodesRequest, threads: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._request = request
        self._threads = threads
        self._ids: dict[str, str] = {}  # container id by node
        self._label = f"{LABELS.DIRECTORY}={request.run_dir}"
        self._left: list[str] = []  # containers that could not be removed
        self._ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[Awaitable[object]]:
        """Start them; yields what ends with the first container that does."""
        request = self._request
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._watched_by_janitor())
            image = await self._call(host_image, self._engine, request.visible)
            stack.push_async_callback(self._remove)
            await self._start(image)
            stack.callback((await self._call(self._watch)).close)
            await stack.enter_async_context(self._connected())
            yield self._ended

    async def _start(self, image: NodeImage) -> None:
        """Create and start all at once; returns, or raises, when no request is under way."""
        given = addresses(self._request.run_id, self._request.nodes)
        starts = [
            asyncio.ensure_future(self._call(self._start_one, node, image, given))
            for node in self._request.nodes
        ]
        every = asyncio.gather(*starts, return_exceptions=True)
        try:
            ends = await asyncio.shield(every)
        except asyncio.CancelledError:
            await every  # a thread cannot be interrupted
            raise
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    def _start_one(self, node: str, image: NodeImage, given: Mapping[str, str]) -> None:
        request = self._request
        name = container_name(request.run_dir, node)
        os.makedirs(self._tmp(node), exist_ok=True)
        config = Config(
            socket=request.socket,
            nodes=(node,),
            contained=True,
            log=request.log,
            uid=os.getuid(),
            gid=os.getgid(),
            interface=INTERFACE,
            addresses=dict(given),
            netmask=NETMASK,
        )
        try:
            body = self._body(node, image, config)
            self._ids[node] = self._engine.create(name, body)
            self._engine.start(self._ids[node])
        except EngineError as error:
            raise NodeError(
                f"{node} could not be started as a container",
                evidence=f"{name} of {image.name}: {error.evidence or error.cause}",
                remedy="`simgrid-ml doctor` checks the engine; an image needs Python 3.8 or later",
            ) from error

    def _body(self, node: str, image: NodeImage, config: Config) -> dict[str, Any]:
        request, capacity = self._request, self._request.capacity
        mounts = [
            *image.binds,
            (request.run_dir, request.run_dir, False),
            *((folder, folder, False) for folder in request.writable),
            (self._tmp(node), "/tmp", False),
        ]
        host: dict[str, Any] = {
            "AutoRemove": True,
            "CapAdd": list(_CAPABILITIES),
            "CapDrop": ["ALL"],
            "ExtraHosts": [f"{name}:{address}" for name, address in config.addresses.items()],
            "Init": False,
            "IpcMode": "private",
            "LogConfig": {"Type": "none"},
            "Mounts": [_mount(*mount) for mount in mounts],
            "MaskedPaths": list(_MASKED),
            "NetworkMode": "host",
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges"],
            "ShmSize": capacity.shm_bytes,
            "Tmpfs": dict.fromkeys(("/run", "/var/tmp"), "mode=1777"),
        }
        if capacity.cpus is not None:
            host["CpuPeriod"] = _CPU_PERIOD_US
            host["CpuQuota"] = max(1000, round(capacity.cpus * _CPU_PERIOD_US))
        if capacity.memory_bytes is not None:
            host["Memory"] = host["MemorySwap"] = capacity.memory_bytes
        return {
            "Entrypoint": [*image.python, _AGENT, config.encode()],
            "Env": [f"{wire.RUN_DIR_VARIABLE}={request.run_dir}"],
            "HostConfig": host,
            "Hostname": node,
            "Image": image.name,
            "Labels": {
                LABELS.RUN: request.run_id,
                LABELS.NODE: node,
                LABELS.DIRECTORY: request.run_dir,
            },
            "User": "0:0",
            "WorkingDir": "/",
        }

    def _tmp(self, node: str) -> str:
        return os.path.join(self._request.run_dir, wire.TMP, node)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        pids = await asyncio.gather(*(self._call(self._pid, node) for node in self._request.nodes))
        wiring = Wiring(
            pids=dict(zip(self._request.nodes, pids, strict=True)),
            addresses=addresses(self._request.run_id, self._request.nodes),
            netmask=NETMASK,
            interface=INTERFACE,
        )
        async with switched(wiring):
            yield

    def _pid(self, node: str) -> int:
        return int(self._engine.inspect(self._ids[node])["State"]["Pid"])

    # -- the end ---------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def _watched_by_janitor(self) -> AsyncIterator[None]:
        janitor = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", _JANITOR, self._engine.address, self._label),
            stdin=subprocess.PIPE,
            start_new_session=True,
            env={wire.RUN_DIR_VARIABLE: self._request.run_dir},
        )
        assert janitor.stdin is not None
        try:
            yield
        finally:
            if not self._left:
                janitor.stdin.write(b"done\n")
            janitor.stdin.close()
            await janitor.wait()

    def _watch(self) -> Deaths:
        """Notice, in a thread, the first container that ends."""
        since = time.time()
        deaths = self._engine.deaths(self._label, since)
        loop = self._ended.get_loop()

        def listen() -> None:
            for _ in deaths:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._note_end)
                return

        self._threads.submit(listen)
        return deaths

    def _note_end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def _remove(self) -> None:
        """All of them, whatever state they are in; they have been told to end."""
        removals = (self._call(self._remove_one, container) for container in self._ids.values())
        for failure in await asyncio.gather(*removals, return_exceptions=True):
            if isinstance(failure, BaseException):
                self._left.append(str(failure))
                print(f"removing containers: {failure}", file=sys.stderr)

    def _remove_one(self, container: str) -> None:
        self._engine.remove(container)
        self._engine.wait_removed(container, _GONE_S)

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        """In a thread of ours: the loop's own pool has too few for many nodes."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *arguments))


def _mount(source: str, target: str, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
