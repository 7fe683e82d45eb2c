"""Allreduce on virtual nodes against the same transport without, and what each setting does."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.overhead.jobs import Bench, Ran
from benchmarks.stats import Result, Target, bus_bandwidth, interleaved
from simgrid_ml import wire

__all__ = ["medians", "settings", "size_text", "transports"]

_SIZES = (8, 1024, 65536, 2**20, 2**22, 2**24)
_BUDGET_S = "0.4"
_ONE_OFF = {
    "as set": {},
    "ranks bound to cores": {"SIMGRID_ML_MCA_bind_to": "core"},
    "no yield when idle": {"SIMGRID_ML_MCA_mpi_yield_when_idle": "0"},
    "Open MPI's own transports": {"SIMGRID_ML_MCA_btl": "", "SIMGRID_ML_MCA_pml": ""},
}


def transports(bench: Bench, pairs: int) -> Iterator[Result]:
    """Two ranks: inside one node over shared memory, on two nodes over TCP; and both bare."""
    common = {"pml": "ob1", "mpi_yield_when_idle": "0"}
    shared = {**common, "btl": "self,sm"}
    tcp = {**common, "btl": "self,tcp", "btl_tcp_if_include": _interface(bench)}
    sizes = [str(size) for size in _SIZES]
    for what, nodes, per_node, bare in (("sm", 1, 2, shared), ("tcp", 2, 1, tcp)):

        def ours(nodes: int = nodes, per_node: int = per_node) -> dict[int, float]:
            return medians(
                bench.on_nodes("allreduce.py", _BUDGET_S, *sizes, nodes=nodes, per_node=per_node)
            )

        def theirs(bare: dict[str, str] = bare) -> dict[int, float]:
            return medians(bench.bare("allreduce.py", _BUDGET_S, *sizes, ranks=2, settings=bare))

        taken = interleaved(ours, theirs, pairs)
        for size in _SIZES:
            ratios = [b[size] / a[size] for a, b in taken]
            yield Result(
                f"allreduce {what} {size_text(size)}: bus bandwidth, share of bare",
                "",
                ratios,
                Target(0.99, at_most=False),
                {
                    "ours_us": statistics.median(a[size] for a, _ in taken) * 1e6,
                    "bare_us": statistics.median(b[size] for _, b in taken) * 1e6,
                    "ours_busbw_GBps": bus_bandwidth(
                        size, statistics.median(a[size] for a, _ in taken), 2
                    ),
                },
            )


def settings(bench: Bench, repetitions: int) -> Iterator[Result]:
    """8 B allreduce on four nodes, and with each of the three settings taken away, in turns."""
    times: dict[str, list[float]] = {what: [] for what in _ONE_OFF}
    inits: dict[str, list[float]] = {what: [] for what in _ONE_OFF}
    for number in range(repetitions):
        order = list(_ONE_OFF) if number % 2 == 0 else list(reversed(_ONE_OFF))
        for what in order:
            ran = bench.on_nodes("allreduce.py", "2.0", "8", nodes=4, variables=_ONE_OFF[what])
            times[what].append(medians(ran)[8] * 1e6)
            inits[what].append(_said(ran)["init_s"])
    for what in _ONE_OFF:
        target = Target(60) if what == "as set" else None
        yield Result(f"allreduce 8 B, 4 nodes: {what}", "us", times[what], target)
    for what in _ONE_OFF:
        yield Result(f"MPI_Init, 4 nodes: {what}", "s", inits[what])


def _interface(bench: Bench) -> str:
    """What reaches the other nodes, asked of a run."""
    ran = bench.on_nodes(None, command=("true",), nodes=2)
    assert ran.record is not None
    chosen: str = ran.record.document(wire.LAUNCH)["plan"]["settings"]["btl_tcp_if_include"]
    return chosen


def _said(ran: Ran) -> Any:
    return json.loads(next(line for line in ran.lines if line.startswith("{")))


def medians(ran: Ran) -> dict[int, float]:
    """Seconds by size in bytes, of a run of ``programs/allreduce.py``."""
    return {int(size): statistics.median(times) for size, times in _said(ran)["times_s"].items()}


def size_text(size: int) -> str:
    """``1 MiB`` of 2**20."""
    for unit, scale in (("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size // scale} {unit}"
    return f"{size} B"
