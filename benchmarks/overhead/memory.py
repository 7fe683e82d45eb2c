"""What a run costs in memory while its ranks do nothing: supervisor, agents, rank wrappers."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator

from benchmarks.overhead.jobs import Bench
from benchmarks.stats import Result, Target
from simgrid_ml.record.follow import wait_state
from simgrid_ml.record.run import RunRecord, RunState

__all__ = ["memory"]

_MIB = 2**20


def memory(
    bench: Bench, repetitions: int, sizes: tuple[int, ...] = (1, 16, 64)
) -> Iterator[Result]:
    """Look at every process of a run whose ranks sleep."""
    supervisors: dict[int, list[float]] = {}
    agents: dict[str, list[float]] = {"pss": [], "rss": [], "private": []}
    wrappers: list[float] = []
    for nodes in sizes:
        for _ in range(repetitions):
            record = bench.submit(None, command=("sleep", "600"), nodes=nodes)
            try:
                _until_all_sleep(record, nodes)
                found = _processes(record)
            finally:
                record.request_cancel()
                wait_state(record, 60)
                bench.wait_until_gone(record)
            supervisors.setdefault(nodes, []).append(found["supervisor"][0]["rss"] / _MIB)
            if nodes == max(sizes):
                for what, values in agents.items():
                    values.append(statistics.median(a[what] for a in found["agent"]) / _MIB)
                wrappers.append(statistics.median(a["pss"] for a in found["wrapper"]) / _MIB)
    for nodes, values in supervisors.items():
        yield Result(f"supervisor, {nodes} nodes, resident", "MiB", values, Target(60))
    smallest, largest = min(sizes), max(sizes)
    growth = [b - a for a, b in zip(supervisors[smallest], supervisors[largest], strict=True)]
    yield Result(f"supervisor, growth from {smallest} to {largest} nodes", "MiB", growth)
    yield Result("idle node: its agent, resident", "MiB", agents["rss"], Target(12))
    yield Result("idle node: its agent, proportional share", "MiB", agents["pss"], Target(12))
    yield Result("idle node: its agent, its own alone", "MiB", agents["private"])
    yield Result("rank wrapper, proportional share", "MiB", wrappers)


def _until_all_sleep(record: RunRecord, ranks: int) -> None:
    deadline = time.monotonic() + 60
    while sum(1 for lines in record.task_reports().values() if lines) < ranks:
        if time.monotonic() > deadline or record.state is RunState.FAILED:
            raise RuntimeError(f"{record.path}: {record.state.value} {record.error()}")
        time.sleep(0.05)
    time.sleep(1.0)  # start-up is over


def _processes(record: RunRecord) -> dict[str, list[dict[str, int]]]:
    found: dict[str, list[dict[str, int]]] = {"supervisor": [], "agent": [], "wrapper": []}
    run_dir = os.fsencode(record.path)
    socket = os.fsencode(record.file("control.sock"))
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as stream:
                words = stream.read().split(b"\0")
            if b"simgrid_ml.engine.supervisor" in words and run_dir in words:
                kind = "supervisor"
            elif any(socket in word for word in words):
                kind = "agent"
            elif run_dir in words and b"mpirun" not in words[0]:
                kind = "wrapper"
            else:
                continue
            found[kind].append(_usage(entry))
        except OSError:
            continue
    return found


def _usage(entry: str) -> dict[str, int]:
    usage = {"rss": 0, "pss": 0, "private": 0}
    with open(f"/proc/{entry}/smaps_rollup", encoding="ascii") as stream:
        for line in stream:
            name, _, rest = line.partition(":")
            if name in ("Rss", "Pss"):
                usage[name.lower()] += int(rest.split()[0]) * 1024
            elif name in ("Private_Clean", "Private_Dirty"):
                usage["private"] += int(rest.split()[0]) * 1024
    return usage
