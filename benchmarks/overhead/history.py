"""The run history: how fast a script may log, what survives a kill, how soon a reader sees it."""

from __future__ import annotations

import os
import re
import signal
import statistics
import struct
import time
from collections.abc import Iterator

from benchmarks.overhead.jobs import Bench, numbers
from benchmarks.stats import Result, Target
from simgrid_ml.record.follow import follow, wait_state

__all__ = ["follower", "logging_rate"]

_POINTS = 200_000
_LINES = 300
_TIME = re.compile(rb"[0-9]+\.[0-9]+\Z")  # the service ends logs with lines of its own
_LOG = "azureml-logs/70_driver_log_0.txt"


def logging_rate(bench: Bench, repetitions: int) -> Iterator[Result]:
    """``Run.log`` in a loop, and what is left of it after ``kill -9``."""
    rates, lost, kept = [], [], []
    for number in range(repetitions):
        counter = os.path.join(bench.folder, f"returned-{number}")
        ran = bench.on_nodes("log_rate.py", str(_POINTS), counter, nodes=1)
        rates.append(_POINTS / numbers(ran.lines)[0])
        assert ran.record is not None
        assert len(ran.record.metrics()) == _POINTS

        record = bench.submit("log_rate.py", "0", counter, nodes=1)
        while _returned(counter) < 20_000:
            time.sleep(0.01)
        os.kill(_logging_process(counter), signal.SIGKILL)
        wait_state(record, 60)
        returned, stored = _returned(counter), len(record.metrics())
        lost.append(float(max(0, returned - stored)))
        kept.append(float(stored))
        bench.wait_until_gone(record)
    yield Result("Run.log", "points/s", rates, Target(50_000, at_most=False), {"points": _POINTS})
    yield Result("points lost by kill -9", "", lost, Target(0), {"kept": kept})


def _returned(counter: str) -> int:
    try:
        with open(counter, "rb") as stream:
            return int(struct.unpack("<Q", stream.read(8))[0])
    except (FileNotFoundError, struct.error):
        return 0


def _logging_process(counter: str) -> int:
    """The rank itself, not what watches it."""
    wanted = os.fsencode(counter)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as stream:
                    words = stream.read().split(b"\0")
            except OSError:
                continue
            if wanted in words and any(word.endswith(b"log_rate.py") for word in words):
                return int(entry)
    raise RuntimeError("the logging process is gone")


def follower(bench: Bench, repetitions: int) -> Iterator[Result]:
    """From a rank's ``print`` to a reader of its log, in the median line of each run."""
    medians, worst = [], []
    for _ in range(repetitions):
        record = bench.submit("say_time.py", str(_LINES), nodes=1)
        late: list[float] = []
        rest = b""
        for _name, chunk in follow(record, names={_LOG}):
            now = time.time()
            *lines, rest = (rest + chunk).split(b"\n")
            late += [(now - float(line)) * 1e3 for line in lines if _TIME.match(line)]
        assert len(late) == _LINES, f"{len(late)} of {_LINES} lines arrived"
        bench.wait_until_gone(record)
        late.sort()
        medians.append(statistics.median(late))
        worst.append(late[int(0.99 * len(late))])
    yield Result("log line to follower, p50", "ms", medians, Target(5), {"lines": _LINES})
    yield Result("log line to follower, p99", "ms", worst, None, {"lines": _LINES})
