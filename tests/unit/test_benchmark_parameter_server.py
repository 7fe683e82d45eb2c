"""What trainings over links must come to, and the start of a job measured once for real."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed

from benchmarks.parameter_server.__main__ import main
from benchmarks.parameter_server.training import Way
from simgrid_ml.testing.leaks import nothing_left


@pytest.mark.parametrize(
    ("way", "sent"),
    [
        (Way(2), 2.0),  # either sends a half, then the other half of the sum
        (Way(4), 6.0),
        (Way(4, 1), 8.0),
        (Way(4, 3), 8.0),  # more servers share it
        (Way(4, 1, synchronous=False), 8.0),
    ],
)
def test_what_a_step_must_send_grows_with_the_workers_not_with_the_servers(
    way: Way, sent: float
) -> None:
    assert way.bytes_per_step(1.0) == sent


@pytest.mark.parametrize(
    ("way", "share", "seconds"),
    [
        (Way(4), 1, 1.5),
        (Way(4, 1), 1, 8),
        (Way(4, 2), 0.5, 4),
        (Way(4, 2), 0.75, 6),  # the fuller server decides
        (Way(4, 8), 0.125, 2),  # more servers than workers: the workers' own links decide
        (Way(4, 1, synchronous=False), 1, 4),
        (Way(4, 4, synchronous=False), 0.25, 2),
        (Way(1), 1, 0),
    ],
)
def test_a_step_takes_as_long_as_the_busiest_link(way: Way, share: float, seconds: float) -> None:
    assert way.seconds_per_step(100.0, share, 100.0) == seconds


def test_the_start_of_a_job_is_measured_against_the_same_program_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / "results.json"
    words = ["--smoke", "--only", "start", "--interpreter", sys.executable, "--out", str(out)]
    with nothing_left(str(tmp_path)):
        assert main(words) in {0, 1}  # the target is for quiet hosts
    more, ours, by_hand = json.loads(out.read_text())["results"]
    assert ours["values"][0] > 0 and by_hand["values"][0] > 0
    assert more["values"] == [ours["values"][0] - by_hand["values"][0]]
    assert "by hand" in capsys.readouterr().out
