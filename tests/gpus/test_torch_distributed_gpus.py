"""torch.distributed on virtual GPUs: DDP, FSDP2, DataParallel, and who forgets to choose one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml import wire
from simgrid_ml.cli import summary
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.job import TorchDistributed
from simgrid_ml.testing.runs import Runs, cause, evidence, story

TOLD_ONCE = "simgrid-ml: the GPUs of the nodes live in host memory: Gloo carries what NCCL would\n"
GPUS = {"vm_size": "Standard_NC12"}  # two K80 a node

TRAINING = """
    import json, os, sys
    import torch, torch.distributed as dist
    from torch.nn.functional import cross_entropy
    from torch.nn.parallel import DistributedDataParallel

    cuda = torch.cuda.is_available()
    local_rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda and "bound" not in sys.argv:
        torch.cuda.set_device(device)
    bound = {"device_id": device} if cuda and "bound" in sys.argv else {}
    dist.init_process_group("nccl", **bound)
    rank, size = dist.get_rank(), dist.get_world_size()

    made = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 16, generator=made), torch.randint(0, 4, (64,), generator=made)
    x, y = x[rank::size].to(device), y[rank::size].to(device)
    torch.manual_seed(rank)  # all begin with rank 0's weights
    model = torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model) if "sync" in sys.argv else model
    model = DistributedDataParallel(
        model.to(device), device_ids=[local_rank] if cuda else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for step in range(10):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean, op=dist.ReduceOp.AVG)
        losses.append(mean.item())
    dist.barrier()
    names = [None] * size
    dist.all_gather_object(names, f"{os.uname().nodename} {loss.device}")
    told = {"losses": losses, "names": names, "backend": dist.get_backend()}
    if cuda:
        pieces = [torch.zeros(1 + one, device=device) for one in range(size)]
        dist.all_gather(pieces, torch.full((1 + rank,), float(rank), device=device))
        told["pieces"] = [piece.tolist() for piece in pieces]
        both = dist.new_group(backend="cpu:gloo,cuda:nccl")
        host = torch.ones(1)
        dist.all_reduce(host, group=both)
        told["host"] = host.item()
        try:
            dist.all_reduce(torch.ones(1))
        except RuntimeError as error:
            told["refused"] = str(error)
        try:
            DistributedDataParallel(torch.nn.Linear(2, 2))
        except RuntimeError as error:
            told["refused model"] = str(error)
    print("TOLD", json.dumps(told))
    dist.destroy_process_group()
"""


def logs(record: RunRecord) -> list[str]:
    tasks = record.document(wire.LAUNCH)["tasks"]
    return [Path(task["log"]).read_text(encoding="utf-8") for task in tasks.values()]


def told(runs: Runs, *arguments: str, cluster: dict[str, str]) -> list[dict[str, Any]]:
    distribution = TorchDistributed(nodes=2, processes_per_node=2)
    record = runs.completed(TRAINING, *arguments, distribution=distribution, cluster=cluster)
    lines = [line for text in logs(record) for line in text.splitlines()]
    found = [json.loads(line[5:]) for line in lines if line.startswith("TOLD ")]
    assert len(found) == 4, story(record)
    said = [text.count(TOLD_ONCE) for text in logs(record)]
    assert said == [int(bool(cluster)), 0, 0, 0], story(record)
    substituted = [line for line in summary.substitutions(record) if line.startswith("NCCL: Gloo")]
    assert len(substituted) == 1, story(record)
    return found


ON_CPUS: list[dict[str, Any]] = []


@pytest.fixture(params=["process", "docker"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return str(request.param)


def test_data_parallel_training_on_two_by_two_gpus_is_that_on_cpus(
    workspace: Runs, backend: str
) -> None:
    """And a group of NCCL carries what NCCL would, and nothing else."""
    bound = ["bound"] if backend == "docker" else []
    on_gpus = told(workspace, *bound, cluster={**GPUS, "backend": backend})
    if not ON_CPUS:  # for both kinds of nodes
        ON_CPUS.extend(told(workspace, cluster={}))
    for gpu, cpu in zip(on_gpus, ON_CPUS, strict=True):
        assert gpu["losses"] == cpu["losses"]
        assert (gpu["backend"], cpu["backend"]) == ("nccl", "gloo")
        assert gpu["names"] == [f"node{rank // 2} cuda:{rank % 2}" for rank in range(4)]
        assert gpu["pieces"] == [[float(rank)] * (1 + rank) for rank in range(4)]
        assert gpu["host"] == 4.0
        for what in ("refused", "refused model"):
            assert "No backend type associated with device type cpu" in gpu[what]


ALONE = """
    import json, os, tempfile
    import torch, torch.distributed as dist, torch.multiprocessing as mp
    import torch.distributed.checkpoint as checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    def model():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))

    def batch(step):
        return torch.randn(8, 16, generator=torch.Generator().manual_seed(step))

    def train(model, optimizer, steps, of):
        losses = []
        for step in steps:
            loss = model(of(batch(step))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def fresh(make):
        made = make(model())
        return made, torch.optim.Adam(made.parameters(), lr=0.01)

    def sharded(made):
        for layer in made:
            if isinstance(layer, torch.nn.Linear):
                fully_shard(layer)
        return fully_shard(made)

    def work(rank, folder, told):
        torch.cuda.set_device(rank)
        dist.init_process_group(
            "nccl", f"file://{folder}/meet", rank=rank, world_size=2,
            device_id=torch.device("cuda", rank))
        half = lambda whole: whole[4 * rank:4 * rank + 4].cuda()
        def mean(losses):
            means = torch.tensor(losses, device="cuda")
            dist.all_reduce(means, op=dist.ReduceOp.AVG)
            return means.tolist()

        ddp = fresh(lambda made: DistributedDataParallel(made.cuda(), device_ids=[rank]))
        told["ddp"] = mean(train(*ddp, range(4), half))

        first = fresh(sharded)
        losses = train(*first, range(2), half)
        saved, state = get_state_dict(*first)
        checkpoint.save({"model": saved, "optimizer": state}, checkpoint_id=f"{folder}/saved")
        resumed = fresh(sharded)
        saved, state = get_state_dict(*resumed)
        loaded = {"model": saved, "optimizer": state}
        checkpoint.load(loaded, checkpoint_id=f"{folder}/saved")
        set_state_dict(
            *resumed, model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"])
        told["fsdp"] = mean(losses + train(*resumed, range(2, 4), half))
        told["kinds"] = sorted({type(one).__name__ for one in resumed[0].parameters()})
        told["devices"] = sorted({str(one.device) for one in first[0].parameters()})

        norm = DistributedDataParallel(torch.nn.SyncBatchNorm(16).cuda(), device_ids=[rank])
        seen = norm(half(batch(9)))
        whole = torch.nn.BatchNorm1d(16)
        told["normalized"] = torch.allclose(seen.cpu(), half(whole(batch(9))).cpu(), atol=1e-5)
        told["variance"] = torch.allclose(norm.module.running_var.cpu(), whole.running_var)
        dist.destroy_process_group()
        if rank == 0:
            json.dump(told, open(f"{folder}/told", "w"))

    if __name__ == "__main__":
        folder = tempfile.mkdtemp()
        mp.spawn(work, args=(folder, {}), nprocs=2)
        told = json.load(open(f"{folder}/told"))
        told["cpu"] = train(*fresh(lambda made: made), range(4), lambda whole: whole)
        told["dp"] = train(*fresh(lambda made: DataParallel(made).cuda()), range(4),
                           lambda whole: whole)
        told["used"] = [torch.cuda.max_memory_allocated(gpu) > 0 for gpu in range(2)]
        print("TOLD", json.dumps(told))
"""


def test_one_task_drives_all_gpus_of_its_node(workspace: Runs) -> None:
    """Spawned DDP, FSDP2 that is saved and resumed, SyncBatchNorm, DataParallel."""
    record = workspace.completed(ALONE, cluster=GPUS)
    lines = [line for text in logs(record) for line in text.splitlines()]
    (seen,) = [json.loads(line[5:]) for line in lines if line.startswith("TOLD ")]
    for how in ("ddp", "fsdp", "dp"):
        # halves of a batch are summed in another order
        assert seen[how] == pytest.approx(seen["cpu"], rel=1e-5), how
    assert seen["kinds"] == ["DTensor"]
    assert seen["devices"] == ["cuda:0"]
    assert seen["normalized"] and seen["variance"]
    assert seen["used"] == [True, True]


FORGOT = """
    import os
    import torch, torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    dist.init_process_group("nccl")
    model = DistributedDataParallel(torch.nn.Linear(4, 2).cuda())
    model(torch.ones(2, 4).cuda()).sum().backward()
"""


def test_ranks_that_forget_set_device_fail_as_with_nccl(workspace: Runs) -> None:
    """Those of the other node fail too, and no connection that breaks is told instead."""
    distribution = TorchDistributed(nodes=2, processes_per_node=2)
    record = workspace.failed(FORGOT, distribution=distribution, cluster=GPUS)
    seen = cause(record) + evidence(record)
    assert "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device" in seen, story(record)
    assert "[simgrid-ml] both use cuda:0 of node0" in seen, story(record)


TWO_JOBS = """
    import sys
    import torch, torch.distributed as dist, torch.multiprocessing as mp

    def work(which, folder):  # each its own group, both on the only GPU that they see
        dist.init_process_group("nccl", f"file://{folder}/{which}", rank=0, world_size=1)
        total = torch.ones(1).cuda()
        dist.all_reduce(total)
        dist.all_reduce(total, group=dist.new_group([0]))
        print("SUM", which, total.item(), flush=True)
        dist.destroy_process_group()

    if __name__ == "__main__":
        import tempfile
        mp.spawn(work, args=(tempfile.mkdtemp(),), nprocs=2)
"""


def test_processes_of_different_groups_share_a_gpu(workspace: Runs) -> None:
    record = workspace.completed(TWO_JOBS, cluster={"vm_size": "Standard_NC6"})
    lines = sorted(line for text in logs(record) for line in text.splitlines() if "SUM" in line)
    assert lines == ["SUM 0 1.0", "SUM 1 1.0"], story(record)
