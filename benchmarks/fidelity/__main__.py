"""``python -m benchmarks.fidelity``: how often a saturated host is flagged, and a quiet one is.

The two kinds of run take turns, so that a host that is never quiet shows in the quiet half.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.overhead.jobs import Bench
from benchmarks.report import describe_host
from benchmarks.stats import wilson_interval
from simgrid_ml import __version__, wire
from simgrid_ml.spec.job import EnvironmentSpec

DEFAULT = EnvironmentSpec(framework="pytorch", framework_version="1.4", conda=("scikit-learn",))
_SETTLE_S = 0.5
_QUIET_AT_MOST = 0.02


class Judged(NamedTuple):
    """One run: whether the host was saturated, its stamp, and why."""

    saturated: bool
    stamp: str
    why: str

    @property
    def is_flagged(self) -> bool:
        return self.stamp != "valid"


def main(words: list[str]) -> int:
    """Run, count, print, write. Exit code 1: a rate misses its target for certain."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity")
    parser.add_argument("--runs", type=int, default=50, help="runs of either kind")
    parser.add_argument("--seconds", type=float, default=1.0, help="that each rank runs")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--interpreter", help="a Python with Open MPI and mpi4py")
    parser.add_argument("--out", help="JSON file for the results")
    given = parser.parse_args(words)
    host = describe_host()
    begun = time.monotonic()
    spec = EnvironmentSpec(interpreter=given.interpreter) if given.interpreter else DEFAULT
    judged: list[Judged] = []
    with tempfile.TemporaryDirectory(prefix="simgrid-ml-bench-") as folder:
        bench = Bench(folder, spec)
        for number in range(given.runs):
            for saturated in (False, True) if number % 2 == 0 else (True, False):
                judged.append(_run(bench, saturated, given.nodes, given.seconds))
            if (number + 1) % 10 == 0:
                print(f"  {number + 1} of {given.runs} pairs", flush=True)
    took_s = time.monotonic() - begun
    rates = {kind: _rate(judged, kind == "saturated") for kind in ("saturated", "quiet")}
    for kind, rate in rates.items():
        low, high = rate["interval"]
        print(
            f"{kind}: flagged in {rate['flagged']} of {rate['runs']} runs "
            f"(95 % interval {low:.1%} to {high:.1%}); target {rate['target']}: {rate['verdict']}"
        )
        for why, count in rate["reasons"].items():
            print(f"    {count} x {why}")
    print(f"took {took_s:.0f} s")
    if given.out:
        document = {
            "taken": time.strftime("%Y-%m-%d", time.gmtime()),
            "host": host,
            "software": {"simgrid_ml": __version__},
            "job": {"nodes": given.nodes, "rank_s": given.seconds},
            "took_s": round(took_s, 1),
            "rates": rates,
        }
        os.makedirs(os.path.dirname(os.path.abspath(given.out)), exist_ok=True)
        with open(given.out, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=1)
            stream.write("\n")
    return int(any(rate["verdict"] == "not met" for rate in rates.values()))


def _run(bench: Bench, saturated: bool, nodes: int, seconds: float) -> Judged:
    with _busy() if saturated else contextlib.nullcontext():
        time.sleep(_SETTLE_S)  # what the run before has left to do
        ran = bench.on_nodes("poll.py", str(seconds), nodes=nodes)
    assert ran.record is not None
    found = json.loads(_text(ran.record.file(wire.VERDICTS)))
    (told,) = (one for one in found if one.get("stamp"))
    return Judged(saturated, told["stamp"], told["message"])


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    spin = [sys.executable, "-S", "-c", "while True: pass"]
    hogs = [subprocess.Popen(spin) for _ in range(len(os.sched_getaffinity(0)))]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
        for hog in hogs:
            hog.wait()


def _rate(judged: list[Judged], saturated: bool) -> dict[str, Any]:
    runs = [one for one in judged if one.saturated is saturated]
    flagged = [one for one in runs if one.is_flagged]
    low, high = wilson_interval(len(flagged), len(runs))
    if saturated:
        met, missed = len(flagged) == len(runs), len(flagged) < len(runs)
    else:
        met, missed = high <= _QUIET_AT_MOST, low > _QUIET_AT_MOST
    return {
        "runs": len(runs),
        "flagged": len(flagged),
        "share": len(flagged) / len(runs),
        "interval": [low, high],
        "target": "all" if saturated else f"at most {_QUIET_AT_MOST:.0%}",
        "verdict": "met" if met else "not met" if missed else "undecided",
        "stamps": dict(Counter(one.stamp for one in runs)),
        "reasons": dict(Counter(f"{one.stamp}: {one.why}" for one in flagged).most_common(10)),
    }


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
