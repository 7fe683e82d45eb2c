"""For whom a job waits: who listens, and whether the first worker has ended, by a clock of ours."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.engine.waits import Waits
from simgrid_ml.node.listening import listening_ports
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import JobSpec, ParameterServer
from simgrid_ml.spec.placement import HostInventory, place

JOB = JobSpec(
    source="/s", entry_script="t.py", distribution=ParameterServer(nodes=2, workers=2, servers=1)
)
PLACEMENT = place(JOB, ClusterSpec(name="c", max_nodes=9), HostInventory(2, 2**30))
ENDPOINTS = {"ps-0": "10.0.0.4:2222", "worker-0": "10.0.0.4:2223", "worker-1": "10.0.0.5:2222"}
ALL = {"ps-0", "worker-0", "worker-1"}


class Nodes:
    """Nodes that answer at once, and a clock that a test moves."""

    def __init__(self, **listening: set[int]) -> None:
        self.heard: dict[str, list[int]] = {}
        self.now = 100.0
        self.events: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.mute: set[str] = set()
        self.listening = listening
        self.waits = Waits(PLACEMENT, ENDPOINTS, self, self.log, now=lambda: self.now)

    def tell(self, node: str, **message: Any) -> bool:
        assert message == {"op": "listening"}
        self.asked.append(node)
        if node not in self.mute:
            self.heard[node] = list(self.listening.get(node, ()))
        return True

    def told(self) -> list[str]:
        return asyncio.run(self.waits.told())

    def log(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def look(self, *running: str, after_s: float = 0.0) -> None:
        """For ``after_s`` seconds."""
        end = self.now + after_s
        while self.now < end:
            self.waits.look(running or ALL)
            self.now += 0.25
        self.waits.look(running or ALL)


def test_the_one_who_never_listened_is_named_with_its_address() -> None:
    nodes = Nodes(node0={2222, 2223}, node1={22})
    nodes.look(after_s=5)
    (told,) = nodes.told()
    assert told.startswith("worker-1 on node1 (10.0.0.5:2222) never listened")
    assert nodes.waits.has_listened("ps-0") and not nodes.waits.has_listened("worker-1")
    assert nodes.events == []
    nodes.look(after_s=30)
    nodes.look(after_s=30)
    assert nodes.events == [{"event": "never-listened", "tasks": ["worker-1"]}]


def test_who_listened_once_is_not_named_although_it_has_ended() -> None:
    nodes = Nodes(node0={2222, 2223}, node1={2222})
    nodes.look(after_s=1)
    nodes.listening = {}
    nodes.look(after_s=60)
    assert nodes.told() == []
    assert [event["event"] for event in nodes.events] == ["all-listen"]


def test_who_has_listened_only_now_is_not_accused_by_an_older_look() -> None:
    nodes = Nodes(node0={2222, 2223})
    nodes.look(after_s=20)
    nodes.listening["node1"] = {2222}
    assert nodes.told() == []


def test_who_has_ended_is_not_accused() -> None:
    nodes = Nodes(node0={2222, 2223})
    nodes.look("ps-0", "worker-0", after_s=5)
    assert nodes.told() == []


def test_a_node_that_does_not_answer_is_not_accused() -> None:
    nodes = Nodes(node0={2222})
    nodes.look(after_s=5)
    nodes.mute = {"node1"}
    nodes.waits._now = itertools.count(nodes.now, 0.5).__next__  # it waits for the answer
    (told,) = nodes.told()
    assert told.startswith("worker-0 on node0 (10.0.0.4:2223) never listened")


def test_nodes_are_asked_ever_less_and_no_more_once_all_were_heard() -> None:
    nodes = Nodes(node0={2222, 2223}, node1={2222})
    nodes.look(after_s=1)
    asked = len(nodes.asked)
    nodes.look(after_s=60)
    assert len(nodes.asked) == asked
    silent = Nodes()
    silent.look(after_s=100)
    assert 40 < silent.asked.count("node1") < 100


def test_where_nobody_listens_that_is_told_only_after_a_while() -> None:
    nodes = Nodes()
    nodes.look(after_s=10)
    assert nodes.told() == []
    nodes.look(after_s=30)
    assert nodes.told() == ["no task has ever listened at the address it was given"]
    assert nodes.events == []


def test_workers_that_go_on_long_after_the_first_are_told() -> None:
    nodes = Nodes(node0={2222, 2223}, node1={2222})
    nodes.look(after_s=40)
    nodes.look("ps-0", "worker-1", after_s=20)
    assert nodes.told() == []
    nodes.look("ps-0", "worker-1", after_s=20)
    assert [event["event"] for event in nodes.events] == ["all-listen", "first-worker-ended"]
    assert nodes.events[-1]["running"] == ["worker-1"]
    (told,) = nodes.told()
    assert told.startswith("worker-0 had ended while worker-1 still ran")


def test_a_job_without_endpoints_has_nothing_to_tell() -> None:
    nodes = Nodes()
    waits = Waits(PLACEMENT, {}, nodes, nodes.log, now=lambda: nodes.now)
    nodes.now += 100
    waits.look(ALL)
    assert asyncio.run(waits.told()) == [] and nodes.asked == []


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")],
)
def test_a_port_is_listened_to_from_listen_to_close(family: int, address: str) -> None:
    with socket.socket(family) as server:
        server.bind((address, 0))
        port = server.getsockname()[1]
        assert port not in listening_ports()
        server.listen()
        with socket.create_connection(("localhost", port), timeout=5):
            assert port in listening_ports()
    assert port not in listening_ports()


def test_a_host_that_hides_its_tables_has_nobody_who_listens(tmp_path: Path) -> None:
    assert listening_ports(str(tmp_path)) == []
    (tmp_path / "tcp6").write_text(
        "header\n   0: 00000000000000000000000000000000:08AE 0:0000 0A 0:0 0:0 0 0\n"
    )
    assert listening_ports(os.fspath(tmp_path)) == [2222]
