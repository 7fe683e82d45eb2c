"""``python -m benchmarks.parameter_server``: see ``benchmarks/README.md``."""

from __future__ import annotations

import sys

from benchmarks.command import run_parts
from benchmarks.parameter_server.command import (
    ENVIRONMENT,
    parser,
    servers,
    trainer,
    with_smoke,
)
from benchmarks.parameter_server.scaling import scaling
from benchmarks.parameter_server.starting import start


def main(words: list[str]) -> int:
    """Measure, print, write. Exit code 1: some target is not met."""
    return run_parts(
        parser("benchmarks.parameter_server"),
        with_smoke(words),
        {
            "start": lambda bench, given: start(bench, given.pairs, given.patience),
            "scaling": lambda bench, given: scaling(
                trainer(bench, given), given.workers, servers(given), given.rounds
            ),
        },
        ENVIRONMENT,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
