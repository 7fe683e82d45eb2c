"""A benchmark's values are taken while nobody else uses the cores, if that can be had."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed

from benchmarks import quiet


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What others take, measurement by measurement; before each, the host is quiet."""
    given: list[float] = []

    def foreign(measure: Callable[[], object]) -> tuple[float, object]:
        value = measure()
        return (0.0 if value is None else given.pop(0)), value

    monkeypatch.setattr(quiet, "_foreign", foreign)
    monkeypatch.setattr(quiet, "_LOOK_S", 0)
    return given


def numbered() -> Callable[[], int]:
    numbers: Iterator[int] = iter(range(1, 100))
    return lambda: next(numbers)


def test_a_disturbed_value_is_taken_again(shares: list[float]) -> None:
    shares += [0.5, 0.2, 0.01]
    assert quiet.undisturbed(numbered(), patience_s=60) == 3


def test_a_quiet_value_is_kept(shares: list[float]) -> None:
    shares += [0.01]
    assert quiet.undisturbed(numbered(), patience_s=60) == 1


def test_without_patience_the_first_counts(shares: list[float]) -> None:
    shares += [0.5]
    assert quiet.undisturbed(numbered(), patience_s=0) == 1


def test_a_host_that_stays_busy_is_not_waited_for_longer_than_patience_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quiet, "_foreign", lambda measure: (0.5, measure()))
    monkeypatch.setattr(quiet, "_LOOK_S", 0.01)
    assert not quiet.becomes_quiet(patience_s=0.05)
    monkeypatch.setattr(quiet, "_foreign", lambda measure: (0.01, measure()))
    assert quiet.becomes_quiet(patience_s=0)
