"""The supervisor's side of the control socket: agents, what they spawn, and who asks for more."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from simgrid_ml.errors import NodeError
from simgrid_ml.node.protocol import address, encode

__all__ = ["Killed", "Process", "Switchboard", "not_answering"]

_LINE_LIMIT = 16 * 2**20  # a spawn message carries a whole environment
_PING_S = 2.5
_PINGS_LOST = 4
_SILENCE_S = _PING_S * _PINGS_LOST
"""An agent that says nothing for so long, though asked, is taken for lost."""


class Process:
    """A command spawned on a node."""

    def __init__(self, board: Switchboard, node: str, number: int, name: str) -> None:
        self._board = board
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.node = node
        self.number = number
        self.name = name
        self.is_behind_shell = False
        self.pid: int | None = None  # as the node sees it

    async def wait(self) -> int:
        """Exit code; negative: ended by that signal.

        Raises:
            NodeError: its node went away.
        """
        return await asyncio.shield(self._exited)

    @property
    def has_exited(self) -> bool:
        return self._exited.done()

    def signal(self, number: int) -> None:
        """Signal its process group; nothing happens if it has ended or its node is gone."""
        if not self.has_exited:
            self._board.tell(self.node, op="signal", id=self.number, signal=number)

    def settle(self, code: int) -> None:
        if not self._exited.done():
            self._exited.set_result(code)

    def lose(self, error: NodeError) -> None:
        if not self._exited.done():
            self._exited.set_exception(error)
            self._exited.exception()  # somebody may never wait: that is fine


class Killed(NamedTuple):
    """A launcher's process that somebody ended by a signal."""

    name: str
    time_s: float
    signal: int


class Switchboard:
    """Listens on the run's control socket.

    Args:
        path: where to listen.
        environment_of: the environment of a command on a node, for rsh and exec.
        cwd: where those commands start.
        log_of: path of a node's own log, which takes the output of its Open MPI daemon.
    """

    def __init__(
        self,
        path: str,
        environment_of: Callable[[str], Mapping[str, str]],
        cwd: str,
        log_of: Callable[[str], str],
    ) -> None:
        self._path = path
        self._environment_of = environment_of
        self._cwd = cwd
        self.log_of = log_of
        self._agents: dict[str, asyncio.StreamWriter] = {}
        self._processes: dict[int, Process] = {}
        self._numbers = itertools.count(1)
        self._hellos: dict[str, dict[str, Any]] = {}
        self._arrived = asyncio.Condition()
        self._dismissed = False
        self._conversations: set[asyncio.Task[None]] = set()
        self._unanswered: dict[str, int] = {}  # pings, by node
        self.on_link: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]] = _no_links_yet
        """Answers who asks for the links between the nodes."""
        self.heard: dict[str, list[int]] = {}
        """TCP ports, as each node has last answered to ``listening``; another list every time."""
        self.killed: list[Killed] = []
        """What was spawned under a name and ended by a signal, in order."""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolves with the name of the first node whose agent went away unasked."""
        self.silent: set[str] = set()
        """Nodes that are lost since their agents did not answer."""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Switchboard]:
        folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            name = address(self._path, folder)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            server = await asyncio.start_unix_server(self._serve, name, limit=_LINE_LIMIT)
            os.chmod(self._path, 0o600)
            pings = asyncio.create_task(self._ping())
            try:
                yield self
            finally:
                pings.cancel()
                server.close()
                self.dismiss()
                for conversation in list(self._conversations):
                    conversation.cancel()
                await asyncio.gather(*self._conversations, return_exceptions=True)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
        finally:
            os.close(folder)

    # -- nodes -----------------------------------------------------------------------------
    async def hellos(self, nodes: tuple[str, ...], deadline_s: float) -> dict[str, dict[str, Any]]:
        """The hello of every node.

        Raises:
            NodeError: some have not reported after ``deadline_s`` seconds.
        """

        def complete() -> bool:
            return all(node in self._hellos for node in nodes)

        async with self._arrived:
            try:
                await asyncio.wait_for(self._arrived.wait_for(complete), deadline_s)
            except asyncio.TimeoutError:
                missing = [node for node in nodes if node not in self._hellos]
                raise NodeError(
                    f"{', '.join(missing)} did not report within {deadline_s:g} s "
                    f"({len(self._hellos)} of {len(nodes)} nodes did)",
                    remedy="`simgrid-ml doctor` checks what nodes need",
                ) from None
        return dict(self._hellos)

    def pids(self) -> dict[str, int]:
        """The agent of every node, as this host sees the process; without those it cannot see."""
        return {node: hello["pid"] for node, hello in self._hellos.items() if hello["pid"]}

    def dismiss(self) -> None:
        """Tell every agent to end its node."""
        self._dismissed = True
        for node in list(self._agents):
            self.tell(node, op="bye")

    def hang_up(self) -> None:
        """Close every agent's connection without a word, as a vanished supervisor does."""
        for writer in list(self._agents.values()):
            writer.transport.abort()

    # -- processes -------------------------------------------------------------------------
    def spawn(
        self,
        node: str,
        argv: tuple[str, ...],
        environment: Mapping[str, str],
        *,
        name: str = "",
        stdout: str | None = None,
        stderr: str | None = None,
        stdin: str | None = None,
        cwd: str | None = None,
    ) -> Process:
        """Start ``argv`` on ``node``; paths are those of the node.

        Output is appended to ``stdout``, or to the node's own log; ``environment`` is added to
        the node's own.
        """
        process = Process(self, node, next(self._numbers), name)
        self._processes[process.number] = process
        told = self.tell(
            node,
            op="spawn",
            id=process.number,
            argv=list(argv),
            env={**self._environment_of(node), **environment},
            cwd=cwd or self._cwd,
            stdin=stdin,
            stdout=stdout or self.log_of(node),
            stderr=stderr,
        )
        if not told:
            process.lose(_gone(node))
        return process

    # -- nodes that outlive a run ------------------------------------------------------------
    def attach(self, node: str, socket: str) -> Process:
        """Lend ``node`` to the run that listens on ``socket``.

        What is returned exits when the run has let go of the node and nothing of it is left there.
        """
        process = Process(self, node, next(self._numbers), "")
        self._processes[process.number] = process
        if not self.tell(node, op="attach", id=process.number, socket=socket):
            process.lose(_gone(node))
        return process

    async def until_gone(self, node: str) -> None:
        """Returns when the agent of ``node``, which said hello, is no longer connected."""
        life = Process(self, node, next(self._numbers), "")
        if node in self._agents:
            self._processes[life.number] = life
            with contextlib.suppress(NodeError):
                await life.wait()

    def drop(self, node: str) -> None:
        """Close the connection of ``node`` without a word: it ends at once, whatever it does."""
        if node in self._agents:
            self._agents[node].transport.abort()

    # -- messages --------------------------------------------------------------------------
    async def _ping(self) -> None:
        """Drop the agents that answer no more: of a paused node the connection stays open.

        Counts questions, not time, so that it blames nobody if this process was stopped itself.
        """
        while True:
            for node, writer in list(self._agents.items()):
                if self._unanswered[node] >= _PINGS_LOST:
                    self.silent.add(node)
                    writer.transport.abort()
                elif self.tell(node, op="ping"):
                    self._unanswered[node] += 1
            await asyncio.sleep(_PING_S)

    def tell(self, node: str, **message: Any) -> bool:
        writer = self._agents.get(node)
        if writer is None or writer.is_closing():
            return False
        writer.write(encode(message))
        return True

    # -- conversations ---------------------------------------------------------------------
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        try:
            line = await reader.readline()
            if line:
                message = json.loads(line)
                if message["op"] == "hello":
                    await self._serve_agent(message, reader, writer)
                else:
                    await self._serve_client(message, reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._conversations.discard(task)
            writer.close()

    async def _serve_agent(
        self, hello: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        node = hello["node"]
        if node in self._hellos:
            return  # an impostor: an agent says hello once
        hello["pid"] = _peer(writer)
        self._agents[node] = writer
        self._unanswered[node] = 0
        if self._dismissed:  # it was still starting when the others were told
            self.tell(node, op="bye")
        async with self._arrived:
            self._hellos[node] = hello
            self._arrived.notify_all()
        try:
            while line := await reader.readline():
                event = json.loads(line)
                self._unanswered[node] = 0
                if event["op"] == "listening":
                    self.heard[node] = event["ports"]
                elif event["op"] == "spawned":
                    self._processes[event["id"]].pid = event["pid"]
                elif event["op"] == "exited":
                    self._note_end(self._processes.pop(event["id"]), event["code"])
        except ConnectionError:
            pass
        finally:
            del self._agents[node]
            for number, process in list(self._processes.items()):
                if process.node == node:
                    del self._processes[number]
                    process.lose(not_answering(node) if node in self.silent else _gone(node))
            if not self._dismissed and not self.lost.done():
                self.lost.set_result(node)

    def _note_end(self, process: Process, code: int) -> None:
        number = -code
        if process.is_behind_shell and code > 128:
            number = code - 128
        if process.name and number > 0:
            self.killed.append(Killed(process.name, time.time(), number))
        process.settle(code)

    async def _serve_client(
        self, message: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """link: one answer. rsh and exec: a command for as long as the client stays connected."""
        if message["op"] == "link":
            writer.write(encode(await self.on_link(message)))
            return
        node = message["node"]
        if node not in self._agents:
            known = ", ".join(sorted(self._agents)) or "none"
            writer.write(encode({"code": 255, "error": f"no node {node!r}; there are: {known}"}))
            return
        process = self.spawn(
            node,
            tuple(message["argv"]),
            message.get("env", {}),
            name=f"Open MPI's daemon on {node}" if message["op"] == "rsh" else "",
            stdin=message.get("stdin"),
            stdout=message.get("stdout"),
            stderr=message.get("stderr"),
            cwd=message.get("cwd"),
        )
        process.is_behind_shell = message["op"] == "rsh"
        ended = asyncio.ensure_future(process.wait())
        gone = asyncio.ensure_future(reader.read())
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not ended.done():
            process.signal(signal.SIGKILL)
            ended.cancel()
            return
        error = ended.exception()
        code = 255 if error is not None else ended.result()
        writer.write(encode({"code": 128 - code if code < 0 else code}))
        with contextlib.suppress(ConnectionError):
            await writer.drain()


def _peer(writer: asyncio.StreamWriter) -> int:
    """The process that connected, as this one sees it; 0 if it cannot."""
    credentials = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def not_answering(node: str) -> NodeError:
    """Why a node is lost whose connection is still open."""
    return NodeError(
        f"{node} has not answered for {_SILENCE_S:g} s: it is paused or hangs",
        remedy="do not pause nodes for so long; if nobody did, the host is overloaded: use fewer "
        "ranks or nodes",
    )


async def _no_links_yet(_: Mapping[str, Any]) -> dict[str, Any]:
    error = NodeError("the nodes are not up yet", remedy="try again when the run is Running")
    return {"error": error.to_json()}


def _gone(node: str) -> NodeError:
    return NodeError(
        f"{node} went away: its agent closed the connection",
        remedy="something killed the node's agent, or the host ran out of memory; "
        "`dmesg` and the end of the run's supervisor.log may tell",
    )
