"""``python -m benchmarks.gpu``: all experiments that fit into ten minutes, one program a call.

Every program prints lines of JSON; at the end each prediction stands beside its outcome. Changes no
setting of the card.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.experiment import emit, why_no_gpu
from benchmarks.gpu.predictions import PREDICTIONS, outcome

__all__ = ["CALLS", "main", "table"]

_BUDGET_S = 570.0

CALLS: tuple[tuple[str, str], ...] = (
    ("0", "inventory"),
    ("A", "memory_cap none"),
    ("A", "memory_cap api"),
    ("A", "memory_cap conf"),
    ("B", "ranks --n 2 --backend gloo"),
    ("B", "ranks --n 4 --backend gloo"),
    ("B", "ranks --n 2 --identity none --timeout 40"),
    ("B", "ranks --n 2 --identity rank"),
    ("B", "ranks --n 4 --identity rank"),
    ("B", "ranks --n 2 --identity hostname"),
    ("G", "two_parts"),
    ("I", "memory_fidelity"),
    ("F", "horovod_race"),
    ("F", "horovod_race --staged"),
    ("J", "faults"),
    ("C", "tenants --n 1"),
    ("C", "tenants --n 2"),
    ("C", "tenants --n 4"),
    ("H", "cuda_build"),
    ("E", "new_nccl --n 2"),
    ("A", "memory_cap mps"),
    ("A", "memory_cap mps-badlist"),
    ("D", "tenants --n 1 --mps"),
    ("D", "tenants --n 1 --mps 25"),
    ("D", "tenants --n 4 --mps 25"),
    ("D", "ranks --n 2 --identity rank --mps"),
    ("J", "faults --mps"),
)
"""Experiment and program, the ones that most relies on first."""


def main(words: Sequence[str]) -> int:
    """Run them. Exit code 1: a prediction is refuted; 2: there is no GPU."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    asked.add_argument("--only", default="", help="comma-separated letters; default: all")
    asked.add_argument("--seconds", type=float, default=_BUDGET_S, help="for all together")
    asked.add_argument("--out", help="file for the lines of JSON")
    given = asked.parse_args(words)
    wanted = set(filter(None, given.only.split(",")))
    unknown = wanted - {letter for letter, _ in CALLS}
    if unknown:
        asked.error(f"no experiment {', '.join(sorted(unknown))}")
    why = why_no_gpu()
    if why:
        sys.stderr.write(f"benchmarks.gpu needs an NVIDIA GPU: {why}\n")
        return 2
    deadline = time.monotonic() + given.seconds
    records: list[dict[str, Any]] = []
    for letter, program in CALLS:
        if not wanted or letter in wanted:
            records += _run(letter, program, deadline - time.monotonic())
    if given.out:
        with open(given.out, "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record) + "\n" for record in records)
    print(table(records))
    return int(any(outcome(one, records) == "refuted" for one in PREDICTIONS))


def _run(letter: str, program: str, left_s: float) -> list[dict[str, Any]]:
    """The records of one call."""
    name, *rest = program.split()
    if left_s < 20:
        emit(letter, program=program, skipped="no time is left")
        return [{"experiment": letter, "program": program, "skipped": "no time is left"}]
    argv = [sys.executable, "-m", f"benchmarks.gpu.{name}", *rest]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=min(left_s, 150))
        lines, failed = done.stdout.splitlines(), done.stderr[-300:] if done.returncode else ""
    except subprocess.TimeoutExpired as late:
        told = late.stdout or b""
        lines = (told.decode() if isinstance(told, bytes) else told).splitlines()
        failed = f"not over after {late.timeout:.0f} s"
    found = [json.loads(line) for line in lines if line.startswith("{")]
    records = [{**one, "program": program} for one in found]
    if failed:
        records.append({"experiment": letter, "program": program, "skipped": failed})
    for record in records:
        print(json.dumps(record), flush=True)
    return records


def table(records: Sequence[dict[str, Any]]) -> str:
    """Every prediction and its outcome, as rows of Markdown."""
    rows = ["| | prediction | what relies on it | outcome |", "|---|---|---|---|"]
    for one in PREDICTIONS:
        rows.append(f"| {one.experiment} | {one.text} | {one.relies} | {outcome(one, records)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
