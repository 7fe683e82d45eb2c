"""``python -m benchmarks.allreduce_vs_ps``: see ``benchmarks/README.md``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from benchmarks.command import run_parts
from benchmarks.overhead.jobs import Bench
from benchmarks.parameter_server.command import (
    ENVIRONMENT,
    parser,
    servers,
    trainer,
    with_smoke,
)
from benchmarks.parameter_server.scaling import compare
from benchmarks.parameter_server.training import Way
from benchmarks.stats import Result


def main(words: list[str]) -> int:
    """Measure, print, write. Exit code 1: some target is not met."""
    asked = parser("benchmarks.allreduce_vs_ps")
    return run_parts(asked, with_smoke(words), {"synchronous": _synchronous}, ENVIRONMENT)


def _synchronous(bench: Bench, given: argparse.Namespace) -> Iterator[Result]:
    """Every way averages the gradients of all workers before it takes a step."""
    ways = [Way(given.workers), *(Way(given.workers, count) for count in servers(given))]
    return compare(trainer(bench, given), ways, given.rounds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
