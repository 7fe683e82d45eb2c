"""What more parameter servers bring where their links are what training waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks.parameter_server.training import Trained, Trainer, Way, results
from benchmarks.stats import Result, in_turns

__all__ = ["compare", "scaling"]


def scaling(
    trainer: Trainer, workers: int, servers: Sequence[int], rounds: int
) -> Iterator[Result]:
    """Asynchronous training, which is what scripts of the time did, on 1, 2, … servers."""
    ways = [Way(workers, count, synchronous=False) for count in servers]
    return compare(trainer, ways, rounds)


def compare(trainer: Trainer, ways: Sequence[Way], rounds: int) -> Iterator[Result]:
    """Each way in turns; and the steps/s of each over those of the first, round by round."""

    def of(way: Way) -> Callable[[], Trained]:
        def train() -> Trained:
            trained = trainer(way)
            print(f"  {way}: {trained.steps_per_s:.3g} steps/s", flush=True)
            return trained

        return train

    taken = in_turns([of(way) for way in ways], rounds)
    for number, way in enumerate(ways):
        yield from results(trainer, way, [one[number] for one in taken])
    for number, way in enumerate(ways[1:], start=1):
        expected = [trainer.expected(ways[one], taken[0][one]) for one in (number, 0)]
        yield Result(
            f"{way}: steps/s over those of {ways[0]}",
            "",
            [one[number].steps_per_s / one[0].steps_per_s for one in taken],
            context={"by_the_links_alone": expected[0] / expected[1]},
        )
