"""JSON lines between supervisor, agents and clients, over the run's control socket.

=========  ======================  =========================================================
op         who says it             fields
=========  ======================  =========================================================
hello      agent → supervisor      node, hostname, isolation, limits, tmp (its TMPDIR),
                                   shm (its folder for shared memory; null: /dev/shm itself),
                                   interface, address (null: the backend knows)
spawn      supervisor → agent      id, argv, env, cwd, stdin, stdout, stderr (paths)
signal     supervisor → agent      id, signal: to the process group of a spawned command
spawned    agent → supervisor      id, pid inside the node
exited     agent → supervisor      id, code (negative: by that signal)
ping       supervisor → agent      answered by pong, unless the node is paused or hangs
pong       agent → supervisor
listening  supervisor → agent      asks for the TCP ports that something on the node listens to
listening  agent → supervisor      ``ports``
attach     pool → agent            id, socket: serve the run that listens there; answered by
                                   exited when it has let go and nothing of it is left
bye        supervisor → agent      end everything in the node, then yourself
rsh        client → supervisor     node, argv; answered by ``{"code": …}``
exec       client → supervisor     node, argv, stdin, stdout, stderr; answered by ``{"code": …}``
link       client → supervisor     target, words, or neither of them to be shown; answered by
                                   ``{"network": …, "cables": …}`` or ``{"error": …}``
=========  ======================  =========================================================

A closed connection is a message as well: an agent whose supervisor is gone ends its node, a
supervisor whose agent is gone has lost that node.
"""

from __future__ import annotations

import json
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, Optional

__all__ = ["Connection", "address", "connect", "encode", "hand_over"]

_SUN_PATH_MAX = 107


def address(path: str, folder_fd: int) -> str:
    """A name for the socket at ``path`` that fits into ``sun_path`` whatever its length.

    Args:
        path: path of the socket.
        folder_fd: an open descriptor of its folder, kept open while the name is in use.
    """
    if len(os.fsencode(path)) <= _SUN_PATH_MAX:
        return path
    return f"/proc/self/fd/{folder_fd}/{os.path.basename(path)}"


class Connection:
    """One end of a conversation; ``fileno`` makes it usable with selectors."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, **message: Any) -> None:
        self._socket.sendall(encode(message))

    def receive(self) -> Iterator[Dict[str, Any]]:
        """The whole messages of one read.

        Raises:
            EOFError: the other side is gone.
        """
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def ask(self, **message: Any) -> Optional[Dict[str, Any]]:
        """Send a request and wait for its one answer; None when the other side goes away."""
        self.send(**message)
        try:
            while True:
                for answer in self.receive():
                    return answer
        except EOFError:
            return None

    def close(self) -> None:
        self._socket.close()


def encode(message: Dict[str, Any]) -> bytes:
    """One message as one line."""
    return json.dumps(message).encode("ascii") + b"\n"


def connect(path: str) -> Connection:
    """A connection to the control socket at ``path``.

    Raises:
        OSError: nobody listens there.
    """
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address(path, folder))
        except BaseException:
            sock.close()
            raise
        return Connection(sock)
    finally:
        os.close(folder)


def hand_over(path: str, node: str, descriptor: int) -> None:
    """Give the relay at ``path`` a node's end of the network; returns when it has taken it.

    The relay may be written in C, so this is no JSON: ``join NAME``, answered by ``ok`` or
    ``error`` and why.

    Raises:
        OSError: nobody listens there, or it refused.
    """
    import array

    connection = connect(path)
    sock = connection._socket
    try:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        sock.sendmsg([f"join {node}\n".encode()], [rights])
        answer = sock.recv(1024).decode()
    finally:
        connection.close()
    if not answer:
        raise OSError("the relay is gone")
    if answer != "ok\n":
        raise OSError(f"the relay refused {node}: {answer.partition(' ')[2].strip()}")
