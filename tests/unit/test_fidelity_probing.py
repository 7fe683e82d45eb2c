"""What is probed of the links, with what, and what the figures of a probe mean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.engine import probing
from simgrid_ml.native import PACKAGE
from simgrid_ml.node import probe
from simgrid_ml.spec.links import Link, Links, Rack

GIGABIT = 125e6
NODES = tuple(f"node{number}" for number in range(8))


def wish(**link: Any) -> probing.Wish:
    return probing.Wish(Links(default=Link(**link)), "node0", "node1")


def test_neighbours_are_probed_but_no_more_than_there_is_time_for() -> None:
    quick = Links(default=Link(rate_bytes_per_s=GIGABIT))
    assert [one.pair for one in probing.ring(NODES[:2], quick)] == [
        ("node0", "node1"),
        ("node1", "node0"),
    ]
    assert len(probing.ring(NODES, quick)) == 4
    slow = Links(default=Link(rate_bytes_per_s=GIGABIT, delay_s=0.1))
    assert len(probing.ring(NODES, slow)) == 1
    assert probing.ring(("node0",), quick) == []


def test_of_every_kind_of_link_one_is_probed_first() -> None:
    racks = (Rack(name="left", nodes=NODES[:4], uplink=Link(rate_bytes_per_s=1e6)),)
    chosen = probing.ring(NODES, Links(default=Link(rate_bytes_per_s=GIGABIT), racks=racks))
    assert [one.pair for one in chosen][:2] == [("node0", "node1"), ("node3", "node4")]
    assert chosen[1].rate_bytes_per_s == 1e6


def test_what_is_asked_is_of_both_ways_as_a_round_trip_is() -> None:
    links = Links(default=Link(delay_s=0.001), nodes={"node1": Link(delay_s=0.003, loss=0.5)})
    asked = probing.Wish(links, "node0", "node1").to_json()
    assert asked["delay_s"] == pytest.approx(0.004)
    assert asked["loss"] == pytest.approx(0.5)
    assert asked["rate_bytes_per_s"] is None


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ({}, "no rate was asked for"),
        ({"rate_bytes_per_s": GIGABIT, "loss": 0.01}, "packets are lost"),
        ({"rate_bytes_per_s": GIGABIT, "delay_s": 0.05}, "cannot fill"),
        ({"rate_bytes_per_s": GIGABIT, "delay_s": 0.0005}, ""),
    ],
)
def test_a_rate_is_measured_only_where_tcp_can_reach_it(link: dict[str, Any], why: str) -> None:
    size, said = probing.train_bytes(wish(**link))
    assert (size > 0) is (not why)
    assert why in said
    if why:
        got = probing.measured(wish(**link), {"round_trips_s": [0.1]})
        assert why in got["rate_not_measured"]


def test_figures_are_those_of_frames_and_of_one_way() -> None:
    asked = wish(rate_bytes_per_s=GIGABIT, delay_s=0.0005)
    said = {
        "round_trips_s": [0.0051, 0.002 + 2 * 67 / GIGABIT, 0.0032],
        "train": {"bytes_per_s": GIGABIT * 1448 / 1514},
        "segment_bytes": 1448,
        "sent_again": 0,
    }
    got = probing.measured(asked, said)
    assert got["rate_bytes_per_s"] == pytest.approx(GIGABIT)
    assert got["delay_s"] == pytest.approx(0.001)
    said["sent_again"] = 3
    got = probing.measured(asked, said)
    assert "rate_bytes_per_s" not in got
    assert got["rate_not_measured"] == "3 segments were lost and sent again"


@pytest.mark.parametrize(
    ("got", "broken"),
    [
        ({"rate_bytes_per_s": GIGABIT, "delay_s": 0.001}, False),
        ({"rate_bytes_per_s": 0.8 * GIGABIT, "delay_s": 0.02}, False),
        ({"delay_s": 0.001}, False),
        ({"rate_bytes_per_s": 0.3 * GIGABIT, "delay_s": 0.001}, True),
        ({"rate_bytes_per_s": 8 * GIGABIT, "delay_s": 0.001}, True),
        ({"rate_bytes_per_s": GIGABIT, "delay_s": 0.00001}, True),
        ({"error": "no connection: No route to host"}, True),
    ],
)
def test_a_link_is_broken_if_it_does_not_do_what_it_is_for(
    got: dict[str, Any], broken: bool
) -> None:
    asked = wish(rate_bytes_per_s=GIGABIT, delay_s=0.0005).to_json()
    assert probing.is_broken(asked, got) is broken


# -- the program -----------------------------------------------------------------------------
PROBE = [sys.executable, "-I", "-S", f"{PACKAGE}/node/probe.py"]


def ask(meet: Path, *figures: str) -> dict[str, Any]:
    done = subprocess.run(
        [*PROBE, "ask", str(meet), "127.0.0.1", *figures], capture_output=True, check=True
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("window", ["0", "20000", "500000"])
def test_both_ends_of_a_probe_meet_and_measure(tmp_path: Path, window: str) -> None:
    meet = tmp_path / "a place to meet"
    with subprocess.Popen([*PROBE, "listen", str(meet), "127.0.0.1", window]) as listener:
        said = ask(meet, "5", "3000000", "0", "20")
        assert listener.wait() == 0
    assert len(said["round_trips_s"]) == 5 and min(said["round_trips_s"]) > 0
    assert said["train"]["bytes"] == 3_000_000
    assert said["train"]["bytes_per_s"] > 0
    assert said["segment_bytes"] > 500


def test_a_listener_that_never_comes_is_an_error_in_words(tmp_path: Path) -> None:
    said = ask(tmp_path / "nowhere", "5", "0", "0", "0.05")
    assert said == {"error": "no connection: nobody listens there"}
    (tmp_path / "gone").write_text("1")
    said = ask(tmp_path / "gone", "5", "0", "0", "5")
    assert said == {"error": "no connection: Connection refused"}


def test_the_rate_of_a_train_is_that_of_all_its_arrivals() -> None:
    late = [(0.0, 0), (0.1, 1000), (0.2, 2000), (0.34, 3000), (0.4, 4000), (0.5, 5000)]
    assert probe.slope(late) == pytest.approx(10_000, rel=0.05)
    assert probe.slope([(1.0, 5)]) == 0.0
