"""Ranks of torch.distributed that go wrong: the first cause by name, nothing left."""

from __future__ import annotations

import pytest

from simgrid_ml import wire
from simgrid_ml.record.run import RunState
from simgrid_ml.spec.job import TorchDistributed
from simgrid_ml.testing.runs import Runs, cause, evidence, log, story

TRAINS = """
    import os, signal
    import torch, torch.distributed as dist

    def step():
        dist.all_reduce(torch.ones(1000))

    dist.init_process_group("gloo")
    for _ in range(3):
        step()
    if dist.get_rank() == 1:
        {fault}
    while True:
        step()
"""

TWO_BY_TWO = TorchDistributed(nodes=2, processes_per_node=2, backend="gloo")
A_RANK_ON_EACH = TorchDistributed(nodes=2, backend="gloo")


@pytest.mark.parametrize(
    ("fault", "says", "seen"),
    [
        ("raise ValueError('loss is nan')", "exited with code 1", "ValueError: loss is nan"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL", ""),
    ],
)
def test_a_rank_that_ends_in_training_is_the_cause_and_not_those_who_lost_it(
    workspace: Runs, fault: str, says: str, seen: str
) -> None:
    record = workspace.failed(TRAINS.format(fault=fault), distribution=TWO_BY_TWO)
    assert cause(record).startswith(f"rank 1 on node0 {says}"), story(record)
    assert evidence(record).endswith(seen)


def test_a_rank_that_the_launcher_of_its_node_lost_is_told_with_its_error(workspace: Runs) -> None:
    """torchrun on node1 fails because of it, and the one on node0 because of that."""
    script = TRAINS.format(fault="raise ValueError('loss is nan')")
    command = (
        "torchrun --nnodes=$WORLD_SIZE --nproc_per_node=1 --node_rank=$NODE_RANK "
        "--master_addr=$MASTER_ADDR --master_port=$MASTER_PORT train.py"
    )
    record = workspace.failed(
        None,
        source=workspace.source({"train.py": script}),
        command=tuple(command.split()),
        distribution=A_RANK_ON_EACH,
    )
    assert cause(record) == "rank 1 on node1 exited with code 1", story(record)
    assert "ValueError: loss is nan" in log(record, 1)


def test_ranks_that_wait_for_one_that_never_joins_end_with_the_time_limit(
    workspace: Runs,
) -> None:
    script = """
        import os, time
        if os.environ["RANK"] == "1":
            time.sleep(600)
        import torch.distributed as dist
        dist.init_process_group("gloo")
    """
    record = workspace.run(script, distribution=A_RANK_ON_EACH, max_run_s=5.0)
    assert record.state is RunState.CANCELED, story(record)
    (warning,) = [move["warning"] for move in record.states() if "warning" in move]
    assert warning == "max_run_duration_seconds of 5 s exceeded"


def test_a_port_that_somebody_has_taken_is_named(workspace: Runs) -> None:
    script = """
        import os, socket, time
        taken = socket.socket()
        if os.environ["RANK"] == "0":
            taken.bind(("", int(os.environ["MASTER_PORT"])))
            taken.listen()
        else:
            time.sleep(600)
        import torch.distributed as dist
        dist.init_process_group("gloo")
    """
    record = workspace.failed(script, distribution=A_RANK_ON_EACH)
    assert cause(record).startswith("rank 0 on node0 exited with code 1"), story(record)
    port = record.document(wire.LAUNCH)["endpoints"]["rank-0"].rpartition(":")[2]
    assert f"port: {port}" in evidence(record)
    assert "address already in use" in evidence(record)
