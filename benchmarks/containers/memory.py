"""What an idle node costs in memory: the agent in its container, over a container that sleeps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import psutil

from benchmarks.containers.plain_docker import LABEL, Plain
from benchmarks.overhead.jobs import Bench
from benchmarks.stats import Result
from simgrid_ml.backends.docker import LABELS
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.record.follow import wait_state

__all__ = ["memory"]

_NODES = 8
_MIB = 2**20


def memory(bench: Bench, repetitions: int) -> Iterator[Result]:
    """Proportional share of every process of a container, and of the engine's process for it."""
    plain, ours, agents = [], [], []
    docker = Plain()
    for _ in range(repetitions):
        docker.start(_NODES)
        try:
            plain.append(_per_container(docker.engine, LABEL)[0])
        finally:
            docker.remove()
        record = bench.submit(
            None, command=("sleep", "600"), nodes=_NODES, cluster={"backend": "docker"}
        )
        try:
            while record.state.value != "Running":
                time.sleep(0.05)
            time.sleep(1.0)
            total, agent = _per_container(
                docker.engine, f"{LABELS.DIRECTORY}={record.path}", ranks=False
            )
            ours.append(total)
            agents.append(agent)
        finally:
            record.request_cancel()
            wait_state(record, 60)
            bench.wait_until_gone(record)
    yield Result("container that sleeps, by `docker run`, proportional share", "MiB", plain)
    yield Result("idle node, proportional share", "MiB", ours)
    yield Result("idle node: its agent alone, proportional share", "MiB", agents)
    more = [a - b for a, b in zip(ours, plain, strict=True)]
    yield Result("idle node: more than a container that sleeps", "MiB", more)


def _per_container(engine: Engine, label: str, *, ranks: bool = True) -> tuple[float, float]:
    """MiB of a container and its shim, and of its first process: medians over the containers."""
    totals, firsts = [], []
    for each in engine.containers(label):
        first = psutil.Process(int(engine.inspect(each["Id"])["State"]["Pid"]))
        inside = [first, *(first.children(recursive=True) if ranks else [])]
        shim = first.parent()
        assert shim is not None
        firsts.append(_share(first))
        totals.append(sum(_share(process) for process in [shim, *inside]))
    return statistics.median(totals), statistics.median(firsts)


def _share(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / _MIB
