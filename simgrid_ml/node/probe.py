"""What a link between two nodes does, as a program on each of them sees it.

``python3 probe.py listen MEET ADDRESS WINDOW`` on the one, ``python3 probe.py ask MEET ADDRESS
PINGS BYTES PACE DEADLINE_S`` on the other. MEET is a path that both see: the listener writes its
port there. The one that asks prints one JSON object: the round trips of a small message in seconds,
and of a train of BYTES the rate at which its later part arrived, in bytes of payload per second.

About WINDOW bytes at most are on their way, sent no faster than PACE (bytes per second): TCP would
otherwise send more and more until a switch on the way drops some, and what arrives after that says
more of the repair than of the link.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

TYPE_CHECKING = False  # see agent.py
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

_LISTENS_S = 20.0
_STEADY = 0.5
"""Share of a train that is not judged: its sender finds out how fast it may send."""

_SMALL = 100_000
_SO_MAX_PACING_RATE = 47
_TOTAL_RETRANS = slice(100, 104)
"""Of the kernel's struct tcp_info."""


def main(argv: List[str]) -> int:
    """Take the part that ``argv`` says."""
    part, meet, address = argv[:3]
    if part == "listen":
        listen(meet, address, int(argv[3]))
        return 0
    pings, size, pace = (int(word) for word in argv[3:6])
    try:
        said = ask(meet, address, pings, size, pace, float(argv[6]))
    except OSError as error:
        said = {"error": "no connection: " + (error.strerror or str(error))}
    print(json.dumps(said))
    return 0


def listen(meet: str, address: str, window: int) -> None:
    """Answer one connection: echo bytes, then say how a train of the announced size arrived."""
    with socket.socket() as server:
        server.settimeout(_LISTENS_S)
        if 0 < window <= _SMALL:  # TCP starts with a larger one, unless its buffer is so small
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        elif window:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, window)
        server.bind((address, 0))
        server.listen(1)
        with open(meet + ".part", "w") as stream:
            stream.write(str(server.getsockname()[1]))
        os.replace(meet + ".part", meet)
        connection, _ = server.accept()
    with connection:
        connection.settimeout(_LISTENS_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            byte = connection.recv(1)
            if byte == b"p":
                connection.sendall(byte)
            elif byte == b"t":
                connection.sendall(json.dumps(_receive_train(connection)).encode() + b"\n")
            else:
                return


def _receive_train(connection: socket.socket) -> Dict[str, float]:
    size = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
    buffer = bytearray(1 << 18)
    arrived: List[Tuple[float, int]] = []
    total = 0
    while total < size:
        count = connection.recv_into(buffer, min(len(buffer), size - total))
        if count == 0:
            break
        total += count
        arrived.append((time.perf_counter(), total))
    steady = [point for point in arrived if point[1] >= _STEADY * size]
    return {"bytes": total, "bytes_per_s": slope(steady), "took_s": arrived[-1][0] - arrived[0][0]}


def slope(points: List[Tuple[float, int]]) -> float:
    """Bytes per second of the line through points (seconds, bytes); 0.0 where there is no line.

    >>> slope([(0.0, 0), (1.0, 100), (2.0, 200)])
    100.0
    """
    count = len(points)
    if count < 2:
        return 0.0
    mean_t = sum(t for t, _ in points) / count
    mean_b = sum(b for _, b in points) / count
    spread = sum((t - mean_t) ** 2 for t, _ in points)
    return sum((t - mean_t) * (b - mean_b) for t, b in points) / spread if spread else 0.0


def ask(
    meet: str, address: str, pings: int, size: int, pace: int, deadline_s: float
) -> Dict[str, Any]:
    """Measure the link to the listener.

    Raises:
        OSError: there is no listener, or no way to it.
    """
    end = time.monotonic() + deadline_s
    while not os.path.exists(meet):
        if time.monotonic() > end:
            raise OSError("nobody listens there")
        time.sleep(0.002)
    with open(meet) as stream:
        port = int(stream.read())
    with socket.socket() as connection:
        connection.settimeout(deadline_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:  # the usual one leaves slow start early where delays vary: a train is over by then
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
            if pace:
                connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, pace)
        except OSError:
            pass
        connection.connect((address, port))
        round_trips = []
        for _ in range(pings):
            begun = time.perf_counter()
            connection.sendall(b"p")
            if not connection.recv(1):
                raise OSError("the listener hung up")
            round_trips.append(time.perf_counter() - begun)
        said: Dict[str, Any] = {"round_trips_s": round_trips}
        if size:
            connection.sendall(b"t" + size.to_bytes(8, "big"))
            left, piece = size, bytes(1 << 18)
            while left:
                left -= connection.send(piece[: min(left, len(piece))])
            answer = b""
            while not answer.endswith(b"\n"):
                part = connection.recv(4096)
                if not part:
                    raise OSError("the listener hung up")
                answer += part
            said["train"] = json.loads(answer)
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            said["sent_again"] = int.from_bytes(told[_TOTAL_RETRANS], sys.byteorder)
            said["segment_bytes"] = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
