"""Virtual nodes as plain processes of this host: no daemon, no image, no root needed.

All agents of a run are forked from one interpreter (``node/agent.py``). Each takes the namespaces
that the host allows; see ``node/isolation.py`` for the rungs and what is lost on each.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo, NodesRequest
from simgrid_ml.errors import NodeError, UsageError
from simgrid_ml.gpus.discover import host_gpus
from simgrid_ml.native import PACKAGE, compiled, node_program
from simgrid_ml.node import isolation
from simgrid_ml.node.config import Config
from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.spec.links import Links
from simgrid_ml.spec.placement import HostInventory

if TYPE_CHECKING:
    import asyncio  # 25 ms that who only asks for the inventory, at submission, need not wait for

    from simgrid_ml.network.choose import Choice
    from simgrid_ml.network.wires import Wires

__all__ = ["ProcessBackend", "cpu_count", "shared_folder", "wanted_isolation"]

_AGENT = os.path.join(PACKAGE, "node", "agent.py")
ISOLATION_VARIABLE = "SIMGRID_ML_ISOLATION"
"""Caps the isolation: ``full`` (default), ``hostname`` or ``none``; to test the lower rungs."""

_SHM_VARIABLES = (
    "OMPI_MCA_btl_sm_backing_directory",
    "OMPI_MCA_osc_rdma_backing_directory",
    "OMPI_MCA_osc_sm_backing_directory",
)

_RUNGS = {"full": isolation.FULL, "hostname": isolation.HOSTNAME, "none": ()}


class ProcessBackend:
    """See the module."""

    joins = True

    def __init__(self) -> None:
        self._wires: dict[str, Wires] = {}  # of the runs that have shaped links, by their ids

    def inventory(self) -> HostInventory:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return HostInventory(cpus=cpu_count(), memory_bytes=memory, gpus=host_gpus())

    @contextlib.asynccontextmanager
    async def nodes(self, request: NodesRequest) -> AsyncIterator[Awaitable[object]]:
        choice, _ = self.choose_links(request.links, request.nodes, request.capacity)
        if choice is None:
            async with self._agents(request, None) as ended:
                yield ended
            return
        from simgrid_ml.network.wires import wires

        folder = os.path.join(request.run_dir, wire.TMP)
        os.makedirs(folder, exist_ok=True)
        run_id, nodes = request.run_id, request.nodes
        shaped = wires(choice, run_id=run_id, nodes=nodes, folder=folder, log=request.log)
        async with shaped as links:
            self._wires[run_id] = links
            try:
                async with self._agents(request, links) as ended:
                    yield ended
            finally:
                del self._wires[run_id]

    def choose_links(
        self, links: Links | None, nodes: tuple[str, ...], capacity: Capacity
    ) -> tuple[Choice | None, str]:
        """See ``ShapesLinks``; nodes that are processes never get their VM size's rate unasked."""
        if links is None:
            return None, ""
        from simgrid_ml.network.choose import abilities, choose

        return choose(links, nodes, capacity.nic_bytes_per_s, abilities(wanted_isolation()))

    def wires(self, run_id: str) -> Wires | None:
        return self._wires.get(run_id)

    @contextlib.asynccontextmanager
    async def _agents(
        self, request: NodesRequest, links: Wires | None
    ) -> AsyncIterator[Awaitable[object]]:
        import asyncio

        hosts = os.path.join(request.run_dir, wire.TMP, "hosts")
        _write_hosts(hosts, request, links)
        shared = shared_folder(request.run_dir)
        config = Config(
            socket=request.socket,
            nodes=request.nodes,
            isolation=wanted_isolation(),
            shm_bytes=request.capacity.shm_bytes,
            hosts=hosts,
            shared=shared,
            **({} if links is None else links.for_agents()),
        )
        try:
            nursery = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _AGENT, config.encode()),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={"SIMGRID_ML_RUN_DIR": request.run_dir, "PATH": os.defpath},
            )
        except OSError as error:
            raise NodeError(
                f"cannot start the agents of {len(request.nodes)} nodes: {error.strerror}",
                remedy="`simgrid-ml doctor` shows what this host lacks",
            ) from error
        ended = asyncio.ensure_future(nursery.wait())
        watch = asyncio.ensure_future(_end_with(links, nursery))
        try:
            yield ended
        finally:
            watch.cancel()
            await _end(nursery)
            await ended
            shutil.rmtree(shared, ignore_errors=True)  # the nursery's task, unless it was killed

    def describe(self, run_id: str, hello: Mapping[str, Any]) -> NodeInfo:
        variables = {"TMPDIR": hello["tmp"]}
        if hello["shm"] is not None:
            variables.update(dict.fromkeys(_SHM_VARIABLES, hello["shm"]))
        hostname = hello["hostname"]
        libraries = []
        if "mount" not in hello["isolation"]:
            with contextlib.suppress(NodeError):  # no compiler: the nodes' names do not resolve
                libraries.append(compiled("node/names.c", "-shared", "-fPIC"))
        if "hostname" not in hello["isolation"]:
            libraries.append(hostname_library())
            hostname = hello["node"]
        if libraries:
            variables["LD_PRELOAD"] = ":".join(libraries)
        return NodeInfo(
            name=hello["node"],
            address=hello["address"] or _address(run_id, hello["node"]),
            interface=hello["interface"],
            hostname=hostname,
            package=PACKAGE,
            rank_command=node_program("rank"),
            rsh_command=node_program("rsh"),
            variables=variables,
            isolation=tuple(hello["isolation"]),
            limits=tuple(hello["limits"]),
        )


def wanted_isolation() -> tuple[str, ...]:
    """What nodes are to have of their own, if the host allows it.

    Raises:
        UsageError: the variable that caps it says something unknown.
    """
    cap = os.environ.get(ISOLATION_VARIABLE) or "full"
    if cap not in _RUNGS:
        raise UsageError(
            f"{ISOLATION_VARIABLE} is {cap!r}", remedy=f"set it to one of {', '.join(_RUNGS)}"
        )
    return _RUNGS[cap]


def _address(run_id: str, node: str) -> str:
    """A loopback address of the node's own: what binds to it meets no other node or run."""
    network = int(hashlib.sha256(run_id.encode()).hexdigest(), 16) % 0xE000 + 0x1000
    number = network * 256 + int(node[len("node") :]) + 1
    return f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def shared_folder(run_dir: str) -> str:
    """Where nodes without own mounts keep shared memory; see ``isolation.shared_folders``.

    Ray makes sockets with names of 68 bytes below a node's TMPDIR in it, and 107 are allowed.
    """
    return f"/dev/shm/{wire.LABEL}-{hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:10]}"


async def _end_with(links: Wires | None, nursery: asyncio.subprocess.Process) -> None:
    """Without the relay no packet arrives, and everything would wait for ever."""
    if links is not None:
        code = await links.ended()
        print(f"the relay that connects the nodes ended with code {code}", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(nursery.pid, 9)


def _write_hosts(path: str, request: NodesRequest, links: Wires | None) -> None:
    """``/etc/hosts`` of the nodes: the host's, and each other's names."""
    try:
        with open("/etc/hosts", encoding="utf-8") as stream:
            lines = [stream.read()]
    except OSError:
        lines = ["127.0.0.1 localhost\n"]
    names = request.peers or request.nodes
    given = {node: _address(request.run_id, node) for node in names}
    if links is not None:
        given = links.addresses
    lines += [f"{address} {node}\n" for node, address in given.items()]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines))


def cpu_count() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


async def _end(nursery: asyncio.subprocess.Process) -> None:
    """The agents have been told; the nursery ends with the last of them."""
    import asyncio

    try:
        await asyncio.wait_for(nursery.wait(), 5)
    except asyncio.TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(nursery.pid, 9)
        await nursery.wait()


def hostname_library() -> str:
    """Path of the library that gives a process its node's name.

    Raises:
        NodeError: there is no C compiler.
    """
    try:
        return compiled("node/hostname.c", "-shared", "-fPIC")
    except NodeError as error:
        raise NodeError(
            "this host allows no own host names for nodes, and the library that stands in for "
            "them could not be compiled",
            evidence=error.evidence,
            remedy="install a C compiler (`apt-get install g++`), or allow user namespaces "
            "(`sysctl kernel.apparmor_restrict_unprivileged_userns=0`)",
        ) from error
