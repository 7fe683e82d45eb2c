"""``python -m benchmarks.links``: see ``benchmarks/README.md``."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from benchmarks.links.measuring import WIRE_SHARE, carry, messages
from benchmarks.quiet import undisturbed
from benchmarks.report import describe_host, table, write
from benchmarks.stats import Result, Target, Verdict
from simgrid_ml import __version__
from simgrid_ml.native import PROGRAMS_VARIABLE
from simgrid_ml.network.relay import relay_program
from simgrid_ml.spec.links import Link

T = TypeVar("T")

_MBIT = 125e3
Take = Callable[[Callable[[], Any]], list[Any]]
_RATES = {"c": (10, 100, 1000, 2000, 5000), "python": (10, 100, 500, 1000)}


def main(words: list[str]) -> int:
    """Measure, print, write. Exit code 1: some target is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links")
    parser.add_argument("--only", default="", help="comma-separated parts; default: all")
    parser.add_argument("--programs", default="c,python")
    parser.add_argument("--repetitions", type=int, default=5, help="relays for each figure")
    parser.add_argument("--seconds", type=float, default=3.0, help="of iperf3, for each rate")
    parser.add_argument(
        "--patience", type=float, default=20.0, help="seconds to wait for a quiet host, each value"
    )
    parser.add_argument("--out", help="JSON file for the results")
    given = parser.parse_args(words)

    def take(measure: Callable[[], T]) -> list[T]:
        return [undisturbed(measure, given.patience) for _ in range(given.repetitions)]

    host = describe_host()
    results: list[Result] = []
    for program in given.programs.split(","):
        os.environ[PROGRAMS_VARIABLE] = program
        if relay_program()[0] != program:
            parser.error("there is no C compiler: --programs python")
        parts: dict[str, Callable[[], Iterable[Result]]] = {
            "rates": lambda p=program: rates(p, take, given.seconds),
            "unlimited": lambda p=program: unlimited(p, take, given.seconds),
            "delays": lambda p=program: delays(p, take),
            "messages": lambda p=program: first_messages(p, take),
        }
        wanted = given.only.split(",") if given.only else list(parts)
        unknown = set(wanted) - set(parts)
        if unknown:
            parser.error(f"no part {', '.join(unknown)}; there are: {', '.join(parts)}")
        for name in wanted:
            print(f"-- {name}, {program}", flush=True)
            found = list(parts[name]())
            print(table(found), flush=True)
            results += found
    software = {"simgrid_ml": __version__, "driver_python": platform.python_version()}
    if given.out:
        write(given.out, host, software, results)
    return int(any(result.verdict is Verdict.NOT_MET for result in results))


def rates(program: str, take: Take, seconds: float) -> Iterator[Result]:
    """TCP over a link of 1 ms there and back: how far from what the wire allows."""
    for rate in _RATES[program]:
        link = Link(rate_bytes_per_s=rate * _MBIT, delay_s=0.5e-3)
        seen = take(lambda link=link: carry(link, seconds))
        errors = [abs(each.goodput / (rate * 1e6 * WIRE_SHARE) - 1) * 100 for each in seen]
        yield Result(
            f"{program}: rate error at {rate} Mbit/s",
            "%",
            errors,
            Target(0.5 if rate <= 1000 else 1.0),
            {
                "goodput_bits_per_s": [each.goodput for each in seen],
                "relay_cores": statistics.median(each.relay_cores for each in seen),
                "retransmits": [each.retransmits for each in seen],
            },
        )


def unlimited(program: str, take: Take, seconds: float) -> Iterator[Result]:
    """TCP over a link without a rate: what the relay can carry at all."""
    for delay_s in (0.0, 0.1e-3):
        seen = take(lambda d=delay_s: carry(Link(delay_s=d), seconds))
        yield Result(
            f"{program}: unlimited, {delay_s * 1e3:g} ms",
            "Gbit/s",
            [each.goodput / 1e9 for each in seen],
            Target(8.0 if program == "c" else 1.0, at_most=False),
            {"relay_cores": statistics.median(each.relay_cores for each in seen)},
        )


def delays(program: str, take: Take) -> Iterator[Result]:
    """16 B, one way, every 20 ms: the median of 50 of one relay is one value."""
    for delay_s, share in ((0.0, None), (0.1e-3, None), (1e-3, 5.0), (5e-3, 2.0), (20e-3, 2.0)):
        seen = take(lambda d=delay_s: messages(Link(delay_s=d), 16, 50, 0.02))
        medians = [statistics.median(each.times_s) for each in seen]
        context = {"medians_s": medians, "offsets_s": [each.offset_s for each in seen]}
        if share is None:
            late = [(median - delay_s) * 1e6 for median in medians]
            yield Result(f"{program}: later than {delay_s * 1e3:g} ms", "us", late, None, context)
        else:
            errors = [abs(median / delay_s - 1) * 100 for median in medians]
            name = f"{program}: delay error at {delay_s * 1e3:g} ms"
            yield Result(name, "%", errors, Target(share), context)


def first_messages(program: str, take: Take) -> Iterator[Result]:
    """16 KiB after a second of silence: against its size by the rate, and the delay."""
    size = 16384
    for rate, delay_s in ((10, 0.0), (100, 0.0), (100, 1e-3), (1000, 1e-3), (1000, 0.0)):
        link = Link(rate_bytes_per_s=rate * _MBIT, delay_s=delay_s)
        seen = take(lambda link=link: messages(link, size, 5, 1.0))
        due = size / (rate * _MBIT) + delay_s
        medians = [statistics.median(each.times_s) for each in seen]
        yield Result(
            f"{program}: 16 KiB after 1 s, {rate} Mbit/s, {delay_s * 1e3:g} ms",
            "%",
            [abs(median / due - 1) * 100 for median in medians],
            Target(10.0),
            {"medians_s": medians, "due_s": due, "with_headers": "4.8 % of the size"},
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
