"""The suite that a backend passes to count as supported.

Subclass it in a test module and say which backend it is::

    from simgrid_ml.testing.conformance import BackendConformance

    class TestMyBackend(BackendConformance):
        backend_name = "mine"

Every test starts real nodes and talks to their agents as the engine does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, ClassVar

import pytest

from simgrid_ml import wire
from simgrid_ml.backends.base import Backend, NodeInfo, NodesRequest
from simgrid_ml.engine import plugins
from simgrid_ml.engine.agents import Process, Switchboard
from simgrid_ml.errors import NodeError
from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.processes import host_processes, wait_until

__all__ = ["BackendConformance", "Nodes"]

_DEADLINE_S = 30.0
HOSTILE_FOLDERS = (
    "two  words",
    'it\'s "quoted" $(x) `y` \\ *?',
    "new\nline",
    "żółć-日本",
    "/".join(["long" * 15] * 5),
)


class Nodes:
    """Nodes that are up, for one test."""

    def __init__(self, board: Switchboard, infos: dict[str, NodeInfo], folder: str) -> None:
        self.board = board
        self.infos = infos
        self.folder = folder
        self._outputs = 0

    def spawn(self, node: str, *argv: str, **environment: str) -> tuple[Process, str]:
        """Start a command; returns it and the path that its output goes to."""
        self._outputs += 1
        output = os.path.join(self.folder, f"output-{self._outputs}")
        variables = {
            "PATH": os.defpath,
            **self.infos[node].variables,
            wire.NODE_VARIABLE: node,
            wire.RUN_DIR_VARIABLE: self.folder,
            **environment,
        }
        return self.board.spawn(node, argv, variables, stdout=output), output

    async def run(self, node: str, *argv: str, **environment: str) -> tuple[int, str]:
        """Run a command to its end; returns its code and its output."""
        process, output = self.spawn(node, *argv, **environment)
        code = await asyncio.wait_for(process.wait(), _DEADLINE_S)
        with open(output, encoding="utf-8", errors="surrogateescape") as stream:
            return code, stream.read()


class BackendConformance:
    """See the module. What a backend cannot be asked for is skipped with the reason."""

    backend_name: ClassVar[str]

    @pytest.fixture
    def backend(self) -> Backend:
        return plugins.backend(self.backend_name)

    @pytest.fixture
    def folder(self) -> Iterator[str]:
        """A run directory; nothing of the nodes is left when the test ends."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(os.path.realpath(folder), "run")
            os.mkdir(path)
            with nothing_left(path):
                yield path

    # -- nodes -----------------------------------------------------------------------------
    def test_the_inventory_names_at_least_one_core_and_some_memory(self, backend: Backend) -> None:
        inventory = backend.inventory()
        assert inventory.cpus >= 1
        assert inventory.memory_bytes >= 2**20

    def test_every_node_has_its_own_name(self, backend: Backend, folder: str) -> None:
        async def story(nodes: Nodes) -> None:
            for node, info in nodes.infos.items():
                assert info.name == node
                assert info.hostname == node
                code, said = await nodes.run(node, "uname", "-n")
                assert (code, said) == (0, f"{node}\n")

        play(backend, folder, 3, story)

    def test_addresses_are_ipv4_and_differ(self, backend: Backend, folder: str) -> None:
        async def story(nodes: Nodes) -> None:
            addresses = [info.address for info in nodes.infos.values()]
            assert len(set(addresses)) == 3
            assert all(re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}", one) for one in addresses)

        play(backend, folder, 3, story)

    def test_sixteen_nodes_come_up(self, backend: Backend, folder: str) -> None:
        async def story(nodes: Nodes) -> None:
            ends = await asyncio.gather(*(nodes.run(node, "uname", "-n") for node in nodes.infos))
            assert [said for _, said in ends] == [f"node{n}\n" for n in range(16)]

        play(backend, folder, 16, story)

    @pytest.mark.parametrize("name", HOSTILE_FOLDERS)
    def test_the_run_directory_is_at_the_same_path_whatever_its_name(
        self, backend: Backend, folder: str, name: str
    ) -> None:
        path = os.path.join(folder, name)
        os.makedirs(path)

        async def story(nodes: Nodes) -> None:
            with open(os.path.join(path, "from-host"), "w") as stream:
                stream.write("hello")
            copy = 'cat "$0/from-host" > "$0/from-node"'
            code, said = await nodes.run("node1", "/bin/sh", "-c", copy, path)
            assert code == 0, said
            with open(os.path.join(path, "from-node")) as stream:
                assert stream.read() == "hello"

        play(backend, path, 2, story)

    def test_this_package_is_on_every_node(self, backend: Backend, folder: str) -> None:
        async def story(nodes: Nodes) -> None:
            for node, info in nodes.infos.items():
                code, _ = await nodes.run(node, "test", "-f", f"{info.package}/node/rsh.py")
                assert code == 0

        play(backend, folder, 2, story)

    def test_temporary_files_have_a_folder_with_a_short_name(
        self, backend: Backend, folder: str
    ) -> None:
        async def story(nodes: Nodes) -> None:
            for node, info in nodes.infos.items():
                tmp = info.variables.get("TMPDIR", "/tmp")
                assert len(os.fsencode(tmp)) <= 60, "sockets in it would have too long a path"
                code, _ = await nodes.run(node, "touch", f"{tmp}/of-{node}")
                assert code == 0

        play(backend, folder, 2, story)

    # -- commands --------------------------------------------------------------------------
    @pytest.mark.parametrize("code", [0, 1, 3, 255])
    def test_exit_codes_arrive(self, backend: Backend, folder: str, code: int) -> None:
        async def story(nodes: Nodes) -> None:
            assert await nodes.run("node0", "/bin/sh", "-c", f"exit {code}") == (code, "")

        play(backend, folder, 1, story)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
    def test_the_signal_that_ended_a_command_arrives(
        self, backend: Backend, folder: str, number: signal.Signals
    ) -> None:
        async def story(nodes: Nodes) -> None:
            assert await nodes.run("node0", "/bin/sh", "-c", f"kill -{number} $$") == (-number, "")

        play(backend, folder, 1, story)

    def test_a_signal_reaches_the_whole_group_of_a_command(
        self, backend: Backend, folder: str
    ) -> None:
        async def story(nodes: Nodes) -> None:
            process, output = nodes.spawn(
                "node0", "/bin/sh", "-c", "sleep 600 & echo up; wait; echo never"
            )
            await until(lambda: read(output) == "up\n", "the command is up")
            process.signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), _DEADLINE_S) == -signal.SIGTERM
            await until(lambda: not sleeping(folder), "its child is gone")

        play(backend, folder, 1, story)

    def test_a_command_that_cannot_be_started_says_so(self, backend: Backend, folder: str) -> None:
        async def story(nodes: Nodes) -> None:
            code, said = await nodes.run("node0", "no-such-program")
            assert code == 127
            assert "no-such-program" in said
            code, said = await nodes.run("node0", "/")
            assert code == 126

        play(backend, folder, 1, story)

    def test_arguments_environment_and_output_arrive_unharmed(
        self, backend: Backend, folder: str
    ) -> None:
        words = ["a b", "c'd", 'e"f', "g\nh", "$X", "żółć", "\udce9", ""]

        async def story(nodes: Nodes) -> None:
            script = (
                'for word in "$@"; do printf "%s|" "$word"; done; printf "%s" "$ODD"; echo e >&2'
            )
            code, said = await nodes.run("node0", "/bin/sh", "-c", script, "sh", *words, ODD="o\nd")
            assert (code, said) == (0, "|".join(words) + "|o\nde\n")

        play(backend, folder, 1, story)

    def test_a_command_starts_without_blocked_or_ignored_signals_and_leads_a_session(
        self, backend: Backend, folder: str
    ) -> None:
        async def story(nodes: Nodes) -> None:
            code, said = await nodes.run("node0", "cat", "/proc/self/status", "/proc/self/stat")
            assert code == 0
            masks = dict(re.findall(r"^(Sig(?:Blk|Ign)):\s*(\w+)$", said, re.MULTILINE))
            assert {name: int(mask, 16) for name, mask in masks.items()} == {
                "SigBlk": 0,
                "SigIgn": 0,
            }
            pid, _, rest = said.splitlines()[-1].partition(" ")
            assert rest.rpartition(")")[2].split()[2:4] == [pid, pid], "process group and session"

        play(backend, folder, 1, story)

    def test_megabytes_of_environment_and_many_commands_at_once_are_no_problem(
        self, backend: Backend, folder: str
    ) -> None:
        async def story(nodes: Nodes) -> None:
            big = {f"BIG_{n}": "x" * 100_000 for n in range(10)}
            runs = [nodes.run(f"node{n % 2}", "printenv", "BIG_9", **big) for n in range(20)]
            for code, said in await asyncio.gather(*runs):
                assert (code, len(said)) == (0, 100_001)

        play(backend, folder, 2, story)

    def test_a_client_on_one_node_runs_a_command_on_another(
        self, backend: Backend, folder: str
    ) -> None:
        """As Open MPI starts its daemons."""

        async def story(nodes: Nodes) -> None:
            command = (*nodes.infos["node0"].rsh_command, "node1", "uname -n; exit 7")
            code, _ = await nodes.run("node0", *command)
            assert code == 7
            await until(lambda: read(f"{folder}/log-node1") == "node1\n", "it said its name")

        play(backend, folder, 2, story)

    def test_a_node_is_lent_to_one_run_after_the_other_and_keeps_nothing_of_them(
        self, backend: Backend, folder: str
    ) -> None:
        """As clusters keep nodes warm."""

        async def story(nodes: Nodes) -> None:
            # Without mounts of its own it sees the host's, where other runs come and go.
            own = "/dev/shm" if "mount" in nodes.infos["node1"].isolation else ""
            leaves = f'ls {own} "$TMPDIR"; touch "$TMPDIR/left"; '
            leaves += "(setsid sleep 600 &); exec sleep 600"
            seen = []
            for turn in range(2):
                socket = os.path.join(folder, f"lent-{turn}.sock")
                board = Switchboard(socket, lambda node: {}, folder, lambda node: os.devnull)
                async with board.listening():
                    lent = nodes.board.attach("node1", socket)
                    assert set(await board.hellos(("node1",), _DEADLINE_S)) == {"node1"}
                    run = Nodes(board, nodes.infos, folder)
                    _, output = run.spawn("node1", "/bin/sh", "-c", leaves, TURN=str(turn))
                    await until(lambda: len(sleeping(folder)) == 2, "both of them sleep")
                    seen.append(read(output))
                    os.unlink(output)
                    board.dismiss()
                    await asyncio.wait_for(lent.wait(), _DEADLINE_S)
                    assert sleeping(folder) == []
            assert seen[0] == seen[1]
            assert await nodes.run("node1", "uname", "-n") == (0, "node1\n")

        play(backend, folder, 2, story)

    # -- the end ---------------------------------------------------------------------------
    def test_nothing_is_left_after_the_context_whatever_still_ran(
        self, backend: Backend, folder: str
    ) -> None:
        async def story(nodes: Nodes) -> None:
            deaf = "trap '' TERM HUP INT; setsid sleep 600 & (setsid sleep 600 &) ; sleep 600"
            for node in nodes.infos:
                nodes.spawn(node, "/bin/sh", "-c", deaf)
            await until(lambda: len(sleeping(folder)) == 6, "all of them sleep")

        play(backend, folder, 2, story)
        assert sleeping(folder) == []

    def test_nothing_is_left_when_the_supervisor_vanishes(
        self, backend: Backend, folder: str
    ) -> None:
        async def story(nodes: Nodes) -> None:
            nodes.spawn("node1", "/bin/sh", "-c", "trap '' TERM; setsid sleep 600 & sleep 600")
            await until(lambda: len(sleeping(folder)) == 2, "both of them sleep")
            nodes.board.hang_up()
            await until(lambda: not sleeping(folder), "they are gone")

        play(backend, folder, 2, story)

    def test_a_node_whose_agent_is_killed_is_lost_and_takes_its_processes_along(
        self, backend: Backend, folder: str
    ) -> None:
        async def story(nodes: Nodes) -> None:
            lost, _ = nodes.spawn("node1", "/bin/sh", "-c", "setsid sleep 600 & sleep 600")
            kept, _ = nodes.spawn("node0", "sleep", "600")
            await until(lambda: len(sleeping(folder)) == 3, "all of them sleep")
            os.kill(self.agent_pid(folder, "node1"), signal.SIGKILL)
            name = await asyncio.wait_for(asyncio.shield(nodes.board.lost), _DEADLINE_S)
            assert name == "node1"
            with pytest.raises(NodeError, match="node1"):
                await asyncio.wait_for(lost.wait(), _DEADLINE_S)
            await until(lambda: len(sleeping(folder)) == 1, "only the other node's is left")
            assert not kept.has_exited
            code, said = await nodes.run("node0", "uname", "-n")
            assert (code, said) == (0, "node0\n"), "the other node goes on"

        play(backend, folder, 2, story)

    def test_what_is_asked_of_a_lost_node_fails_at_once(
        self, backend: Backend, folder: str
    ) -> None:
        async def story(nodes: Nodes) -> None:
            nodes.spawn("node0", "sleep", "600")
            await until(lambda: bool(sleeping(folder)), "it sleeps")
            os.kill(self.agent_pid(folder, "node0"), signal.SIGKILL)
            await asyncio.wait_for(asyncio.shield(nodes.board.lost), _DEADLINE_S)
            process, _ = nodes.spawn("node0", "true")
            with pytest.raises(NodeError, match="node0"):
                await asyncio.wait_for(process.wait(), _DEADLINE_S)

        play(backend, folder, 1, story)

    def test_nodes_of_two_runs_live_side_by_side(self, backend: Backend, folder: str) -> None:
        paths = [os.path.join(folder, name) for name in ("one", "two")]
        for path in paths:
            os.mkdir(path)

        async def both() -> None:
            async with contextlib.AsyncExitStack() as stack:
                runs = [await stack.enter_async_context(up(backend, path, 2)) for path in paths]
                ends = await asyncio.gather(
                    *(nodes.run(node, "uname", "-n") for nodes in runs for node in nodes.infos)
                )
                assert [said for _, said in ends] == ["node0\n", "node1\n"] * 2

        asyncio.run(both())

    # -- for backends whose processes are not this host's ------------------------------------
    def agent_pid(self, folder: str, node: str) -> int:
        """Process id of a node's agent, as this host sees it: the parent of what it spawned."""
        spawned = {process.pid: process for process in host_processes()}
        for process in spawned.values():
            parent = spawned.get(process.parent)
            if (
                process.environment.get(wire.RUN_DIR_VARIABLE) == folder
                and process.node == node
                and parent is not None
                and parent.node is None
            ):
                return parent.pid
        pytest.skip("the backend's processes are not to be seen from here")


# -- helpers -------------------------------------------------------------------------------
@contextlib.asynccontextmanager
async def up(backend: Backend, folder: str, count: int) -> AsyncIterator[Nodes]:
    """``count`` nodes with the run directory ``folder``."""
    names = tuple(f"node{n}" for n in range(count))
    os.makedirs(os.path.join(folder, wire.TMP), exist_ok=True)
    socket = os.path.join(folder, wire.SOCKET)
    infos: dict[str, NodeInfo] = {}

    def environment_of(node: str) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            **infos[node].variables,
            wire.NODE_VARIABLE: node,
            wire.RUN_DIR_VARIABLE: folder,
        }

    board = Switchboard(socket, environment_of, folder, lambda node: f"{folder}/log-{node}")
    request = NodesRequest(
        run_id=os.path.basename(folder),
        run_dir=folder,
        nodes=names,
        socket=socket,
        capacity=Capacity(1.0, None, None, 16 * 2**20),
        log=os.path.join(folder, "log"),
    )
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(board.listening())
        await stack.enter_async_context(backend.nodes(request))
        stack.callback(board.dismiss)
        hellos = await board.hellos(names, _DEADLINE_S)
        infos.update({name: backend.describe(request.run_id, hellos[name]) for name in names})
        yield Nodes(board, infos, folder)


def play(
    backend: Backend,
    folder: str,
    count: int,
    story: Callable[[Nodes], Coroutine[Any, Any, None]],
) -> None:
    """Tell ``story`` with ``count`` nodes up."""

    async def told() -> None:
        async with up(backend, folder, count) as nodes:
            await story(nodes)

    asyncio.run(told())


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, _DEADLINE_S)


def sleeping(folder: str) -> list[int]:
    """The ``sleep 600`` of the run whose directory is ``folder``."""
    return [
        process.pid
        for process in host_processes()
        if process.argv == ("sleep", "600")
        and process.environment.get(wire.RUN_DIR_VARIABLE) == folder
    ]


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""
