"""relay.c in Python, for hosts without a compiler: ``relay_program.py LISTENING_SOCKET``.

The same words, the same sums, the same chances, so that a link is the same link; read relay.c
first. What differs is the price of a packet, and with it the highest rate (``benchmarks/links``).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import heapq
import os
import select
import signal
import socket
import statistics
import struct
import sys
import time

_HEADER = struct.Struct("=BBHHHH")  # of virtio: flags, kind, headers, segment, checksum (2)
_KIND_TCP, _KIND_ECN = 1, 0x80
_ETHERNET = 14
_LARGEST = _HEADER.size + 65535
_HELD_MAX = 64 * 2**20
_BATCH = 16
_SAMPLES = 15
_WAITS = 24
_LATEST = 1e5
_NOBODY = 65534
_TUNSETOFFLOAD, _TUN_CSUM, _TUN_TSO = 0x400454D0, 1, 2 | 8
_EBADFD = 77
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK, _PR_SET_NO_NEW_PRIVS = 1, 29, 38
_MASK = 2**64 - 1


class Cable:
    __slots__ = (
        *("ns_per_byte", "delay", "jitter", "loss", "queue", "clear", "latest", "chance"),
        *("busy", "bytes", "packets", "dropped", "lost"),
    )

    def __init__(self, seed: int) -> None:
        self.ns_per_byte = self.delay = self.jitter = self.loss = self.queue = 0.0
        self.clear = self.latest = self.busy = 0.0
        self.bytes = self.packets = self.dropped = self.lost = 0
        self.chance = seed & _MASK

    def drawn(self) -> float:
        """The next number in [0, 1) of this cable: splitmix64."""
        self.chance = z = (self.chance + 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
        return ((z ^ z >> 31) >> 11) * 2.0**-53


class Node:
    __slots__ = ("address", "held", "long", "name", "tun")

    def __init__(self) -> None:
        self.name, self.address, self.tun, self.long, self.held = "", b"", -1, False, 0


class Packet:
    __slots__ = (
        *("alarm", "data", "first", "hop", "is_ack", "last"),
        *("route", "segments", "source", "target", "wire"),
    )

    def __init__(
        self, data: bytes, source: Node, target: Node, route: list[Cable], now: float
    ) -> None:
        self.data, self.source, self.target, self.route = data, source, target, route
        self.first = self.last = now
        self.alarm, self.hop = -1e18, 0
        self.segments, self.wire = measured(data)
        self.is_ack = is_ack(data)


def measured(data: bytes) -> tuple[int, int]:
    """How many frames a packet is, and their bytes: every segment of a long one has the headers."""
    _, kind, _, segment, _, _ = _HEADER.unpack_from(data)
    size, headers, segments = len(data) - _HEADER.size, 4 * (data[_HEADER.size] & 15), 1
    if kind & ~_KIND_ECN == _KIND_TCP and segment and size > headers + 20:
        headers += 4 * (data[_HEADER.size + headers + 12] >> 4)
        if size > headers:
            segments = (size - headers - 1) // segment + 1
    return segments, size + (segments - 1) * headers + segments * _ETHERNET


def is_ack(data: bytes) -> bool:
    """Whether it is of TCP and carries nothing."""
    ip = data[_HEADER.size :]
    headers = 4 * (ip[0] & 15)
    return (
        ip[9] == socket.IPPROTO_TCP
        and len(ip) >= headers + 20
        and len(ip) == headers + 4 * (ip[headers + 12] >> 4)
    )


def start_on(cable: Cable, first: float, last: float, wire: int) -> float:
    """When a cable begins to send a packet: as late as it need not wait for bits."""
    return max(first, last - wire * cable.ns_per_byte)


class Relay:
    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.nodes: list[Node] = []
        self.cables: list[Cable] = []
        self.routes: dict[tuple[Node, Node], list[Cable]] = {}
        self.by_address: dict[bytes, Node] = {}
        self.joining: list[socket.socket] = []
        self.due: list[tuple[float, int, Packet]] = []
        self.alarms: list[float] = []
        self.order = 0
        self.offset = 0.0
        self.lateness = [0.0] * _WAITS
        self.begun = 0
        self.started = False
        self.heard = b""

    def now(self) -> float:
        return float(time.monotonic_ns() - self.begun)

    # -- the way of a packet -------------------------------------------------------------------
    def add(self, due: float, packet: Packet) -> None:
        self.order += 1
        heapq.heappush(self.due, (due, self.order, packet))

    def soonest(self, packet: Packet) -> float:
        """When it will be delivered if no cable is busy."""
        first, last = packet.first, packet.last
        for cable in packet.route[packet.hop :]:
            delay = max(0.0, cable.delay - cable.jitter)
            first = start_on(cable, first, last, packet.wire) + delay
            last = first + packet.wire * cable.ns_per_byte
        return last - self.offset

    def plan_next(self, packet: Packet) -> None:
        due = self.soonest(packet)
        if due > packet.alarm:
            packet.alarm = due
            heapq.heappush(self.alarms, due)
        if packet.hop < len(packet.route):
            cable = packet.route[packet.hop]
            # As early as a delivery, or the alarm might be the sooner of the two.
            due = start_on(cable, packet.first, packet.last, packet.wire) - self.offset
        self.add(due, packet)

    def cross(self, packet: Packet, cable: Cable, due: float) -> None:
        serial = packet.wire * cable.ns_per_byte
        passes = packet.is_ack and packet.hop == 0  # see relay.py
        begins = due if passes else max(due, cable.clear)
        if begins > due and (begins - due) / cable.ns_per_byte + packet.wire > cable.queue:
            cable.dropped += packet.segments
            packet.source.held -= len(packet.data)
            return
        cable.clear = max(due, cable.clear) + serial
        cable.busy += serial
        cable.bytes += packet.wire
        cable.packets += packet.segments
        if cable.loss and cable.drawn() >= (1 - cable.loss) ** packet.segments:
            cable.lost += packet.segments
            packet.source.held -= len(packet.data)
            return
        delay = cable.delay
        if cable.jitter:
            delay = max(0.0, delay + cable.jitter * (2 * cable.drawn() - 1))
        packet.first = begins + delay if passes else max(begins + delay, cable.latest)
        packet.last = packet.first + serial
        cable.latest = max(cable.latest, packet.last)
        packet.hop += 1
        self.plan_next(packet)

    def deliver(self, packet: Packet) -> None:
        node = packet.target
        if node.tun >= 0:
            try:
                os.write(node.tun, packet.data)
            except OSError as error:  # else: its interface is down; as a cable would
                if error.errno == _EBADFD:
                    self.detach(node)
        packet.source.held -= len(packet.data)

    def handle_due(self, until: float) -> None:
        while self.due and self.due[0][0] <= until:
            due, _, packet = heapq.heappop(self.due)
            if packet.hop == len(packet.route):
                self.deliver(packet)
            else:
                due += self.offset if packet.hop else 0.0
                self.cross(packet, packet.route[packet.hop], due)
        while self.alarms and self.alarms[0] <= until:
            heapq.heappop(self.alarms)

    # -- nodes ---------------------------------------------------------------------------------
    @staticmethod
    def detach(node: Node) -> None:
        if node.tun >= 0:
            os.close(node.tun)
        node.tun = -1

    def read_one(self, node: Node) -> bool:
        """Take a packet from a node; returns whether there may be more."""
        try:
            data = os.read(node.tun, _LARGEST)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:  # its network namespace is gone
            self.detach(node)
            return False
        start = _HEADER.size
        if len(data) < start + 20 or data[start] >> 4 != 4:
            return True
        target = self.by_address.get(data[start + 16 : start + 20])
        route = None if target is None else self.routes.get((node, target))
        if target is not None and route is not None:
            node.held += len(data)
            packet = Packet(data, node, target, route, self.now())
            self.add(packet.first, packet)
        return True

    @staticmethod
    def let_send_long(node: Node) -> None:
        if node.tun >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(node.tun, _TUNSETOFFLOAD, _TUN_CSUM | (_TUN_TSO if node.long else 0))

    def join(self, name: str, tun: int) -> bytes:
        if tun < 0:
            return b"error no descriptor came with it\n"
        for node in self.nodes:
            if node.name == name:
                os.set_blocking(tun, False)
                self.detach(node)
                node.tun = tun
                self.let_send_long(node)
                return b"ok\n"
        os.close(tun)
        return b"error the plan has no such node\n"

    def hear_agent(self, agent: socket.socket) -> None:
        """One message, one descriptor, one answer."""
        try:
            text, control, _, _ = agent.recvmsg(300, socket.CMSG_SPACE(4))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            text, control = b"", []
        if text:
            rights = array.array("i")
            for _, kind, value in control:
                if kind == socket.SCM_RIGHTS:
                    rights.frombytes(value[:4])
            word, _, name = text.decode("utf-8", "replace").strip().partition(" ")
            with contextlib.suppress(OSError):
                agent.send(self.join(name if word == "join" else "", rights[0] if rights else -1))
        self.joining.remove(agent)
        agent.close()

    # -- the relay's own latency ---------------------------------------------------------------
    def own_latency(self) -> float:
        """Measure how late a packet is read and delivered, and how late a wait ends."""
        here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            here.bind(("127.0.0.1", 0))
        except OSError:
            return 0.0
        child = os.fork()
        if child == 0:
            for _ in range(_SAMPLES):
                time.sleep(3e-3)
                here.sendto(struct.pack("=d", self.now()), here.getsockname())
            os._exit(0)
        packets, waits = [], []
        for _ in range(_SAMPLES):
            if not select.select([here], [], [], 1.0)[0]:
                break
            data = here.recv(8)
            here.sendto(data, here.getsockname())
            (sent,) = struct.unpack("=d", here.recv(8))
            read_at = self.now()
            packets.append(read_at - sent)
            select.select([], [], [], 2e-4)
            waits.append(self.now() - read_at - 2e5)
        here.close()
        os.waitpid(child, 0)
        if not waits:
            return 0.0
        self.offset = min(_LATEST, statistics.median(packets))
        self.lateness = [min(_LATEST, statistics.median(waits))] * _WAITS
        return self.offset + self.lateness[0]

    # -- what it is told -----------------------------------------------------------------------
    def obey(self, line: str) -> str:
        """Do what a line says; returns what to answer once started."""
        word, *rest = line.split()
        if word == "plan":
            seed = int(rest[2])
            self.nodes = [Node() for _ in range(int(rest[0]))]
            count = int(rest[1])
            self.cables = [Cable(seed + number * 0xD1342543DE82EF95) for number in range(count)]
        elif word == "node":
            node = self.nodes[int(rest[0])]
            node.name, node.address = rest[1], socket.inet_aton(rest[2])
            self.by_address[node.address] = node
        elif word == "cable":
            cable = self.cables[int(rest[0])]
            cable.ns_per_byte, cable.delay, cable.jitter, cable.loss, cable.queue = map(
                float, rest[1:]
            )
            self.alarms = sorted([*self.alarms, *(due for due, _, _ in self.due)])
        elif word == "route":
            ends = self.nodes[int(rest[0])], self.nodes[int(rest[1])]
            self.routes[ends] = [self.cables[int(number)] for number in rest[3:]]
        elif word == "long":
            node = self.nodes[int(rest[0])]
            node.long = rest[1] == "1"
            self.let_send_long(node)
        elif word == "start":
            latency = self.own_latency()
            self.begun, self.started = time.monotonic_ns(), True
            return f"ready {latency:.0f}\n"
        elif word == "counters":
            return f"{self.now():.0f}\n" + "".join(
                f"{cable.busy:.0f} {cable.bytes} {cable.packets} {cable.dropped} {cable.lost}\n"
                for cable in self.cables
            )
        else:
            sys.exit(f"relay: not understood: {line}")
        return "ok\n" if self.started else ""

    def hear_stdin(self) -> None:
        data = os.read(0, 65536)
        if not data:
            sys.exit(0)  # who started it is gone, or done
        *lines, self.heard = (self.heard + data).split(b"\n")
        answer = "".join(self.obey(line.decode()) for line in lines)
        if answer:
            os.write(1, answer.encode())

    # -- the loop ------------------------------------------------------------------------------
    def wait(self, ends: list[int]) -> tuple[list[int], float]:
        """What is ready, and up to when things are due; see relay.c."""
        if not self.alarms:
            return select.select(ends, [], [])[0], self.now()
        alarm = self.alarms[0]
        wait = alarm - self.now()
        kind = min(_WAITS - 1, max(0, int(wait / 1e3).bit_length() - 1))
        end = alarm - self.lateness[kind]
        wait = max(0.0, wait - self.lateness[kind])
        ready = select.select(ends, [], [], wait / 1e9)[0]
        now = self.now()
        if not ready and wait > 0:
            self.lateness[kind] += (min(_LATEST, now - end) - self.lateness[kind]) / 16
        return ready, now if ready else max(now, alarm)

    def run(self) -> None:
        while not self.started:
            self.hear_stdin()
        while True:
            tuns = {node.tun: node for node in self.nodes if node.tun >= 0}
            ends = [tun for tun, node in tuns.items() if node.held <= _HELD_MAX]
            agents = {agent.fileno(): agent for agent in self.joining}
            ready, until = self.wait([0, self.listening.fileno(), *agents, *ends])
            for end in ready:
                if end in tuns:
                    for _ in range(_BATCH):
                        if not self.read_one(tuns[end]):
                            break
                        self.handle_due(self.now())
            self.handle_due(until)
            for end in ready:
                if end in agents:
                    self.hear_agent(agents[end])
                elif end == self.listening.fileno():
                    with contextlib.suppress(BlockingIOError):
                        self.joining.append(self.listening.accept()[0])
                        self.joining[-1].setblocking(False)
            if 0 in ready:
                self.hear_stdin()


def become_modest() -> None:
    """Woken soon although ranks keep the cores busy, and without the rights of root."""
    libc = ctypes.CDLL(None)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.nice(-10)
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


if __name__ == "__main__":
    become_modest()
    with contextlib.suppress(KeyboardInterrupt):
        Relay(socket.socket(fileno=int(sys.argv[1]))).run()
