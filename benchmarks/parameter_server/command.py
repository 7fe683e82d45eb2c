"""What both comparisons of parameter servers are asked with."""

from __future__ import annotations

import argparse

from benchmarks import command
from benchmarks.overhead.jobs import Bench
from benchmarks.parameter_server.training import Trainer
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.units import parse_rate

__all__ = ["ENVIRONMENT", "parser", "servers", "trainer", "with_smoke"]

ENVIRONMENT = EnvironmentSpec(
    framework="tensorflow",
    framework_version="2.3",
    conda=("scikit-learn",),
    pip=("tf2onnx", "onnxruntime"),
)
"""That of the tests, so that one build serves both."""

_ONCE = ("--pairs", "1", "--rounds", "1", "--patience", "0")
_SMALL = ("--layers", "4", "--warm-up", "2", "--steps", "3")


def parser(name: str) -> argparse.ArgumentParser:
    """Options of the trainings."""
    made = command.parser(name)
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--servers", default="1,2", help="comma-separated numbers of servers")
    made.add_argument("--rate", default="200Mbit", help="of each node's link")
    made.add_argument("--backend", default="process", choices=("process", "docker"))
    made.add_argument("--rounds", type=int, default=5, help="trainings of every way")
    made.add_argument("--patience", type=float, default=60.0, help="seconds, for a quiet host")
    made.add_argument("--smoke", action="store_true", help="once, small: shows that it works")
    return made


def servers(given: argparse.Namespace) -> list[int]:
    """The numbers of servers asked for."""
    return [int(number) for number in given.servers.split(",")]


def trainer(bench: Bench, given: argparse.Namespace) -> Trainer:
    """As asked for on the command line."""
    words = _SMALL if given.smoke else ()
    return Trainer(bench, parse_rate(given.rate), given.backend, words, given.patience)


def with_smoke(words: list[str]) -> list[str]:
    """What ``--smoke`` stands for besides small trainings.

    >>> with_smoke(["--only", "start"])
    ['--only', 'start']
    >>> with_smoke(["--smoke"])
    ['--smoke', '--pairs', '1', '--rounds', '1', '--patience', '0']
    """
    return [*words, *_ONCE] if "--smoke" in words else words
