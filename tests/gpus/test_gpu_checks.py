"""Verdicts on the use of GPUs, from ledgers that processes have left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml import wire
from simgrid_ml.checks import gpus
from simgrid_ml.checks.base import Finding, Verdict
from simgrid_ml.node.gpu_ledger import MAX_PROCESSES, Gpu, Ledger, create
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore

GIB = 2**30


def gpu(node: int, number: int) -> Gpu:
    return Gpu("Tesla K80", f"GPU-{node}{number}", f"{node}:{number}", 10 * GIB, 13, (3, 7))


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    """2 nodes x 2 GPUs x 2 ranks that have not used any."""
    spec = {"job": {"environment": {"use_gpu": True}}, "cluster": {}}
    record = RunStore(str(tmp_path)).create("test", spec)
    tasks = [
        *(task(f"rank-{r}", f"node{r // 2}", r, r % 2, "rank") for r in range(4)),
        task("ps-0", "node0", 4, 2, "ps"),
    ]
    write_json(record.file(wire.PLACEMENT), {"nodes": ["node0", "node1"], "tasks": tasks})
    nodes = [{"node": f"node{n}", "ids": [f"GPU-{n}0", f"GPU-{n}1"]} for n in range(2)]
    write_json(record.file(wire.GPUS), {"backing": "host memory", "nodes": nodes})
    os.makedirs(record.file(wire.GPU_LEDGERS))
    for n in range(2):
        path = record.file(wire.GPU_LEDGERS, f"node{n}")
        create(path, [gpu(n, 0), gpu(n, 1)], node=f"node{n}")
    return record


def task(name: str, node: str, rank: int, local_rank: int, role: str) -> dict[str, Any]:
    return {"name": name, "node": node, "rank": rank, "local_rank": local_rank, "role": role}


def used(
    run: RunRecord,
    rank: int,
    *taken: int,
    node: int | None = None,
    local_rank: int | None = None,
    visible: Sequence[int] = (0, 1),
    collective: int | None = None,
) -> None:
    """A process of ``rank`` that had ``taken`` GiB of each GPU, and has ended."""
    node = rank // 2 if node is None else node
    ledger = Ledger(run.file(wire.GPU_LEDGERS, f"node{node}"))
    local_rank = rank % 2 if local_rank is None else local_rank
    ledger.claim(rank=rank, local_rank=local_rank, visible=visible)
    for number, size in enumerate(taken):
        if size:
            ledger.put(number, size * GIB)
    if collective is not None:
        ledger.put_collective(collective)
    ledger.close()


def pinned(run: RunRecord) -> None:
    for rank, taken in enumerate([(3, 0), (0, 4), (1, 0), (0, 1)]):
        used(run, rank, *taken)


def judged(run: RunRecord) -> dict[str, Finding]:
    return {finding.check: finding for finding in gpus.check(run)}


def verdicts(run: RunRecord) -> tuple[Verdict, Verdict]:
    found = judged(run)
    return found["gpus.placement"].verdict, found["gpus.used"].verdict


def test_ranks_with_a_gpu_each_pass(run: RunRecord) -> None:
    pinned(run)
    assert verdicts(run) == (Verdict.PASS, Verdict.PASS)
    found = judged(run)
    assert found["gpus.placement"].message == "4 ranks, each saw the 2 GPUs of its node"
    assert found["gpus.used"].message == "4 ranks, a GPU of its own each"


def test_a_job_that_used_no_gpu_passes_with_a_word(run: RunRecord) -> None:
    assert verdicts(run) == (Verdict.PASS, Verdict.PASS)
    said = judged(run)["gpus.used"].message
    assert said == "no rank used a GPU, though use_gpu was asked for"


def test_of_real_gpus_nobody_says_that_they_were_not_used(run: RunRecord) -> None:
    write_json(run.file(wire.GPUS), {**run.document(wire.GPUS), "backing": "time-sliced GPU"})
    assert verdicts(run) == (Verdict.PASS, Verdict.PASS)
    said = {finding.message for finding in judged(run).values()}
    expected = "what ranks use is known to the driver alone where there is a time-sliced GPU"
    assert said == {expected}
    (pinned,) = gpus.gpu_pinned(run)
    assert pinned.verdict is Verdict.UNKNOWN


def test_a_run_without_gpus_is_not_judged(run: RunRecord) -> None:
    os.unlink(run.file(wire.GPUS))
    assert judged(run) == {}
    (found,) = gpus.gpu_pinned(run)
    assert found.verdict is Verdict.UNKNOWN


def test_two_ranks_on_one_gpu_fail_only_where_another_was_idle(run: RunRecord) -> None:
    pinned(run)
    used(run, 0, 0, 1)  # a second process of rank 0, and GPU 1 is rank 1's
    assert verdicts(run) == (Verdict.PASS, Verdict.PASS)
    assert "rank-0 also used GPU 1" in judged(run)["gpus.used"].message


def test_forgetting_to_choose_a_gpu_fails(run: RunRecord) -> None:
    used(run, 0, 3)
    used(run, 1, 4)
    used(run, 2, 1)
    found = judged(run)["gpus.used"]
    assert found.verdict is Verdict.FAIL
    assert found.evidence == "rank-0 and rank-1 on node0: GPU 0; idle: GPU 1"
    assert "set_device(local_rank)" in found.message


def test_ranks_may_share_a_gpu_where_none_is_idle(run: RunRecord) -> None:
    used(run, 0, 3)
    used(run, 1, 4)
    used(run, -1, 0, 1, node=0, local_rank=-1)  # a program that somebody started has the other
    found = judged(run)["gpus.used"]
    assert found.verdict is Verdict.PASS
    assert found.message == "2 ranks of 4, some on one GPU, as none was idle"


def test_a_worker_alone_on_its_node_may_have_all_its_gpus(run: RunRecord) -> None:
    tasks = [task(f"worker-{n}", f"node{n}", n, 0, "worker") for n in range(2)]
    write_json(run.file(wire.PLACEMENT), {"nodes": ["node0", "node1"], "tasks": tasks})
    used(run, 0, 3, 3, node=0)
    used(run, 1, 3, 3, node=1, local_rank=0)
    assert verdicts(run) == (Verdict.PASS, Verdict.PASS)
    said = judged(run)["gpus.used"].message
    assert said == "2 workers, alone on the GPUs of its node each"


def test_what_is_computed_on_decides_and_not_what_was_touched(run: RunRecord) -> None:
    used(run, 0, 3)
    used(run, 1, 4, 1, collective=1)
    assert verdicts(run)[1] is Verdict.PASS
    (strict,) = gpus.gpu_pinned(run)
    assert strict.verdict is Verdict.FAIL
    assert strict.evidence.splitlines() == [
        "rank-1 on node0 used GPUs 0, 1",
        "rank-2 on node1 used no GPU",
        "rank-3 on node1 used no GPU",
        "rank-0 and rank-1 on node0 both used GPU 0",
    ]


def test_parameter_servers_and_programs_of_nobody_are_not_ranks(run: RunRecord) -> None:
    pinned(run)
    used(run, 4, 1, node=0, local_rank=2)
    used(run, -1, 1, 1, node=1, local_rank=-1)
    assert verdicts(run) == (Verdict.PASS, Verdict.PASS)
    (strict,) = gpus.gpu_pinned(run)
    assert strict.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"node": 1}, "rank-1: used GPUs of node1, placed on node0"),
        ({"local_rank": 0}, "rank-1: its local rank was 0, placed as 1"),
    ],
)
def test_a_rank_with_the_gpus_of_another_fails(
    run: RunRecord, change: dict[str, Any], said: str
) -> None:
    used(run, 1, 1, **change)
    found = judged(run)["gpus.placement"]
    assert (found.verdict, found.evidence) == (Verdict.FAIL, said)


def test_a_node_with_other_gpus_than_planned_fails(run: RunRecord) -> None:
    create(run.file(wire.GPU_LEDGERS, "node1"), [gpu(1, 0), gpu(0, 1)], node="node1")
    found = judged(run)["gpus.placement"]
    assert found.verdict is Verdict.FAIL
    assert found.evidence == "node1: has GPU-10, GPU-01, not GPU-10, GPU-11"


def test_a_lost_ledger_is_no_success(run: RunRecord) -> None:
    os.unlink(run.file(wire.GPU_LEDGERS, "node1"))
    found = judged(run)["gpus.placement"]
    assert found.verdict is Verdict.UNKNOWN
    assert "node1" in found.evidence


def test_a_rank_may_choose_what_it_sees(run: RunRecord) -> None:
    used(run, 1, 0, 1, visible=[1])
    found = judged(run)["gpus.placement"]
    assert found.verdict is Verdict.PASS
    assert "rank-1 chose GPU 1" in found.message


@pytest.mark.parametrize(
    ("limit", "verdict", "said"),
    [
        ({"at_most_bytes": 4 * GIB}, Verdict.PASS, "at most node0 GPU 1: 4 GiB of 10 GiB"),
        ({"at_most_bytes": 4 * GIB - 1}, Verdict.FAIL, "1 of 4 GPUs had more taken than allowed"),
        ({"at_most_fraction": 0.4}, Verdict.PASS, "allowed 4 GiB"),
        ({"at_most_fraction": 0.2}, Verdict.FAIL, "2 of 4 GPUs"),
        ({"at_most_fraction": 0.9, "at_most_bytes": 2 * GIB}, Verdict.FAIL, "2 of 4 GPUs"),
    ],
)
def test_the_peak_of_every_gpu_is_held_against_the_limit(
    run: RunRecord, limit: dict[str, Any], verdict: Verdict, said: str
) -> None:
    pinned(run)
    (found,) = gpus.gpu_memory_peak(run, **limit)
    assert found.verdict is verdict
    assert said in found.message


def test_a_peak_that_nobody_reached_is_unknown_and_a_limit_is_needed(run: RunRecord) -> None:
    (found,) = gpus.gpu_memory_peak(run, at_most_bytes=1)
    assert found.verdict is Verdict.UNKNOWN
    with pytest.raises(ValueError, match="limit"):
        list(gpus.gpu_memory_peak(run))


def test_the_peak_of_a_gpu_is_of_all_processes_at_once(run: RunRecord) -> None:
    path = run.file(wire.GPU_LEDGERS, "node0")
    one, other = Ledger(path), Ledger(path)
    one.claim(rank=0)
    other.claim(rank=1)
    for ledger, size in ((one, 5), (one, 1), (other, 3), (one, 4), (other, 0)):
        ledger.put(0, size * GIB)
    assert one.peaks() == (7 * GIB, 0)  # 4 and 3, although one alone has had more before
    other.put(0, 9 * GIB)  # both reach for the last of it: one will be refused, none had more
    assert one.peaks() == (10 * GIB, 0)
    one.close()
    other.close()


KILLED = """
import sys, time
from simgrid_ml.node.gpu_ledger import Ledger
ledger = Ledger(sys.argv[1])
ledger.claim(rank=1, local_rank=1, visible=[0, 1])
ledger.put(1, 2 << 30)
print("used", flush=True)
time.sleep(60)
"""


def test_a_killed_rank_leaves_its_row(run: RunRecord) -> None:
    path = run.file(wire.GPU_LEDGERS, "node0")
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    ledger = Ledger(path)
    assert ledger.used() == (0, 0)
    assert [(row.rank, row.used) for row in ledger.rows(ended=True)] == [(1, (1,))]
    ledger.close()
    assert "1 rank of 4, a GPU of its own each" in judged(run)["gpus.used"].message


def test_the_first_processes_of_a_node_are_remembered_longest(run: RunRecord) -> None:
    path = run.file(wire.GPU_LEDGERS, "node0")
    for rank in range(MAX_PROCESSES + 3):
        ledger = Ledger(path)
        ledger.claim(rank=rank)
        ledger.close()
    ledger = Ledger(path)
    remembered = [row.rank for row in ledger.rows(ended=True)]
    assert remembered[:-1] == list(range(MAX_PROCESSES - 1))
    assert remembered[-1] == MAX_PROCESSES + 2
    ledger.close()
