"""What a program with virtual GPUs starts with: a longer import, and a file on its node."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Mapping

from benchmarks.quiet import becomes_quiet
from benchmarks.stats import Result, Target, interleaved
from benchmarks.virtual_gpu.measuring import Node

__all__ = ["imports", "ledger"]

_LONGER_S = 0.05
_BYTES = 64 * 1024


def imports(node: Node, pairs: int, patience_s: float) -> Iterator[Result]:
    """``import torch`` in fresh interpreters, with the hooks and in the bare environment."""
    noisy = 0

    def importing(variables: Mapping[str, str]) -> tuple[float, float]:
        nonlocal noisy
        noisy += not becomes_quiet(patience_s)
        cpu, wall = _children_s(), time.perf_counter()
        node.run("-c", "import torch", variables=variables)
        return _children_s() - cpu, time.perf_counter() - wall

    importing(node.variables)  # writes the byte code
    taken = interleaved(lambda: importing(node.variables), lambda: importing(node.plain), pairs)
    for number, what in enumerate(("CPU time", "wall time")):
        yield Result(
            f"import torch: {what}, more than without GPUs",
            "s",
            [with_gpus[number] - without[number] for with_gpus, without in taken],
            Target(_LONGER_S),
            {"values_on_a_noisy_host": noisy} if noisy else {},
        )
        yield Result(
            f"import torch: {what} without GPUs", "s", [without[number] for _, without in taken]
        )


def ledger(node: Node) -> Iterator[Result]:
    """The file that the processes of a node share."""
    size = os.path.getsize(node.ledger)
    yield Result("ledger of a node", "bytes", [size], Target(_BYTES))


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
