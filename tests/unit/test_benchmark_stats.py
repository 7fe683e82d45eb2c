"""How the benchmarks take and judge figures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed

from benchmarks.report import table
from benchmarks.stats import (
    Interval,
    Result,
    Target,
    Verdict,
    bus_bandwidth,
    in_turns,
    interleaved,
    judge,
    median_interval,
    percentile,
)

figures = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(st.integers(0, 12))
def test_pairs_are_taken_in_the_order_abba(pairs: int) -> None:
    order: list[str] = []
    taken = interleaved(lambda: order.append("A"), lambda: order.append("B"), pairs)
    assert "".join(order) == ("ABBA" * pairs)[: 2 * pairs]
    assert len(taken) == pairs


def test_a_pair_holds_first_and_second_in_whatever_order_they_were_taken() -> None:
    assert interleaved(lambda: "a", lambda: "b", 3) == [("a", "b")] * 3


def test_rounds_go_there_and_back_and_keep_the_order_of_what_is_compared() -> None:
    order: list[str] = []

    def measure(name: str) -> str:
        order.append(name)
        return name

    taken = in_turns([lambda: measure("A"), lambda: measure("B"), lambda: measure("C")], 3)
    assert "".join(order) == "ABCCBAABC"
    assert taken == [["A", "B", "C"]] * 3


@given(figures)
def test_the_median_lies_in_its_interval_and_that_among_the_values(values: list[float]) -> None:
    interval = median_interval(values)
    assert min(values) <= interval.low <= interval.median <= interval.high <= max(values)


@given(figures)
def test_the_same_values_give_the_same_interval(values: list[float]) -> None:
    assert median_interval(values) == median_interval(list(values))


def test_the_interval_narrows_with_more_values() -> None:
    few = median_interval([float(n % 10) for n in range(10)])
    many = median_interval([float(n % 10) for n in range(300)])
    assert many.high - many.low < few.high - few.low


def test_one_outlier_moves_neither_median_nor_verdict() -> None:
    values = [0.1] * 10 + [60.0]
    assert median_interval(values).median == 0.1
    assert judge(median_interval(values), Target(0.3)) is Verdict.MET


def test_no_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        median_interval([])


@pytest.mark.parametrize(
    ("low", "high", "at_most", "verdict"),
    [
        (1, 2, True, Verdict.MET),
        (1, 3, True, Verdict.UNDECIDED),
        (2.1, 3, True, Verdict.NOT_MET),
        (2, 3, False, Verdict.MET),
        (1, 3, False, Verdict.UNDECIDED),
        (1, 1.9, False, Verdict.NOT_MET),
    ],
)
def test_a_target_is_met_by_the_whole_interval_or_not_at_all(
    low: float, high: float, at_most: bool, verdict: Verdict
) -> None:
    assert judge(Interval((low + high) / 2, low, high), Target(2, at_most)) is verdict


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]


def test_bus_bandwidth_counts_what_crosses_the_slowest_link() -> None:
    assert bus_bandwidth(10**9, 1.0, 2) == 1.0
    assert bus_bandwidth(10**9, 0.5, 4) == 3.0
    assert bus_bandwidth(10**9, 1.0, 1) == 0.0


def test_the_table_says_what_was_measured_and_whether_it_is_enough() -> None:
    text = table(
        [
            Result("start", "s", [0.1, 0.2, 0.1], Target(0.3)),
            Result("rate", "points/s", [10.0], Target(50_000, at_most=False)),
            Result("context", "s", [1.0]),
        ]
    )
    start, rate, context = text.splitlines()[1:]
    assert start.split()[-3:] == ["<=", "0.3", "met"]
    assert rate.split()[-4:] == [">=", "50000", "not", "met"]
    assert context.split()[-1] == "1"


def test_a_result_keeps_its_raw_values() -> None:
    plain = Result("start", "s", [0.3, 0.1, 0.2], Target(0.25), {"nodes": 2}).to_json()
    assert plain["values"] == [0.3, 0.1, 0.2]
    assert (plain["n"], plain["median"], plain["verdict"]) == (3, 0.2, "undecided")
    assert plain["context"] == {"nodes": 2}


def test_the_table_says_how_many_values_a_noisy_host_gave() -> None:
    quiet, noisy = (
        Result("x", "s", [1.0, 2.0], context={"values_on_a_noisy_host": count}) for count in (0, 1)
    )
    first, second = table([quiet, noisy]).splitlines()[1:]
    assert "noisy" not in first
    assert second.split()[-3:] == ["2,", "1", "noisy"]
