"""Low-priority nodes that are taken away: the job begins again, and what it had is kept."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from simgrid_ml.engine import pools
from simgrid_ml.record.follow import follow
from simgrid_ml.record.journal import read_journal
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.testing.pools import put_cluster
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs, log, story

LOW = {"name": "low", "max_nodes": 2, "vm_priority": "lowpriority"}

TRAINS = """
    import os, sys, time
    from mpi4py import MPI
    rank = MPI.COMM_WORLD.rank
    print("leftovers", sorted(os.listdir("outputs")), flush=True)
    MPI.COMM_WORLD.Barrier()
    open(f"outputs/model-{rank}", "w").write(str(time.time()))
    print("up", flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.02)
"""


def up(record: RunRecord, attempt: int = 1) -> RunRecord:
    """``record``, once both of its ranks have begun for the ``attempt``-th time."""

    def is_up() -> bool:
        if sum(move["state"] == "Running" for move in record.states()) < attempt:
            return False
        try:
            return all("up\n" in log(record, rank) for rank in (0, 1))
        except Exception:
            return False

    wait_until(is_up, f"attempt {attempt} is up: {story(record)}")
    return record


def states(record: RunRecord) -> list[str]:
    return [move["state"] for move in record.states()]


TWICE = ["NotStarted", "Preparing", "Queued", "Running", "Queued", "Running", "Finalizing"]


@pytest.mark.parametrize("node", ["node0", "node1"])
def test_a_preempted_job_begins_again_and_its_first_logs_are_kept(
    pooled: Runs, tmp_path: Path, node: str
) -> None:
    go = tmp_path / "go"
    record = up(pooled.submit(TRAINS, str(go), mpi=(2, 1), cluster=put_cluster(pooled, **LOW)))
    assert pools.preempt(pooled.store, "low", node) == record.id
    up(record, attempt=2)
    go.touch()
    assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    assert states(record) == [*TWICE, "Completed"]
    assert log(record).startswith("leftovers []\n"), "the second attempt begins from nothing"
    kept = {artifact.name for artifact in record.artifacts()}
    for rank in (0, 1):
        assert f"attempts/1/azureml-logs/70_driver_log_{rank}.txt" in kept
        assert f"attempts/1/outputs/model-{rank}" in kept
        assert f"outputs/model-{rank}" in kept
    assert [e["why"] for e in record.events() if e["event"] == "preempted"] == [
        f"{node} of cluster 'low' was pre-empted"
    ]


def test_who_follows_the_logs_reads_both_attempts(pooled: Runs, tmp_path: Path) -> None:
    go = tmp_path / "go"
    cluster = put_cluster(pooled, **LOW)
    record = up(pooled.submit(TRAINS, str(go), mpi=(2, 1), cluster=cluster))
    name = "azureml-logs/70_driver_log_0.txt"
    read: list[bytes] = []
    reader = threading.Thread(
        target=lambda: read.extend(chunk for _, chunk in follow(record, names=[name]))
    )
    reader.start()
    wait_until(lambda: b"up\n" in b"".join(read), "the first attempt is read")
    pools.preempt(pooled.store, "low", "node1")
    up(record, attempt=2)
    go.touch()
    assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    reader.join(10)
    assert b"".join(read).count(b"leftovers []\nup\n") == 2


def test_a_schedule_preempts_once_and_each_attempt_has_its_record_of_gpus(
    pooled: Runs, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    preempted = [{"after_s": 1, "node": "node1"}]
    cluster = put_cluster(pooled, **LOW, vm_size="Standard_NC6", preemptions=preempted)
    record = up(pooled.submit(TRAINS, str(go), mpi=(2, 1), cluster=cluster), attempt=2)
    go.touch()
    assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    assert states(record) == [*TWICE, "Completed"]
    for attempt in (record.file(), record.file("attempts", "1")):
        assert os.path.isfile(os.path.join(attempt, "gpus.json"))
        assert sorted(os.listdir(os.path.join(attempt, "gpus"))) == ["node0", "node1"]
        lines = read_journal(os.path.join(attempt, "gpu-memory.jsonl"))
        assert [("peaks" in line) for line in lines].count(True) == 1


def test_preemption_before_the_ranks_are_up(pooled: Runs, tmp_path: Path) -> None:
    go = tmp_path / "go"
    record = pooled.submit(TRAINS, str(go), mpi=(2, 1), cluster=put_cluster(pooled, **LOW))

    def given() -> bool:
        return any(event["event"] == "given" for event in record.events())

    wait_until(given, "it has nodes")
    pools.preempt(pooled.store, "low", "node1")
    go.touch()
    assert pooled.ended(record).state is RunState.COMPLETED, story(record)
    assert sum(event["event"] == "given" for event in record.events()) == 2, story(record)


def test_an_idle_node_that_is_preempted_disturbs_no_run(pooled: Runs, tmp_path: Path) -> None:
    cluster = put_cluster(pooled, **LOW)
    pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    assert pools.preempt(pooled.store, "low", "node1") is None
    said = pools.status(pooled.store, "low") or {}
    assert said["preempted"] == ["node1"]
    record = pooled.completed("print(1)", mpi=(2, 1), cluster=cluster)
    assert record.document("placement.json")["nodes"] == ["node0", "node1"]
    assert (pools.status(pooled.store, "low") or {})["preempted"] == []


def test_a_preempted_job_can_be_cancelled_while_it_waits_again(
    pooled: Runs, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    cluster = put_cluster(pooled, **LOW)
    record = up(pooled.submit(TRAINS, str(go), mpi=(2, 1), cluster=cluster))
    put_cluster(pooled, **LOW)
    pools.preempt(pooled.store, "low", "node0")
    record.request_cancel()
    assert pooled.ended(record).state is RunState.CANCELED, story(record)


def test_the_attempt_is_counted_where_scripts_of_the_common_runtime_look(pooled: Runs) -> None:
    script = """
        import json, os, time
        count = json.loads(os.environ["AZUREML_CR_COMPUTE_CONTEXT"])["run_attempt_count"]
        print("attempt", count, flush=True)
        open("outputs/mine", "w").write(str(count))
        while count == 1:
            time.sleep(0.02)
    """
    cluster = put_cluster(pooled, **LOW, era="E3", preemptions=[{"after_s": 1, "node": "node0"}])
    record = pooled.completed(script, mpi=(1, 1), cluster=cluster)
    for count, log_name, output in (
        (2, "user_logs/std_log_process_0.txt", "outputs/mine"),
        (1, "attempts/1/user_logs/std_log_process_0.txt", "attempts/1/node0/outputs/mine"),
    ):
        with open(record.artifact(log_name).path) as stream:
            assert stream.readline() == f"attempt {count}\n"
        with open(record.artifact(output).path) as stream:
            assert stream.read() == str(count)
    assert os.path.isdir(record.file("attempts", "1", "tasks"))
