"""Real namespaces, real packets, both programs: who gets what, what is lost, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simgrid_ml.errors import NodeError
from simgrid_ml.native import PROGRAMS_VARIABLE
from simgrid_ml.network.relay import Relay, RelayPlan, relay
from simgrid_ml.node.protocol import hand_over
from simgrid_ml.spec.links import Link
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.relay_nodes import Namespace, connected, star

MBIT = 125e3
_PORT = 5000

RECEIVE = f"""
import socket
with socket.create_server(("", {_PORT})) as server:
    print("up", flush=True)
    connection = server.accept()[0]
size = 0
while data := connection.recv(1 << 20):
    size += len(data)
print(size, flush=True)
"""
SEND = f"""
import socket, sys
with socket.create_connection((sys.argv[1], {_PORT})) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
"""
HEAR = f"""
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("", {_PORT}))
print("up", flush=True)
heard = []
while (number := int(end.recv(2000))) >= 0:
    heard.append(number)
print(*heard, flush=True)
"""
CALL = f"""
import socket, sys, time
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(int(sys.argv[2])):
    end.sendto(b"%d" % number, (sys.argv[1], {_PORT}))
    time.sleep(1e-4)
"""
STOP = f"""
import socket, sys
for number in range(100):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"-1", (sys.argv[1], {_PORT}))
"""

pytestmark = pytest.mark.skipif(
    not os.access("/dev/net/tun", os.R_OK | os.W_OK),
    reason="this host has no /dev/net/tun: links cannot be shaped (`modprobe tun`)",
)


@pytest.fixture(params=["c", "python"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setenv(PROGRAMS_VARIABLE, "python")
    else:
        monkeypatch.delenv(PROGRAMS_VARIABLE, raising=False)
    return str(request.param)


@contextlib.asynccontextmanager
async def nodes(folder: Path, *links: Link) -> AsyncIterator[tuple[Relay, list[Namespace]]]:
    with nothing_left(str(folder)):
        async with connected(str(folder), star(list(links))) as (up, found):
            yield up, list(found.values())


async def python(node: Namespace, text: str, *words: str) -> asyncio.subprocess.Process:
    return await node.run(sys.executable, "-I", "-S", "-c", text, *words)


async def said(process: asyncio.subprocess.Process) -> str:
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def ready(node: Namespace, text: str) -> asyncio.subprocess.Process:
    process = await python(node, text)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    return process


async def transfer(source: Namespace, target: Namespace, size: int) -> None:
    receiver = await ready(target, RECEIVE)
    await said(await python(source, SEND, target.address, str(size)))
    assert int(await said(receiver)) == size


async def heard_of(
    up: Relay, source: Namespace, target: Namespace, count: int, *cables: str
) -> list[int]:
    """Which of ``count`` packets arrived; then their cables are made to lose none."""
    listener = await ready(target, HEAR)
    await said(await python(source, CALL, target.address, str(count)))
    for cable in cables:
        await up.set(cable, Link())
    await said(await python(source, STOP, target.address))
    return [int(word) for word in (await said(listener)).split()]


def test_the_program_that_was_asked_for_runs(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, Link(), Link()) as (up, _):
            assert up.program == program
            assert 0 <= up.offset_s < 1e-3

    asyncio.run(main())


def test_packets_arrive_whole_and_only_where_they_are_sent(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, *[Link()] * 3) as (up, (first, second, third)):
            await transfer(first, second, 20_000_000)
            counters = await up.counters()
            assert counters["up:node0"].bytes > 20_000_000
            assert counters["down:node1"].bytes == counters["up:node0"].bytes
            assert counters["down:node2"].packets == counters["up:node2"].packets == 0
            await transfer(third, first, 100_000)
            assert (await up.counters())["down:node0"].bytes > 100_000

    asyncio.run(main())


def test_a_node_without_a_route_is_not_reached(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        plan = star([Link(), Link(), Link()])
        routes = {ends: way for ends, way in plan.routes.items() if "node2" not in ends}
        plan = RelayPlan(plan.addresses, plan.cables, routes)
        async with connected(str(tmp_path), plan) as (up, found):
            await said(await python(found["node0"], CALL, "10.99.0.3", "5"))
            await said(await python(found["node0"], CALL, "10.99.0.77", "5"))
            await transfer(found["node0"], found["node1"], 1000)
            assert (await up.counters())["down:node2"].packets == 0

    asyncio.run(main())


def test_a_transfer_takes_its_size_by_the_rate_until_the_rate_is_changed(
    program: str, tmp_path: Path
) -> None:
    async def main() -> None:
        slow = Link(rate_bytes_per_s=MBIT)
        async with nodes(tmp_path, slow, slow) as (up, (first, second)):
            begun = time.monotonic()
            sent = asyncio.create_task(transfer(first, second, 2_000_000))  # 16 s at this rate
            await asyncio.sleep(1)
            assert not sent.done()
            counters = (await up.counters())["up:node0"]
            assert 0 < counters.bytes < 2 * MBIT * counters.elapsed_s
            assert counters.busy_s > 0
            for cable in ("up:node0", "down:node1"):
                await up.set(cable, Link(rate_bytes_per_s=1000 * MBIT))
            await sent
            assert time.monotonic() - begun < 14

    asyncio.run(main())


def test_the_delay_of_both_directions_is_felt(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        far = Link(delay_s=0.1, jitter_s=0.01)
        async with nodes(tmp_path, far, far) as (_, (first, second)):
            begun = time.monotonic()
            await transfer(first, second, 1)  # at least there and back, of 0.18 s each
            assert time.monotonic() - begun > 0.36

    asyncio.run(main())


def test_what_is_lost_does_not_arrive_and_is_counted(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, Link(loss=0.3), Link()) as (up, (first, second)):
            heard = await heard_of(up, first, second, 400, "up:node0")
            counters = (await up.counters())["up:node0"]
            assert counters.lost > 0
            assert len(heard) == 400 - counters.lost
            assert heard == sorted(heard)

    asyncio.run(main())


def test_both_programs_lose_the_same_packets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(folder: Path) -> tuple[str, list[int]]:
        folder.mkdir()
        lossy = Link(loss=0.2, delay_s=0.001, jitter_s=0.001)
        async with nodes(folder, lossy, lossy) as (up, (first, second)):
            heard = await heard_of(up, first, second, 300, "up:node0", "down:node1")
            return up.program, heard

    monkeypatch.delenv(PROGRAMS_VARIABLE, raising=False)
    compiled, heard = asyncio.run(main(tmp_path / "c"))
    monkeypatch.setenv(PROGRAMS_VARIABLE, "python")
    assert (compiled, "python", heard) == ("c", *asyncio.run(main(tmp_path / "python")))
    assert 100 < len(heard) < 260


def test_a_node_that_joins_again_takes_the_place(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        plan = star([Link(), Link()])
        async with connected(str(tmp_path), plan) as (up, found):
            with pytest.raises(OSError, match="no such node"):
                hand_over(up.path, "node7", 0)
            with open("/dev/null") as nothing:  # cannot be a network: as one that is gone
                await asyncio.to_thread(hand_over, up.path, "node1", nothing.fileno())
            await said(await python(found["node0"], CALL, found["node1"].address, "5"))
            assert (await up.counters())["down:node1"].packets == 5

    asyncio.run(main())


def test_an_unknown_cable_is_refused(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, Link(), Link()) as (up, _):
            with pytest.raises(KeyError):
                await up.set("up:node9", Link())

    asyncio.run(main())


def test_a_relay_that_was_killed_is_told_of(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, Link(), Link()) as (up, _):
            os.kill(up.pid, signal.SIGKILL)
            assert await asyncio.wait_for(asyncio.shield(up.ended), 10) == -signal.SIGKILL
            with pytest.raises(NodeError, match="has ended"):
                await up.counters()

    asyncio.run(main())


def test_a_plan_that_is_none_is_told_of(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        plan = RelayPlan({"node0": "not an address"}, {}, {})
        async with relay(str(tmp_path), plan, str(tmp_path / "log")):
            pass

    with pytest.raises(NodeError, match="did not start") as raised:
        asyncio.run(main())
    assert raised.value.evidence


def test_long_paths_do_no_harm(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / ("long" * 20) / ("long" * 20)
        folder.mkdir(parents=True)
        async with nodes(folder, Link(), Link()) as (_, (first, second)):
            await transfer(first, second, 1000)

    asyncio.run(main())


def test_nothing_is_left_when_its_owner_is_killed(program: str, tmp_path: Path) -> None:
    text = """
import asyncio, sys
from simgrid_ml.spec.links import Link
from simgrid_ml.testing.relay_nodes import connected, star
async def main():
    async with connected(sys.argv[1], star([Link(), Link()])) as (up, nodes):
        print(up.pid, *[node.pid for node in nodes.values()], flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    argv = [sys.executable, "-c", text, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 3
        owner.kill()
    wait_until(lambda: not any(map(_lives, pids)), "relay and namespaces are gone", 10)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
