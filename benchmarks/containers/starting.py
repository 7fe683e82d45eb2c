"""From ``submit`` to the first rank: cold, on warm nodes, and as the number of nodes grows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from benchmarks.containers.plain_docker import Plain
from benchmarks.overhead.jobs import Bench, numbers
from benchmarks.stats import Result, Target, interleaved
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.value import to_plain
from simgrid_ml.testing.pools import stop_pools

__all__ = ["cold", "growth", "warm"]

_DOCKER = {"backend": "docker"}
_REACH_S = {2: 0.45, 16: 2.4}
_OVER_FLOOR = 1.10


def cold(bench: Bench, pairs: int, sizes: tuple[int, ...] = (2, 16)) -> Iterator[Result]:
    """Against parallel ``docker run`` and then bare ``mpirun`` to its first rank."""
    plain = Plain()
    for nodes in sizes:

        def floor(nodes: int = nodes) -> tuple[float, float]:
            try:
                started = plain.start(nodes)
            finally:
                plain.remove()
            ran = bench.bare("first_line.py", ranks=nodes)
            return started, min(numbers(ran.lines)) - ran.begun

        ours = _first_rank(bench, nodes)
        ours(), floor()  # images and pages from disk
        taken = interleaved(ours, floor, pairs)
        yield Result(
            f"cold, {nodes} nodes: submit to first rank, share of `docker run` x {nodes} + mpirun",
            "",
            [a / sum(b) for a, b in taken],
            Target(_OVER_FLOOR),
        )
        reach = Target(_REACH_S[nodes]) if nodes in _REACH_S else None
        yield Result(
            f"cold, {nodes} nodes: submit to first rank", "s", [a for a, _ in taken], reach
        )
        yield Result(f"`docker run` x {nodes}, in parallel", "s", [b[0] for _, b in taken])
        yield Result(f"bare mpirun to first rank, {nodes} ranks", "s", [b[1] for _, b in taken])


def growth(
    bench: Bench, repetitions: int, sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
) -> Iterator[Result]:
    """Submit to first rank over the number of nodes, and how straight that line is."""
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(repetitions):
        for size in sizes if number % 2 == 0 else reversed(sizes):
            times[size].append(_first_rank(bench, size)())
    medians = [statistics.median(times[size]) for size in sizes]
    slope, intercept = statistics.linear_regression(sizes, medians)
    r2 = statistics.correlation(sizes, medians) ** 2
    for size in sizes:
        yield Result(f"growth, {size} nodes: submit to first rank", "s", times[size])
    context = {"slope_s_per_node": slope, "intercept_s": intercept}
    yield Result(
        f"growth, {sizes[0]} to {sizes[-1]} nodes: R² of a straight line",
        "",
        [r2],
        Target(0.99, at_most=False),
        context,
    )


def _first_rank(bench: Bench, nodes: int) -> Callable[[], float]:
    def measured() -> float:
        ran = bench.on_nodes("first_line.py", nodes=nodes, cluster=_DOCKER)
        times = numbers(ran.lines)
        assert len(times) == nodes, f"{len(times)} of {nodes} ranks said something"
        return min(times) - ran.begun

    return measured


def warm(bench: Bench, pairs: int, nodes: int = 2) -> Iterator[Result]:
    """On nodes that are up: containers against processes, and against bare ``mpirun``."""
    for backend in ("docker", "process"):
        spec = _warm_cluster(backend, nodes)
        bench.store.put_cluster(spec.name, to_plain(spec))
    try:

        def ours() -> float:
            return _on_warm(bench, "docker", nodes)

        def theirs() -> tuple[float, float]:
            ran = bench.bare("first_line.py", ranks=nodes)
            return _on_warm(bench, "process", nodes), min(numbers(ran.lines)) - ran.begun

        ours(), theirs()  # the pools start with their first run
        taken = interleaved(ours, theirs, pairs)
    finally:
        stop_pools(bench.folder)
    yield Result(
        f"warm, {nodes} nodes: submit to first rank, share of process nodes",
        "",
        [a / b[0] for a, b in taken],
        Target(1.3),
    )
    yield Result(
        f"warm, {nodes} nodes: submit to first rank, more than bare mpirun",
        "s",
        [a - b[1] for a, b in taken],
        Target(0.3),
    )
    yield Result(f"warm, {nodes} containers: submit to first rank", "s", [a for a, _ in taken])
    yield Result(f"warm, {nodes} processes: submit to first rank", "s", [b[0] for _, b in taken])


def _warm_cluster(backend: str, nodes: int) -> ClusterSpec:
    return ClusterSpec(name=f"warm-{backend}", backend=backend, min_nodes=nodes, max_nodes=nodes)


def _on_warm(bench: Bench, backend: str, nodes: int) -> float:
    cluster = _warm_cluster(backend, nodes)
    fields = {name: getattr(cluster, name) for name in ClusterSpec.__struct_fields__}
    ran = bench.on_nodes("first_line.py", nodes=nodes, cluster=fields)
    return min(numbers(ran.lines)) - ran.begun
