"""What a relay makes of a packet's way: when it arrives, what is dropped, what is told to it.

The sums are those of relay_program.py; tests/e2e/test_relay.py shows that relay.c does the same.
"""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.network.relay import RelayPlan, ceiling_bits_per_s, queue_bytes, sends_long
from simgrid_ml.network.relay_program import Cable, Node, Packet, Relay, measured
from simgrid_ml.spec.links import Link

GBIT = 8.0  # ns per byte
SIZE = 1500


class Paper(Relay):
    """A relay without a clock: says when each packet is delivered."""

    def __init__(self) -> None:
        with socket.socket() as nobody:
            super().__init__(nobody)
        self.arrived: list[tuple[float, Packet]] = []

    def cable(self, ns_per_byte: float, delay: float = 0, jitter: float = 0) -> Cable:
        cable = Cable(seed=len(self.cables))
        cable.ns_per_byte, cable.delay, cable.jitter = ns_per_byte, delay, jitter
        cable.queue = 512 * 1024
        self.cables.append(cable)
        return cable

    def send(self, at: float, route: list[Cable], data: bytes | None = None) -> Packet:
        packet = Packet(data or udp(SIZE), Node(), Node(), route, at)
        self.add(at, packet)
        return packet

    def delivered(self) -> list[float]:
        while self.due:
            self.time = self.due[0][0]
            self.handle_due(self.time)
        return [time for time, _ in self.arrived]

    def deliver(self, packet: Packet) -> None:
        self.arrived.append((self.time, packet))


def udp(size: int) -> bytes:
    return bytes(10) + b"\x45" + bytes(size - 1)


def ack_tcp(payload: int = 0) -> bytes:
    ip = b"\x45" + bytes(8) + bytes([socket.IPPROTO_TCP]) + bytes(10)
    return bytes(10) + ip + bytes(12) + b"\x50" + bytes(7 + payload)


def long_tcp(payload: int, segment: int) -> bytes:
    headers = b"\x45" + bytes(19) + bytes(12) + b"\x80" + bytes(19)  # 20 of IP, 32 of TCP
    return struct.pack("=BBHHHH", 1, 1, 52, segment, 20, 16) + headers + bytes(payload)


def test_a_frame_has_fourteen_bytes_more_than_its_packet() -> None:
    assert measured(udp(1500)) == (1, 1514)


def test_segments_that_travel_together_have_their_headers_each() -> None:
    assert measured(long_tcp(3 * 1448, 1448)) == (3, 3 * 1514)
    assert measured(long_tcp(2 * 1448 + 1, 1448)) == (3, 2 * 1514 + 67)


def test_a_message_takes_its_size_by_the_rate_and_the_delay() -> None:
    paper = Paper()
    paper.send(0, [paper.cable(GBIT, delay=1e6)])
    assert paper.delivered() == [1514 * GBIT + 1e6]


def test_two_equal_cables_take_as_long_as_one() -> None:
    paper = Paper()
    packet = paper.send(0, [paper.cable(GBIT, 5e5), paper.cable(GBIT, 5e5)], long_tcp(63712, 1448))
    assert paper.delivered() == [packet.wire * GBIT + 1e6]


@pytest.mark.parametrize("rates", [(GBIT, 80.0), (80.0, GBIT)])
def test_the_slowest_cable_decides(rates: tuple[float, float]) -> None:
    paper = Paper()
    paper.send(0, [paper.cable(rate) for rate in rates])
    assert paper.delivered() == [1514 * 80.0]


def test_an_idle_cable_saves_up_nothing() -> None:
    paper = Paper()
    cable = paper.cable(GBIT)
    paper.send(0, [cable])
    for _ in range(3):
        paper.send(1e9, [cable])
    frame = 1514 * GBIT
    assert paper.delivered() == [frame, 1e9 + frame, 1e9 + 2 * frame, 1e9 + 3 * frame]


def test_a_fast_cable_carries_two_slow_ones_at_once() -> None:
    paper = Paper()
    uplink = paper.cable(GBIT / 2)
    slow = [paper.cable(GBIT), paper.cable(GBIT)]
    for _ in range(100):
        for cable in slow:
            paper.send(0, [cable, uplink])
    assert paper.delivered()[-1] == pytest.approx(100 * 1514 * GBIT, rel=0.01)


def test_a_cable_behind_a_long_one_is_free_for_others_meanwhile() -> None:
    paper = Paper()
    shared = paper.cable(GBIT)
    paper.send(0, [paper.cable(GBIT, delay=1e9), shared])
    paper.send(0, [paper.cable(GBIT), shared])
    assert paper.delivered() == [1514 * GBIT, 1514 * GBIT + 1e9]


def test_what_does_not_fit_the_queue_is_dropped() -> None:
    paper = Paper()
    cable = paper.cable(GBIT)
    cable.queue = 10 * 1514
    for _ in range(15):
        paper.send(0, [cable])
    assert len(paper.delivered()) == 10
    assert (cable.packets, cable.dropped, cable.bytes) == (10, 5, 15140)
    assert cable.busy == 15140 * GBIT


@given(
    st.integers(0, 2**64 - 1), st.lists(st.floats(0, 1e6), min_size=2, max_size=40), st.booleans()
)
def test_jitter_never_reorders(seed: int, times: list[float], shaped: bool) -> None:
    paper = Paper()
    route = [paper.cable(GBIT if shaped else 0.0, 1e6, 9e5), paper.cable(0.0, 1e5, 1e5)]
    for cable in route:
        cable.chance = seed
    sent = [paper.send(time, route) for time in sorted(times)]
    times = paper.delivered()
    assert [packet for _, packet in paper.arrived] == sent
    assert times == sorted(times)


def test_jitter_stays_within_its_bounds() -> None:
    paper = Paper()
    cable = paper.cable(0.0, delay=1e6, jitter=2e5)
    for number in range(500):
        paper.send(number * 1e7, [cable])
    late = [time - number * 1e7 for number, time in enumerate(paper.delivered())]
    assert 0.8e6 <= min(late) < 0.85e6 and 1.15e6 < max(late) <= 1.2e6


@given(
    st.lists(st.tuples(st.floats(0, 1e7), st.sampled_from([40, SIZE])), min_size=1, max_size=30),
    st.sampled_from([0.0, 5e4]),
    st.sampled_from([0.0, 1e5]),
)
def test_the_relay_wakes_in_time_for_every_delivery(
    sent: list[tuple[float, int]], offset: float, delay: float
) -> None:
    """Also where a packet's whole way is shorter than the latency that is subtracted from it."""
    paper = Paper()
    paper.offset = offset
    sent_at = {}
    shared = paper.cable(GBIT, delay)
    for number, (time, size) in enumerate(sorted(sent)):
        route = [paper.cable(4 * GBIT, delay * number), shared, paper.cable(2 * GBIT, delay / 10)]
        sent_at[paper.send(time, route, udp(size))] = time
    while paper.due:  # as the loop does: packets are read when they come, the rest at alarms
        fresh = [time for time, _, packet in paper.due if packet.hop == 0]
        paper.time = min([*fresh, *paper.alarms[:1]])
        paper.handle_due(paper.time)
    for time, packet in paper.arrived:
        assert time <= max(packet.last - offset, sent_at[packet]) + 0.1  # ns
    assert len(paper.arrived) == len(sent)


def test_an_empty_acknowledgement_passes_its_senders_own_queue_and_no_other() -> None:
    paper = Paper()
    up, down = paper.cable(GBIT), paper.cable(GBIT)
    bulk = [paper.send(0, [up, down]) for _ in range(10)]
    ack = paper.send(1, [up, down], ack_tcp())
    paper.delivered()
    assert [packet for _, packet in paper.arrived].index(ack) == 1, "behind what is on the wire"
    assert ack.wire + sum(packet.wire for packet in bulk) == up.clear / GBIT
    behind = paper.send(paper.time, [up])
    data = paper.send(paper.time, [up], ack_tcp(payload=1))
    paper.delivered()
    assert behind.last < data.last, "what carries something waits"


def test_chance_is_uniform_and_the_same_for_the_same_seed() -> None:
    one, other = Cable(7), Cable(7)
    drawn = [one.drawn() for _ in range(2000)]
    assert drawn == [other.drawn() for _ in range(2000)]
    assert all(0 <= value < 1 for value in drawn)
    assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (Link(), 0),
        (Link(rate_bytes_per_s=1e5), 32 * 1024),
        (Link(rate_bytes_per_s=1.25e6), 62_500),
        (Link(rate_bytes_per_s=625e6), 512 * 1024),
        (Link(rate_bytes_per_s=125e6, delay_s=0.01), 2_500_000),
    ],
)
def test_queues_are_a_switchs_or_what_tcp_needs(link: Link, expected: float) -> None:
    assert queue_bytes(link) == expected


def test_segments_stay_together_only_where_nothing_is_slow_or_lost() -> None:
    fast, slow, lossy = (
        Link(rate_bytes_per_s=125e6),
        Link(rate_bytes_per_s=1e6),
        Link(rate_bytes_per_s=125e6, loss=0.01),
    )
    routes = {("a", "b"): ("fast",), ("b", "a"): ("fast", "slow"), ("c", "a"): ("fast", "lossy")}
    plan = RelayPlan(
        {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"},
        {"fast": fast, "slow": slow, "lossy": lossy},
        routes,
    )
    assert sends_long(plan, plan.cables) == {"a": True, "b": False, "c": False}
    now = {**plan.cables, "slow": fast}
    assert sends_long(plan, now) == {"a": True, "b": True, "c": False}


def test_the_compiled_relay_is_verified_further_than_the_other() -> None:
    assert ceiling_bits_per_s("c") > ceiling_bits_per_s("python") > 0
