"""How long one message takes, one way: ``message.py receive PORT`` and ``send HOST PORT …``.

Both sides read the same clock, since they are on the same host. Each message begins with the time
when it was sent; the receiver prints the seconds until the kernel had taken its last packet from
the network. What waking the receiver takes is no property of the link, and is left out; nor is
what waking the sender does, so it does not sleep between messages. Ranks compute.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

_HEAD = struct.Struct("=QQ")
_STAMP = struct.Struct("=qq")
_SO_TIMESTAMPNS = 35
_FIRST = 8
"""Messages that open the window of the connection, sent in a row and not counted."""


def receive(port: int) -> None:
    with socket.create_server(("", port)) as server:
        print("up", flush=True)
        connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    number = 0
    while True:
        data, taken = b"", 0
        while len(data) < _HEAD.size or len(data) < _HEAD.unpack_from(data)[1]:
            part, control, _, _ = connection.recvmsg(1 << 20, 1024)
            if not part:
                return
            for level, kind, value in control:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                    seconds, rest = _STAMP.unpack(value)
                    taken = seconds * 10**9 + rest
            data += part
        number += 1
        if number > _FIRST:
            print((taken - _HEAD.unpack_from(data)[0]) / 1e9, flush=True)
        connection.sendall(b"\0")


def send(host: str, port: int, size: int, count: int, pause_s: float) -> None:
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    message = bytearray(size)
    for number in range(_FIRST + count):
        if number >= _FIRST:
            end = time.monotonic() + pause_s
            while time.monotonic() < end:
                pass
        _HEAD.pack_into(message, 0, time.time_ns(), size)
        connection.sendall(message)
        connection.recv(1)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(int(sys.argv[2]))
    else:
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
