"""What an idle node costs in memory: the agent in its container, over a container that sleeps."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Iterator

from benchmarks.containers.plain_docker import LABEL, Plain
from benchmarks.overhead.jobs import Bench
from benchmarks.stats import Result
from simgrid_ml.backends.docker import LABELS
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.record.follow import wait_state

__all__ = ["memory"]

_NODES = 8
_KIB = 1024
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
        first = int(engine.inspect(each["Id"])["State"]["Pid"])
        shim = _parent(first)
        inside = [first, *(_descendants(first) if ranks else [])]
        firsts.append(_share(first) / _MIB)
        totals.append(sum(_share(pid) for pid in [shim, *inside]) / _MIB)
    return statistics.median(totals), statistics.median(firsts)


def _share(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
        found = re.search(r"^Pss:\s+(\d+)", stream.read(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * _KIB


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as stream:
        return int(stream.read().rpartition(b")")[2].split()[1])


def _descendants(pid: int) -> list[int]:
    children = [int(e) for e in os.listdir("/proc") if e.isdigit() and _is_child(int(e), pid)]
    return children + [one for child in children for one in _descendants(child)]


def _is_child(pid: int, parent: int) -> bool:
    try:
        return _parent(pid) == parent
    except OSError:
        return False
