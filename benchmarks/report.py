"""Results as a table for people and a JSON file for later; what machine they come from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.stats import Result

__all__ = ["describe_host", "table", "write"]


def describe_host() -> dict[str, Any]:
    """The machine in general terms: what the figures depend on, nothing that names it."""
    uname = os.uname()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": ".".join(uname.release.split(".")[:2]),
        "machine": uname.machine,
        "processor": _processor(),
        "root": os.geteuid() == 0,
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def table(results: Sequence[Result]) -> str:
    """One line per result: measured, interval, how many values and how many of them on a noisy
    host, target, verdict."""
    rows = [("", "median", "95 % interval", "n", "target", "verdict")]
    for result in results:
        interval = result.interval
        noisy = result.context.get("values_on_a_noisy_host")
        rows.append(
            (
                result.name,
                f"{interval.median:.4g} {result.unit}",
                f"{interval.low:.4g} … {interval.high:.4g}",
                str(len(result.values)) + (f", {noisy} noisy" if noisy else ""),
                str(result.target or ""),
                result.verdict.value if result.verdict else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def write(
    path: str, host: Mapping[str, Any], software: Mapping[str, Any], results: Sequence[Result]
) -> None:
    """The JSON file of one run of a benchmark."""
    document = {
        "taken": time.strftime("%Y-%m-%d", time.gmtime()),
        "host": dict(host),
        "software": dict(software),
        "results": [result.to_json() for result in results],
    }
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=1)
        stream.write("\n")
