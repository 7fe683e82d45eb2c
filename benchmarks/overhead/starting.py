"""How long until something runs: the first rank, MPI, a command line, and whether it ever hangs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks.overhead.jobs import Bench, numbers
from benchmarks.stats import Result, Target, interleaved
from simgrid_ml.record.follow import has_ended, wait_state
from simgrid_ml.record.run import RunState

__all__ = ["first_rank", "imports", "launches", "mpi_init"]

_MORE_THAN_BARE_S = {2: 0.3, 16: 0.6, 64: 1.2}
_HANGS_AFTER_S = 30.0
_MPI_DEFAULTS = {"SIMGRID_ML_MCA_btl": "", "SIMGRID_ML_MCA_pml": ""}


def first_rank(bench: Bench, pairs: int, sizes: tuple[int, ...] = (2, 16, 64)) -> Iterator[Result]:
    """From ``submit`` to the first line of the first rank, against ``mpirun`` to its first."""
    for nodes in sizes:

        def on_nodes(nodes: int = nodes) -> tuple[float, float]:
            ran = bench.on_nodes("first_line.py", nodes=nodes)
            times = numbers(ran.lines)
            assert len(times) == nodes, f"{len(times)} of {nodes} ranks said something"
            return min(times) - ran.begun, max(times) - ran.begun

        def bare(ranks: int = nodes) -> float:
            ran = bench.bare("first_line.py", ranks=ranks)
            return min(numbers(ran.lines)) - ran.begun

        taken = interleaved(on_nodes, bare, pairs)
        target = _MORE_THAN_BARE_S.get(nodes)
        yield Result(
            f"submit to first rank, {nodes} nodes: more than bare mpirun",
            "s",
            [ours[0] - theirs for ours, theirs in taken],
            Target(target) if target is not None else None,
        )
        yield Result(f"submit to first rank, {nodes} nodes", "s", [ours[0] for ours, _ in taken])
        yield Result(f"submit to last rank, {nodes} nodes", "s", [ours[1] for ours, _ in taken])
        yield Result(
            f"bare mpirun to first rank, {nodes} ranks", "s", [theirs for _, theirs in taken]
        )


def mpi_init(bench: Bench, pairs: int) -> Iterator[Result]:
    """MPI_Init of the slowest rank, with our settings and with the transports Open MPI tries."""

    def ours() -> float:
        return max(numbers(bench.on_nodes("init.py", nodes=2).lines))

    def defaults() -> float:
        return max(numbers(bench.on_nodes("init.py", nodes=2, variables=_MPI_DEFAULTS).lines))

    taken = interleaved(ours, defaults, pairs)
    yield Result("MPI_Init, 2 nodes", "s", [a for a, _ in taken], Target(0.2))
    yield Result("MPI_Init, 2 nodes, Open MPI's own transports", "s", [b for _, b in taken])
    yield Result(
        "MPI_Init: share of what Open MPI's own transports take", "", [a / b for a, b in taken]
    )


def launches(bench: Bench, count: int) -> Iterator[Result]:
    """Launch a command that ends within a millisecond, on 1 to 16 nodes, and look for hangs."""
    times: list[float] = []
    hung = []
    for number in range(count):
        nodes = number % 16 + 1
        begun = time.monotonic()
        record = bench.submit(None, command=("true",), nodes=nodes)
        state = wait_state(record, _HANGS_AFTER_S)
        times.append(time.monotonic() - begun)
        if not has_ended(state):
            record.request_cancel()
            wait_state(record, _HANGS_AFTER_S)
        # A launcher that had to be ended because it did not notice its ranks' end is a hang, too.
        lingered = any(event["event"] == "launcher-lingers" for event in record.events())
        if state is not RunState.COMPLETED or lingered:
            hung.append(f"{nodes} nodes: {state.value}{', lingered' if lingered else ''}")
        bench.wait_until_gone(record)
        if (number + 1) % 50 == 0:
            print(f"  {number + 1} launches, {len(hung)} hung", flush=True)
    yield Result(
        f"launches of `true` on 1 to 16 nodes that hung or failed, of {count}",
        "",
        [float(len(hung))],
        Target(0),
        {"hung": hung, "upper_95_share": 3 / count if not hung else None},
    )
    yield Result("submit to Completed of `true`, 1 to 16 nodes", "s", times)


def imports(pairs: int) -> Iterator[Result]:
    """What every user pays before anything happens."""

    def python(*words: str) -> Callable[[], float]:
        def timed() -> float:
            begun = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            return (time.perf_counter() - begun) * 1e3

        timed()  # from disk and without bytecode only once
        return timed

    taken = interleaved(python("-c", "import simgrid_ml"), python("-c", "pass"), pairs)
    yield Result(
        "import simgrid_ml: more than bare Python", "ms", [a - b for a, b in taken], Target(60)
    )
    api = "from simgrid_ml.azure import Experiment, Workspace"
    taken = interleaved(python("-c", api), python("-c", "pass"), pairs)
    yield Result(
        "from simgrid_ml.azure import …: more than bare Python", "ms", [a - b for a, b in taken]
    )
    help_text = python("-m", "simgrid_ml", "--help")
    yield Result("simgrid-ml --help", "ms", [help_text() for _ in range(pairs)], Target(200))
