"""``python -m benchmarks.overhead``: see ``benchmarks/README.md``."""

from __future__ import annotations

import sys

from benchmarks.command import parser, run_parts
from benchmarks.overhead import collectives, history, memory, starting


def main(words: list[str]) -> int:
    """Measure, print, write. Exit code 1: some target is not met."""
    asked = parser("benchmarks.overhead")
    asked.add_argument("--launches", type=int, default=50, help="launches to look for hangs")
    asked.add_argument("--nodes", default="2,16,64", help="cluster sizes of `first-rank`")
    return run_parts(
        asked,
        words,
        {
            "imports": lambda bench, given: starting.imports(2 * given.pairs),
            "first-rank": lambda bench, given: starting.first_rank(
                bench, given.pairs, tuple(int(size) for size in given.nodes.split(","))
            ),
            "mpi-init": lambda bench, given: starting.mpi_init(bench, given.pairs),
            "transports": lambda bench, given: collectives.transports(bench, given.pairs),
            "settings": lambda bench, given: collectives.settings(bench, given.pairs),
            "log": lambda bench, given: history.logging_rate(bench, max(3, given.pairs // 2)),
            "follow": lambda bench, given: history.follower(bench, max(3, given.pairs // 2)),
            "memory": lambda bench, given: memory.memory(bench, max(3, given.pairs // 2)),
            "launches": lambda bench, given: starting.launches(bench, given.launches),
        },
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
