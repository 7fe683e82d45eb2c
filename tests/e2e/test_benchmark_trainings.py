"""The benchmarks' trainings carry over their links what the formulas say, neither more nor less."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed

from benchmarks.overhead.jobs import Bench
from benchmarks.parameter_server.training import Trainer, Way
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left

RATE = 25e6
SMALL = ("--layers", "4", "--warm-up", "2", "--steps", "3")


@pytest.mark.usefixtures("shaped_links")
@pytest.mark.parametrize("way", [Way(2), Way(2, 2)], ids=str)
def test_a_training_sends_what_the_formula_says_and_its_loss_goes_down(
    tmp_path: Path, tensorflow: EnvironmentSpec, way: Way
) -> None:
    with nothing_left(str(tmp_path)):
        trainer = Trainer(Bench(str(tmp_path), tensorflow), RATE, words=SMALL, patience_s=0)
        trained = trainer(way)
    # On top of the formula come headers, 52 bytes of a full packet of 1500, and acknowledgements.
    assert 1.03 < trained.sent / way.bytes_per_step(trained.size) < 1.15
    assert all(after < before for before, after in trained.losses)
    assert trained.largest_share < (1 / way.servers + 0.1 if way.servers else 1.1)
