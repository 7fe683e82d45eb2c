"""The stamp of a run, over measurements written by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml import wire
from simgrid_ml.checks import fidelity
from simgrid_ml.checks.base import Stamp, Verdict
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore

PLACEMENT = {"world_size": 2, "cpus": 2, "nodes": ["node0", "node1"]}
LINK: dict[str, Any] = {
    "from": "node0",
    "to": "node1",
    "asked": {"rate_bytes_per_s": 125e6, "delay_s": 0.001, "jitter_s": 0.0, "loss": 0.0},
    "measured": {"rate_bytes_per_s": 124.6e6, "delay_s": 0.00104},
}


def measure(mean: float, window_s: float = 10.0, above_s: float = 0.0) -> dict[str, float]:
    return {"mean": mean, "worst": 2 * mean, "window_s": window_s, "above_s": above_s}


def quiet() -> dict[str, Any]:
    """What is seen of two ranks that had all they wanted."""
    return {
        "host": {"foreign": measure(0.01), "steal": measure(0.0), "stalled": measure(0.0)},
        "nodes": {node: {"throttled": measure(0.0)} for node in ("node0", "node1")},
        "ranks": {rank: {"waiting": measure(0.01)} for rank in ("rank-0", "rank-1")},
        "links": [],
        "events": [],
        "unseen": [],
    }


def test_a_quiet_host_vouches_for_the_timings() -> None:
    assert fidelity.judge(quiet(), PLACEMENT) == (Stamp.VALID, [])


@pytest.mark.parametrize(
    ("place", "what", "seen", "stamp", "said"),
    [
        ("host", "foreign", measure(0.07), Stamp.DEGRADED, "other processes had 7%"),
        ("host", "foreign", measure(0.5), Stamp.INVALID, "other processes had 50%"),
        ("host", "foreign", measure(0.5, window_s=0.3), Stamp.INVALID, "other processes"),
        ("host", "foreign", measure(0.04, above_s=1.0), Stamp.DEGRADED, "other processes"),
        ("host", "foreign", measure(0.04, above_s=3.0), Stamp.INVALID, "other processes"),
        ("host", "steal", measure(0.08), Stamp.INVALID, "other machines"),
        ("host", "stalled", measure(0.05), Stamp.DEGRADED, "waited for memory 5%"),
        ("host", "swapped", measure(50e6), Stamp.INVALID, "swapped"),
        ("node1", "throttled", measure(0.6), Stamp.INVALID, "node1 was stopped by its CPU quota"),
        ("node1", "throttled", measure(0.04), Stamp.DEGRADED, "node1 was stopped"),
        ("node0", "limited", measure(50.0), Stamp.DEGRADED, "node0 hit its memory limit 50 times"),
        ("node0", "stalled", measure(0.2), Stamp.INVALID, "node0 waited for memory 20%"),
        ("rank-1", "waiting", measure(0.3), Stamp.DEGRADED, "waited for a core up to 30%"),
    ],
)
def test_what_takes_time_from_the_ranks_is_told(
    place: str, what: str, seen: dict[str, float], stamp: Stamp, said: str
) -> None:
    found = quiet()
    where = {"host": found["host"], **found["nodes"], **found["ranks"]}[place]
    where[what] = seen
    level, reasons = fidelity.judge(found, PLACEMENT)
    assert level is stamp
    assert len(reasons) == 1 and said in reasons[0]


def test_a_tick_of_the_clock_in_a_short_run_is_no_other_process() -> None:
    found = quiet()
    found["host"]["foreign"] = measure(0.2, window_s=0.3, above_s=0.3)
    assert fidelity.judge(found, PLACEMENT)[0] is Stamp.VALID


def test_ranks_that_share_cores_are_degraded_unless_none_of_them_waited() -> None:
    crowded = {**PLACEMENT, "world_size": 4, "cpus": 2}
    found = quiet()
    assert fidelity.judge(found, crowded)[0] is Stamp.DEGRADED, "two ranks were never seen"
    found["ranks"] = {f"rank-{rank}": {"waiting": measure(0.01)} for rank in range(4)}
    assert fidelity.judge(found, crowded) == (Stamp.VALID, [])
    found["ranks"]["rank-3"]["waiting"] = measure(0.5)
    level, (reason,) = fidelity.judge(found, crowded)
    assert level is Stamp.DEGRADED
    assert reason.startswith("4 ranks share 2 cores, so timings say nothing about scaling")
    assert "up to 50%" in reason


def test_several_nodes_with_one_trouble_are_one_reason_and_the_worst_comes_first() -> None:
    found = quiet()
    found["ranks"]["rank-0"]["waiting"] = measure(0.2)
    for node in found["nodes"].values():
        node["throttled"] = measure(0.3)
    level, reasons = fidelity.judge(found, PLACEMENT)
    assert level is Stamp.INVALID
    assert [reason.split(" ")[0] for reason in reasons] == ["node0", "ranks"]
    assert "(and 1 more)" in reasons[0]


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"rate_bytes_per_s": 124.6e6, "delay_s": 0.00104}, None),
        ({"rate_bytes_per_s": None, "delay_s": 0.00104}, None),
        ({"rate_bytes_per_s": 110e6, "delay_s": 0.001}, "880 Mbit/s instead of 1 Gbit/s (-12.0%)"),
        ({"rate_bytes_per_s": 140e6, "delay_s": 0.001}, "+12.0%"),
        ({"rate_bytes_per_s": 125e6, "delay_s": 0.002}, "2 ms instead of 1 ms"),
        ({"rate_bytes_per_s": 125e6, "delay_s": 0.0006}, "0.6 ms instead of 1 ms"),
        ({"error": "no connection: No route to host"}, "No route to host"),
    ],
)
def test_a_link_that_is_not_as_asked_is_invalid(measured: dict[str, Any], said: str | None) -> None:
    found = {**quiet(), "links": [{**LINK, "measured": measured}]}
    level, reasons = fidelity.judge(found, PLACEMENT)
    assert level is (Stamp.VALID if said is None else Stamp.INVALID)
    assert said is None or (said in reasons[0] and "node0 to node1" in reasons[0])


def test_a_rate_that_could_not_be_measured_is_not_vouched_for() -> None:
    measured = {"rate_not_measured": "packets are lost", "delay_s": 0.001}
    links = [{**LINK, "measured": measured}, {**LINK, "to": "node2", "measured": measured}]
    level, (reason,) = fidelity.judge({**quiet(), "links": links}, PLACEMENT)
    assert level is Stamp.DEGRADED
    assert "node0 to node1 (and 1 more) was not measured: packets are lost" in reason
    unlimited = {**LINK["asked"], "rate_bytes_per_s": None}
    links = [{**LINK, "asked": unlimited, "measured": measured}]
    assert fidelity.judge({**quiet(), "links": links}, PLACEMENT)[0] is Stamp.VALID


def test_jitter_is_no_deviation() -> None:
    link = copy.deepcopy(LINK)
    link["asked"]["jitter_s"] = 0.0005
    link["measured"]["delay_s"] = 0.0015
    assert fidelity.judge({**quiet(), "links": [link]}, PLACEMENT)[0] is Stamp.VALID


def test_what_could_not_be_seen_is_not_vouched_for() -> None:
    found = {**quiet(), "unseen": ["who else used the cores"]}
    level, reasons = fidelity.judge(found, PLACEMENT)
    assert (level, reasons) == (Stamp.DEGRADED, ["not seen: who else used the cores"])
    level, reasons = fidelity.judge({}, PLACEMENT)
    assert level is Stamp.INVALID and reasons[0].startswith("nothing was measured")


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    return RunStore(str(tmp_path)).create("test", {"job": {}, "cluster": {}})


@pytest.mark.parametrize("busy", [False, True])
def test_a_run_on_a_busy_host_is_still_a_success_and_carries_its_stamp(
    run: RunRecord, busy: bool
) -> None:
    found = quiet()
    found["host"]["foreign"] = measure(0.5 if busy else 0.0)
    found["events"] = [
        {"what": "foreign", "where": "the host", "worst": 0.5, "from_s": 0.0, "to_s": 2.5}
    ]
    write_json(run.file(wire.FIDELITY), found)
    write_json(run.file(wire.PLACEMENT), PLACEMENT)
    (finding,) = fidelity.check(run)
    assert finding.verdict is Verdict.PASS
    assert finding.to_json()["stamp"] == ("invalid" if busy else "valid")
    assert finding.evidence == "0.0 s to 2.5 s: foreign of the host up to 0.5"


@pytest.mark.parametrize("by", ["the cluster", "the VM size"])
def test_only_a_link_that_was_asked_for_and_is_off_leaves_the_verdict_unknown(
    tmp_path: Path, by: str
) -> None:
    links = {"default": {"delay_s": 0.001}}
    cluster = {"links": links} if by == "the cluster" else {"links": None}
    run = RunStore(str(tmp_path)).create("test", {"job": {}, "cluster": cluster})
    found = {**quiet(), "links": [LINK]}
    write_json(run.file(wire.PLACEMENT), PLACEMENT)
    write_json(run.file(wire.FIDELITY), found)
    (finding,) = fidelity.check(run)
    assert (finding.verdict, finding.stamp) == (Verdict.PASS, Stamp.VALID)
    assert finding.message.startswith("1 link as asked")
    found["ranks"]["rank-0"]["waiting"] = measure(0.2)
    write_json(run.file(wire.FIDELITY), found)
    (finding,) = fidelity.check(run)
    assert (finding.verdict, finding.stamp) == (Verdict.PASS, Stamp.DEGRADED)
    found["host"]["foreign"] = measure(0.5)
    write_json(run.file(wire.FIDELITY), found)
    (finding,) = fidelity.check(run)
    assert (finding.verdict, finding.stamp) == (Verdict.PASS, Stamp.INVALID), "a busy laptop"
    found["links"][0] = {**LINK, "measured": {"rate_bytes_per_s": 10e6, "delay_s": 0.001}}
    write_json(run.file(wire.FIDELITY), found)
    (finding,) = fidelity.check(run)
    asked = by == "the cluster"
    assert finding.verdict is (Verdict.UNKNOWN if asked else Verdict.PASS)
    assert finding.stamp is Stamp.INVALID


def test_what_other_processes_had_is_told_as_average_and_worst() -> None:
    found = quiet()
    found["host"]["foreign"] = {**measure(0.19), "worst": 0.34}
    (reason,) = fidelity.judge(found, PLACEMENT)[1]
    assert reason == "other processes had 19% of the host's CPU time on average, 34% at worst"
