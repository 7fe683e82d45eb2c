"""``python -m benchmarks.virtual_gpu``: see ``benchmarks/README.md``."""

from __future__ import annotations

import argparse
import functools
import sys

from benchmarks.command import Part, parser, run_parts
from benchmarks.virtual_gpu.measuring import Node
from benchmarks.virtual_gpu.starting import imports, ledger
from benchmarks.virtual_gpu.training import MODELS, Effort, operators, steps


def main(words: list[str]) -> int:
    """Measure, print, write. Exit code 1: some target is not met."""
    asked = parser("benchmarks.virtual_gpu")
    asked.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    asked.add_argument("--patience", type=float, default=60.0, help="seconds, for a quiet host")
    asked.add_argument("--smoke", action="store_true", help="once, small: shows that it works")
    node = functools.cache(Node)
    parts: dict[str, Part] = {
        "steps": lambda bench, given: steps(node(bench), _models(given), _effort(given)),
        "operators": lambda bench, given: operators(node(bench), _effort(given)),
        "import": lambda bench, given: imports(node(bench), 2 * _pairs(given), _patience(given)),
        "ledger": lambda bench, given: ledger(node(bench)),
    }
    return run_parts(asked, words, parts)


def _models(given: argparse.Namespace) -> list[str]:
    return str(given.models).split(",")


def _pairs(given: argparse.Namespace) -> int:
    return 1 if given.smoke else int(given.pairs)


def _patience(given: argparse.Namespace) -> float:
    return 0.0 if given.smoke else float(given.patience)


def _effort(given: argparse.Namespace) -> Effort:
    return Effort(_pairs(given), _patience(given), given.smoke)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
