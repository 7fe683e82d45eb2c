"""The remote shell of virtual nodes, in place of ssh: ``rsh.py [--ssh] [OPTION…] HOST [COMMAND…]``.

The run's supervisor has the agent of HOST run COMMAND by a shell, and ends it when this process
goes away. Open MPI's daemons write to the log of their node. With ``--ssh``, as the client that
answers to the name ``ssh``, the command's streams are this process's own: they pass through named
pipes in the run directory, which every node sees at the same path.

Options are read as ssh reads them and obeyed where they mean something here, which is ``-n`` and
``-l``: there is no network, key or terminal in between. mpirun calls this once per remote node,
all at a time; it does as little as it can.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from simgrid_ml import wire
from simgrid_ml.node.protocol import Connection, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

_WITH_VALUE = "BDEFIJLOQRSWbceilmopw"  # options of ssh that are followed by a value
_DRAIN_S = 2.0
"""After the command has ended, what it left in the pipes is awaited so long: a child of it that
goes on may hold them open."""
_LOOK_S = 0.005  # how often the command is asked whether it listens yet
_USAGE = "usage: ssh [OPTION...] [USER@]HOST [COMMAND...]\n"


def main(argv: List[str]) -> int:
    carries_streams = argv[:1] == ["--ssh"]
    host, command, reads = _parse(argv[1:] if carries_streams else argv)
    run_dir = os.environ.get(wire.RUN_DIR_VARIABLE)
    if not run_dir:
        sys.stderr.write("cannot reach the supervisor of this run: its variables are not set\n")
        return 255
    if host is None:
        sys.stderr.write(_USAGE)
        return 255
    try:
        connection = connect(os.path.join(run_dir, wire.SOCKET))
    except OSError as error:
        sys.stderr.write(f"cannot reach the supervisor of {run_dir}: {error.strerror}\n")
        return 255
    request: "Dict[str, Any]" = {
        "op": "exec" if carries_streams else "rsh",
        "node": _node(run_dir, host),
        "argv": ["/bin/sh", "-c", " ".join(command)] if command else ["/bin/sh"],
    }
    if carries_streams:
        answer = _Streams(run_dir, reads).ask(connection, request)
    else:
        answer = connection.ask(**request)
    if answer is None:
        return 255
    if "error" in answer:
        sys.stderr.write(answer["error"] + "\n")
    return int(answer["code"])


def _parse(words: List[str]) -> "Tuple[Optional[str], List[str], bool]":
    """HOST, the words of COMMAND, and whether it gets the caller's input.

    Options may stand before and behind HOST, but not in COMMAND.
    """
    host = None
    reads = True
    options = True
    while words:
        word = words[0]
        if options and word == "--":
            options = False
        elif options and word.startswith("-") and word != "-":
            for place, letter in enumerate(word[1:], 2):
                if letter == "n":
                    reads = False
                if letter in _WITH_VALUE:
                    if place == len(word):
                        words = words[1:]
                    break
        elif host is None:
            host = word.rpartition("@")[2]
            options = True
        else:
            break
        words = words[1:]
    return host, words, reads


def _node(run_dir: str, host: str) -> str:
    """The node that HOST means, by its name or one of its addresses."""
    own = os.environ.get(wire.NODE_VARIABLE)
    if own and host in ("localhost", "127.0.0.1", "::1"):
        return own
    try:
        with open(os.path.join(run_dir, wire.TMP, wire.NODES)) as stream:
            for line in stream:
                address, _, name = line.strip().partition(" ")
                if host == address:
                    return name
    except OSError:
        pass  # not written yet: names alone are known
    return host


class _Streams:
    """The three streams of a command, between this process and a folder of named pipes."""

    def __init__(self, run_dir: str, reads: bool) -> None:
        self.folder = os.path.join(run_dir, wire.TMP, "ssh-" + os.urandom(8).hex())
        names = ("stdin", "stdout", "stderr") if reads else ("stdout", "stderr")
        self.paths = {name: os.path.join(self.folder, name) for name in names}
        self.reads = reads
        self.target = -1  # the command's input, once it listens
        self.typed = b""  # of our input, and not yet written there

    def ask(self, connection: Connection, request: "Dict[str, Any]") -> "Optional[Dict[str, Any]]":
        """The supervisor's answer, once the command has ended and its output is written."""
        try:
            os.mkdir(self.folder, 0o700)
            for path in self.paths.values():
                os.mkfifo(path, 0o600)
            return self._pump(connection, request)
        except BrokenPipeError:  # nobody reads what we write: nothing is left to say
            return {"code": 255}
        except OSError as error:
            return {"code": 255, "error": f"{self.folder}: {error.strerror}"}
        finally:
            for path in self.paths.values():
                _unlink(path)
            try:
                os.rmdir(self.folder)
            except OSError:
                pass

    def _pump(
        self, connection: Connection, request: "Dict[str, Any]"
    ) -> "Optional[Dict[str, Any]]":
        import select
        import time

        sources = {
            os.open(self.paths[name], os.O_RDONLY | os.O_NONBLOCK): target
            for name, target in (("stdout", 1), ("stderr", 2))
        }
        connection.send(**request, **self.paths)
        answer: "Optional[Dict[str, Any]]" = None
        deadline = None
        while deadline is None or (sources and time.monotonic() < deadline):
            poll = select.poll()
            for source in sources:
                poll.register(source, select.POLLIN)
            wait_s: "Optional[float]" = None
            if deadline is None:
                poll.register(connection.fileno(), select.POLLIN)
                wait_s = self._join(poll)
            else:
                wait_s = deadline - time.monotonic()
            for fd, _ in poll.poll(None if wait_s is None else max(0.0, wait_s * 1000)):
                if fd == connection.fileno():
                    answer = _hear(connection)
                    if answer is None or "error" in answer:
                        return answer
                    deadline = time.monotonic() + _DRAIN_S
                elif fd in sources:
                    block = os.read(fd, 65536)
                    _write(sources[fd], block)
                    if not block:
                        os.close(fd)
                        del sources[fd]
                else:
                    self._carry_input()
        return answer

    def _join(self, poll: "Any") -> "Optional[float]":
        """Register what input waits for; how soon to look again whether the command listens."""
        import select

        if not self.reads:
            return None
        if self.target < 0:
            try:
                self.target = os.open(self.paths["stdin"], os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return _LOOK_S
        if self.typed:
            poll.register(self.target, select.POLLOUT)
        else:
            poll.register(0, select.POLLIN)
        return None

    def _carry_input(self) -> None:
        try:
            if self.typed:
                self.typed = self.typed[_write_some(self.target, self.typed) :]
                return
            self.typed = os.read(0, 65536)
        except OSError:  # the command reads no more, or we have no input
            self.typed = b""
        if not self.typed:
            os.close(self.target)
            self.reads = False


def _hear(connection: Connection) -> "Optional[Dict[str, Any]]":
    try:
        return next(connection.receive(), None)
    except EOFError:
        return None


def _write(target: int, block: bytes) -> None:
    while block:
        block = block[os.write(target, block) :]


def _write_some(target: int, block: bytes) -> int:
    try:
        return os.write(target, block)
    except BlockingIOError:
        return 0


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
