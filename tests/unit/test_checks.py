"""Verdicts over run directories written by hand: what was seen decides, nothing else."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml import wire
from simgrid_ml.checks import ranks
from simgrid_ml.checks.base import Finding, Verdict, run_checks, worst
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore

Report = list[dict[str, Any]]


def report(rank: int, /, **changes: Any) -> Report:
    """What rank ``rank`` of 2 x 2 says when all is well."""
    node = f"node{rank // 2}"
    started = {
        "event": "started",
        "rank": rank,
        "local_rank": rank % 2,
        "world_size": 4,
        "node": node,
        "hostname": node,
    }
    ended = {"event": "ended", "code": 0, "signal": None}
    for event in (started, ended):
        event.update({key: value for key, value in changes.items() if key in event})
    return [started, ended]


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    return RunStore(str(tmp_path)).create("test", {"job": {}, "cluster": {}})


def judged(
    run: RunRecord, reports: dict[int, Report], serves: tuple[int, ...] = ()
) -> dict[str, Finding]:
    tasks = [
        {
            "name": f"rank-{r}",
            "node": f"node{r // 2}",
            "rank": r,
            "local_rank": r % 2,
            "serves": r in serves,
        }
        for r in range(4)
    ]
    placement = {
        "nodes": ["node0", "node1"],
        "hostnames": {"node0": "node0", "node1": "node1"},
        "tasks": tasks,
        "world_size": 4,
    }
    write_json(run.file(wire.PLACEMENT), placement)
    for rank, lines in reports.items():
        journal = run.journal(wire.TASKS, f"rank-{rank}")
        for line in lines:
            journal.append(line)
        journal.close()
    return {finding.check: finding for finding in ranks.check(run)}


def all_well() -> dict[int, Report]:
    return {rank: report(rank) for rank in range(4)}


def test_four_ranks_where_they_were_placed_pass(run: RunRecord) -> None:
    found = judged(run, all_well())
    assert [one.verdict for one in found.values()] == [Verdict.PASS, Verdict.PASS]


@pytest.mark.parametrize(
    "change",
    [{"node": "node0"}, {"hostname": "host"}, {"rank": 0}, {"local_rank": 1}, {"world_size": 1}],
)
def test_a_rank_that_is_not_where_or_who_it_should_be_fails(
    run: RunRecord, change: dict[str, Any]
) -> None:
    found = judged(run, {**all_well(), 2: report(2, **change)})
    placement = found["ranks.placement"]
    assert placement.verdict is Verdict.FAIL
    assert placement.evidence.startswith(f"rank-2: {next(iter(change))} is ")
    assert placement.message.startswith("1 of 4 tasks")
    assert found["ranks.ends"].verdict is Verdict.PASS


def test_a_rank_that_never_started_fails(run: RunRecord) -> None:
    reports = all_well()
    del reports[1]
    found = judged(run, reports)
    assert "rank-1: never reported a start" in found["ranks.placement"].evidence


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (report(3, code=7), "rank-3: ended with code 7"),
        (report(3, code=None, signal=11), "rank-3: ended by signal 11"),
        (report(3)[:1], "rank-3: reported no end"),
    ],
)
def test_a_rank_that_did_not_end_well_fails(run: RunRecord, lines: Report, said: str) -> None:
    found = judged(run, {**all_well(), 3: lines})
    assert found["ranks.ends"].verdict is Verdict.FAIL
    assert said in found["ranks.ends"].evidence
    assert found["ranks.placement"].verdict is Verdict.PASS


@pytest.mark.parametrize(
    "lines", [report(0)[:1], report(0, code=None, signal=15), report(0, code=None, signal=9)]
)
def test_a_task_that_serves_others_is_ended_by_the_run(run: RunRecord, lines: Report) -> None:
    reports = {**all_well(), 0: lines}
    assert judged(run, reports, serves=(0,))["ranks.ends"].verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (report(0, code=3), "rank-0: ended with code 3"),
        (report(0, code=None, signal=6), "rank-0: ended by signal 6"),
    ],
)
def test_a_task_that_serves_others_must_not_fail(run: RunRecord, lines: Report, said: str) -> None:
    found = judged(run, {**all_well(), 0: lines}, serves=(0,))["ranks.ends"]
    assert found.verdict is Verdict.FAIL and said in found.evidence


def test_a_run_that_was_never_placed_is_unknown(run: RunRecord) -> None:
    (finding,) = ranks.check(run)
    assert finding.verdict is Verdict.UNKNOWN


@given(st.lists(st.sampled_from(Verdict)))
def test_the_worst_verdict_wins_in_any_order(verdicts: list[Verdict]) -> None:
    expected = Verdict.PASS
    if Verdict.UNKNOWN in verdicts:
        expected = Verdict.UNKNOWN
    if Verdict.FAIL in verdicts:
        expected = Verdict.FAIL
    for order in itertools.islice(itertools.permutations(verdicts), 6):
        assert worst(order) is expected


def test_a_check_that_crashes_is_unknown_and_hides_no_other(run: RunRecord) -> None:
    def crashes(_: RunRecord) -> Iterator[Finding]:
        yield Finding("half", Verdict.PASS, "so far so good")
        raise RuntimeError("boom")

    def fine(_: RunRecord) -> list[Finding]:
        return [Finding("fine", Verdict.PASS, "fine")]

    findings = run_checks(run, {"crashes": crashes, "fine": fine})
    assert [(one.check, one.verdict) for one in findings][-2:] == [
        ("crashes", Verdict.UNKNOWN),
        ("fine", Verdict.PASS),
    ]
    assert "boom" in findings[-2].message
    stored = json.loads(Path(run.file(wire.VERDICTS)).read_text())
    assert [one["verdict"] for one in stored] == [one.verdict.value for one in findings]


def test_checks_can_be_repeated_on_a_stored_run(run: RunRecord) -> None:
    assert judged(run, all_well()) == {finding.check: finding for finding in ranks.check(run)}
