"""Allreduce over containers against the host's loopback, the same transport on both sides."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.overhead.collectives import medians, size_text
from benchmarks.overhead.jobs import Bench
from benchmarks.stats import Result, Target, bus_bandwidth, interleaved

__all__ = ["allreduce"]

_SIZES = (8, 65536, 2**20, 2**22, 2**24)
_BUDGET_S = "0.5"
_TCP = {"pml": "ob1", "mpi_yield_when_idle": "0", "btl": "self,tcp", "btl_tcp_if_include": "lo"}


def allreduce(bench: Bench, pairs: int) -> Iterator[Result]:
    """Two ranks, each on a node of its own, against two on the host over its loopback."""
    sizes = [str(size) for size in _SIZES]

    def ours() -> dict[int, float]:
        where = {"backend": "docker"}
        return medians(bench.on_nodes("allreduce.py", _BUDGET_S, *sizes, nodes=2, cluster=where))

    def theirs() -> dict[int, float]:
        return medians(bench.bare("allreduce.py", _BUDGET_S, *sizes, ranks=2, settings=_TCP))

    taken = interleaved(ours, theirs, pairs)
    for size in _SIZES:
        context = {
            "ours_us": statistics.median(a[size] for a, _ in taken) * 1e6,
            "host_us": statistics.median(b[size] for _, b in taken) * 1e6,
            "ours_busbw_GBps": bus_bandwidth(size, statistics.median(a[size] for a, _ in taken), 2),
        }
        if size == 8:
            yield Result(
                "allreduce 8 B over two containers: time, share of the host's loopback",
                "",
                [a[size] / b[size] for a, b in taken],
                Target(1.25),
                context,
            )
            continue
        yield Result(
            f"allreduce {size_text(size)} over two containers: bus bandwidth, share of loopback",
            "",
            [b[size] / a[size] for a, b in taken],
            Target(0.95, at_most=False) if size >= 2**20 else None,
            context,
        )
