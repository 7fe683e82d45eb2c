"""How long until a parameter server and its workers run, against starting them by hand."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice

from benchmarks.overhead.jobs import Bench, numbers
from benchmarks.parameter_server.training import PROGRAMS
from benchmarks.quiet import becomes_quiet
from benchmarks.stats import Result, Target, interleaved
from simgrid_ml.engine.ports import free_ports
from simgrid_ml.spec.job import ParameterServer

__all__ = ["start"]

_MORE_THAN_BY_HAND_S = 0.7
_TASKS = (("ps", 0), ("worker", 0), ("worker", 1))
_PROGRAM = "first_line.py"


def start(bench: Bench, pairs: int, patience_s: float) -> Iterator[Result]:
    """From ``submit`` to the first line of the task that is last to have one; no TensorFlow."""

    def ours() -> tuple[float, bool]:
        is_quiet = becomes_quiet(patience_s)
        tasks = ParameterServer(nodes=len(_TASKS), workers=2)
        ran = bench.on_nodes(_PROGRAM, distribution=tasks, source=PROGRAMS)
        times = numbers(ran.lines)
        assert len(times) == len(_TASKS), f"{len(times)} of {len(_TASKS)} tasks said something"
        return max(times) - ran.begun, is_quiet

    def by_hand() -> tuple[float, bool]:
        is_quiet = becomes_quiet(patience_s)
        return _by_hand(bench), is_quiet

    taken = interleaved(ours, by_hand, pairs)
    context = {"values_on_a_noisy_host": sum(not (a[1] and b[1]) for a, b in taken)}
    job = "1 parameter server, 2 workers: submit to the last task's first line"
    yield Result(
        f"{job}, more than by hand",
        "s",
        [a - b for (a, _), (b, _) in taken],
        Target(_MORE_THAN_BY_HAND_S),
        context,
    )
    yield Result(job, "s", [a for (a, _), _ in taken], context=context)
    hand = "three processes by hand to the last one's first line"
    yield Result(hand, "s", [b for _, (b, _) in taken], context=context)


def _by_hand(bench: Bench) -> float:
    """The same program with the same ``TF_CONFIG``, without nodes, a snapshot or logs."""
    listening = [f"127.0.0.1:{port}" for port in islice(free_ports("benchmark"), len(_TASKS))]
    cluster: dict[str, list[str]] = {}
    for (role, _), address in zip(_TASKS, listening, strict=True):
        cluster.setdefault(role, []).append(address)
    with ExitStack() as stack:
        begun = time.time()
        tasks = []
        for role, index in _TASKS:
            task_of = {"type": role, "index": index}
            config = {"cluster": cluster, "task": task_of, "environment": "cloud"}
            task = subprocess.Popen(
                [bench.environment.python, os.path.join(PROGRAMS, _PROGRAM)],
                env={**bench.variables, "TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(task)
            stack.callback(task.kill)
            tasks.append(task)
        said = [task.stdout.readline() for task in tasks if task.stdout is not None]
        return max(numbers(said)) - begun
