"""torch.distributed over virtual nodes, with real torch and Gloo: each way in which ranks meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from simgrid_ml import wire
from simgrid_ml.azure import AmlCompute, ComputeTarget, ScriptRunConfig, Workspace
from simgrid_ml.azure.dnn import Gloo, Nccl, PyTorch
from simgrid_ml.azure.runconfig import PyTorchConfiguration
from simgrid_ml.azure.submission import plan
from simgrid_ml.cli import summary
from simgrid_ml.engine import prepare
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.spec.cluster import ClusterSpec, Era, WorkingDirectory
from simgrid_ml.spec.job import TorchDistributed
from simgrid_ml.spec.links_text import parse_links
from simgrid_ml.testing.runs import Runs, log, story

TOLD_ONCE = "simgrid-ml: NCCL needs GPUs and there are none: Gloo is used\n"


@pytest.fixture(params=["process", "docker"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return str(request.param)


def submit(workspace: Runs, config: Any, **cluster: Any) -> RunRecord:
    """What ``Experiment.submit`` asks the engine for, in the environment of the tests."""
    job = structs.replace(plan(config).job, environment=workspace.environment)
    on = ClusterSpec(**{**workspace.cluster, **cluster})
    return prepare.submit(job, on, store=workspace.store, experiment="test")


def completed(workspace: Runs, record: RunRecord) -> list[str]:
    """What every task of the run wrote, once it has ended well."""
    workspace.ended(record)
    assert record.state is RunState.COMPLETED, story(record)
    tasks = record.document(wire.LAUNCH)["tasks"]
    return [Path(task["log"]).read_text(encoding="utf-8") for task in tasks.values()]


def lines(logs: list[str], begin: str) -> list[str]:
    """What follows ``begin`` in lines of any log, sorted."""
    found = [line for text in logs for line in text.splitlines() if line.startswith(begin)]
    return sorted(line[len(begin) :] for line in found)


DIGITS = """
    import argparse, hashlib, json, os, re
    import torch, torch.distributed as dist
    from sklearn.datasets import load_digits
    from torch.nn.functional import cross_entropy
    from torch.nn.parallel import DistributedDataParallel

    given = {name: value for name, value in os.environ.items()
             if re.search("RANK|WORLD|MASTER_|TORCH|LOCAL_", name)
             and not name.startswith(("AZ_", "SIMGRID_ML_"))}
    parser = argparse.ArgumentParser()
    parser.add_argument("--local_rank", type=int)
    local_rank = parser.parse_args().local_rank
    assert not dist.is_nccl_available() and not torch.cuda.is_available()
    dist.init_process_group("nccl", device_id=torch.device("cuda", local_rank))  # env://
    rank, size = dist.get_rank(), dist.get_world_size()
    told = dist.new_group(backend="nccl")
    dist.barrier(told, device_ids=[local_rank])

    digits = load_digits()
    pictures = torch.tensor(digits.data[:400], dtype=torch.float32) / 16
    labels = torch.tensor(digits.target[:400])

    def model(seed):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

    alone = model(0)
    cross_entropy(alone(pictures), labels).backward()
    shared = DistributedDataParallel(model(rank))  # all begin with rank 0's
    mine = pictures[rank::size], labels[rank::size]
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.5)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        loss = cross_entropy(shared(mine[0]), mine[1])
        loss.backward()
        if step == 0:
            for a, b in zip(alone.parameters(), shared.parameters()):
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean.item() / size)
    weights = torch.cat([one.detach().flatten() for one in shared.parameters()])
    print("TOLD", json.dumps({
        "given": given, "local_rank": local_rank, "node": os.uname().nodename,
        "backends": [dist.get_backend(), dist.get_backend(told)],
        "losses": losses, "weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
    }))
    dist.destroy_process_group()
"""


def test_data_parallel_training_on_two_by_two_is_that_of_one_process(
    workspace: Runs, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ScriptRunConfig(
        workspace.source({"train.py": DIGITS}),
        "train.py",
        arguments=["--local_rank", "$LOCAL_RANK"],
        distributed_job_config=PyTorchConfiguration("Nccl", process_count=4, node_count=2),
    )
    record = submit(workspace, config, backend=backend)
    logs = completed(workspace, record)
    told = [json.loads(line) for text in logs for line in lines([text], "TOLD ")]
    assert len(told) == 4, story(record)
    for rank, one in enumerate(told):
        assert (one["local_rank"], one["node"]) == (rank % 2, f"node{rank // 2}")
        address = record.document(wire.PLACEMENT)["node_info"]["node0"]["address"]
        port = record.document(wire.LAUNCH)["endpoints"]["rank-0"].removeprefix(f"{address}:")
        assert one["given"] == {
            "MASTER_ADDR": address,
            "MASTER_PORT": port,
            "WORLD_SIZE": "4",
            "NODE_RANK": str(rank // 2),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % 2),
        }
        assert (port == "6105") is (backend == "docker")
        assert one["losses"] == told[0]["losses"]
        assert one["weights"] == told[0]["weights"]
        assert one["backends"] == ["gloo", "gloo"]
    assert told[0]["losses"][-1] < 0.7 * told[0]["losses"][0]
    assert [text.count(TOLD_ONCE) for text in logs] == [1, 0, 0, 0]
    assert any(line.startswith("NCCL: Gloo") for line in summary.substitutions(record))


MEETS = """
    import argparse, os
    import torch, torch.distributed as dist
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int)
    parser.add_argument("--world-size", type=int)
    parser.add_argument("--dist-url")
    parser.add_argument("--dist-backend")
    args = parser.parse_args()
    dist.init_process_group(args.dist_backend, args.dist_url, None, args.world_size, args.rank)
    total = torch.tensor([10.0 ** dist.get_rank()])
    dist.all_reduce(total)
    print("TOTAL", total.item(), "on", os.uname().nodename)
    dist.destroy_process_group()
"""


def test_ranks_meet_by_a_shared_file_in_either_kind_of_working_directory(workspace: Runs) -> None:
    """As the tutorials of 2019 do it, two jobs at the same time."""
    source = workspace.source({"train.py": MEETS})
    size = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=2)
    target = ComputeTarget.create(Workspace.local(), "gpucluster", size)
    records = []
    for how, backend, cluster in (
        ({"distributed_training": Nccl()}, "nccl", {"era": Era.E1}),
        (
            {"distributed_training": Gloo()},
            "gloo",
            {"working_directory": WorkingDirectory.PRIVATE},
        ),
    ):
        estimator = PyTorch(
            source,
            compute_target=target,
            entry_script="train.py",
            script_params={
                "--rank": "$AZ_BATCHAI_TASK_INDEX",
                "--world-size": 2,
                "--dist-url": "$AZ_BATCHAI_PYTORCH_INIT_METHOD",
                "--dist-backend": backend,
            },
            node_count=2,
            framework_version="1.4",
            **how,
        )
        records.append(submit(workspace, estimator, **cluster))
    nccl, gloo = (completed(workspace, record) for record in records)
    for logs in (nccl, gloo):
        assert lines(logs, "TOTAL ") == ["11.0 on node0", "11.0 on node1"]
    assert [text.count(TOLD_ONCE) for text in nccl] == [1, 0]
    assert "simgrid-ml" not in "".join(gloo)
    assert not any("Gloo" in line for line in summary.substitutions(records[1]))


SUMS = """
    import os
    import torch, torch.distributed as dist
    dist.init_process_group("nccl")
    total = torch.tensor([10.0 ** dist.get_rank()])
    dist.all_reduce(total)
    place = os.uname().nodename, os.environ["LOCAL_RANK"], dist.get_backend()
    print(f"RANK {dist.get_rank()} {total.item():g}", *place, flush=True)
    dist.destroy_process_group()
"""
SUMMED = [f"{rank} 1111 node{rank // 2} {rank % 2} gloo" for rank in range(4)]

LAUNCHERS = {
    "torchrun": "torchrun --node_rank=$NODE_RANK --master_addr=$MASTER_ADDR "
    "--master_port=$MASTER_PORT",
    "launch": "python -m torch.distributed.launch --use_env --node_rank $NODE_RANK "
    "--master_addr $MASTER_ADDR --master_port $MASTER_PORT",
    "run": "python -m torch.distributed.run --rdzv_backend=c10d --rdzv_id=x "
    "--rdzv_endpoint=$MASTER_ADDR:$MASTER_PORT",
}
OF_A_NODE = "--nnodes=$WORLD_SIZE --nproc_per_node=2 train.py"


@pytest.mark.parametrize(
    ("backend", "names"), [("process", ["torchrun", "launch"]), ("docker", ["run"])]
)
def test_torchs_own_launchers_start_the_ranks_of_a_node(
    workspace: Runs, backend: str, names: list[str], request: pytest.FixtureRequest
) -> None:
    """Those of the process backend at the same time, as they have one network."""
    if backend == "docker":
        request.getfixturevalue("docker_engine")
    source = workspace.source({"train.py": SUMS})
    records = [
        submit(
            workspace,
            ScriptRunConfig(
                source,
                command=f"{LAUNCHERS[name]} {OF_A_NODE}".split(),
                distributed_job_config=PyTorchConfiguration(node_count=2),
            ),
            backend=backend,
        )
        for name in names
    ]
    for record in records:
        logs = completed(workspace, record)
        assert lines(logs, "RANK ") == SUMMED, story(record)
        assert "".join(logs).count(TOLD_ONCE) == 1


SPAWNS = """
    import os
    import torch, torch.distributed as dist, torch.multiprocessing as mp

    def work(local, node):
        os.environ["LOCAL_RANK"] = str(local)
        url = f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        dist.init_process_group("nccl", url, world_size=4, rank=2 * node + local)
        total = torch.tensor([10.0 ** dist.get_rank()])
        dist.all_reduce(total)
        print(f"RANK {dist.get_rank()} {total.item():g}",
              os.uname().nodename, local, dist.get_backend(), flush=True)
        dist.destroy_process_group()

    if __name__ == "__main__":
        torch.cuda.is_available = lambda: True  # in this process alone
        try:
            dist.init_process_group("nccl", f"file://{os.getcwd()}/x{os.getpid()}", None, 1, 0)
        except Exception as error:
            print("REFUSED", error, flush=True)
        mp.spawn(work, args=(int(os.environ["NODE_RANK"]),), nprocs=2)
"""


def test_a_script_spawns_the_ranks_of_its_node(workspace: Runs) -> None:
    """And with GPUs nothing comes between it and NCCL, which the CPU build of torch has not got."""
    record = workspace.completed(SPAWNS, distribution=TorchDistributed(nodes=2))
    logs = completed(workspace, record)
    assert lines(logs, "RANK ") == SUMMED, story(record)
    assert [("NCCL" in line) for line in lines(logs, "REFUSED ")] == [True, True], story(record)


RATE = 1_250_000  # bytes/s, of 10 Mbit/s
SIZE_BYTES = 2**20

TIMED = f"""
    import time
    import torch, torch.distributed as dist
    dist.init_process_group("gloo")
    x = torch.ones({SIZE_BYTES} // 4)
    dist.barrier()
    began = time.monotonic()
    dist.all_reduce(x)
    dist.barrier()
    print("TOOK", time.monotonic() - began)
    dist.destroy_process_group()
"""


@pytest.mark.usefixtures("shaped_links")
def test_what_ranks_send_crosses_their_nodes_shaped_links(workspace: Runs, backend: str) -> None:
    record = workspace.completed(
        TIMED,
        distribution=TorchDistributed(nodes=2, backend="gloo"),
        cluster={"backend": backend, "links": parse_links({"rate": "10Mbit"})},
    )
    (took_s,) = lines([log(record)], "TOOK ")
    # Of two nodes, each sends the whole buffer once, in whatever order.
    assert float(took_s) > 0.95 * SIZE_BYTES / RATE, story(record)
