"""``python -m benchmarks.containers``: see ``benchmarks/README.md``."""

from __future__ import annotations

import sys

from benchmarks.command import parser, run_parts
from benchmarks.containers import collectives, memory, starting


def main(words: list[str]) -> int:
    """Measure, print, write. Exit code 1: some target is not met."""
    return run_parts(
        parser("benchmarks.containers"),
        words,
        {
            "cold": lambda bench, given: starting.cold(bench, given.pairs),
            "warm": lambda bench, given: starting.warm(bench, given.pairs),
            "growth": lambda bench, given: starting.growth(bench, max(3, given.pairs // 3)),
            "allreduce": lambda bench, given: collectives.allreduce(bench, given.pairs),
            "memory": lambda bench, given: memory.memory(bench, max(3, given.pairs // 3)),
        },
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
