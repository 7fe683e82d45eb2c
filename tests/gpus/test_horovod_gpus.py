"""Horovod over Open MPI with a virtual GPU per process, as its users write it."""

from __future__ import annotations

import json

from simgrid_ml.testing.runs import Runs, cause, evidence, log, story

GPUS = {"vm_size": "Standard_NC12"}  # two K80 a node
K80_BYTES = 11441 * 2**20

TRAINING = """
    import hashlib, json
    import horovod.torch as hvd
    import torch, torch.nn.functional as F

    hvd.init()
    cuda = torch.cuda.is_available()
    torch.manual_seed(42)
    if cuda:
        torch.cuda.set_device(hvd.local_rank())
        torch.cuda.manual_seed(42)
    device = torch.device("cuda" if cuda else "cpu")

    pictures = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (pictures.flatten(1).sum(1) > 0).long()
    dataset = torch.utils.data.TensorDataset(pictures, labels)
    sampler = torch.utils.data.distributed.DistributedSampler(dataset, hvd.size(), hvd.rank())
    loader = torch.utils.data.DataLoader(dataset, 8, sampler=sampler, pin_memory=cuda)

    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Dropout(0.2),
        torch.nn.Flatten(), torch.nn.Linear(144, 2)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * hvd.size(), momentum=0.9)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    optimizer = hvd.DistributedOptimizer(
        optimizer, named_parameters=model.named_parameters(), compression=hvd.Compression.fp16)
    losses = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for x, y in loader:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(hvd.allreduce(loss.detach(), name="loss").item())
    weights = torch.cat([one.detach().flatten() for one in model.parameters()]).cpu()

    mine = torch.full((hvd.rank() + 1, 2), float(hvd.rank()), device=device)
    rows = hvd.allgather(mine)
    one, two = hvd.grouped_allreduce([mine[0], mine[0] * 2], op=hvd.Sum)
    there = {mine.device, rows.device, one.device, two.device, weights.to(device).device}
    told = {
        "losses": losses, "weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
        "rows": rows[:, 0].tolist(), "sums": [one.tolist(), two.tolist()],
        "devices": sorted(map(str, there)),
        "root": hvd.broadcast_object({"device": str(device)}, root_rank=0),
    }
    if cuda:
        properties = torch.cuda.get_device_properties(device)
        told["gpu"] = [properties.name, properties.total_memory, torch.cuda.device_count()]
        mine, other = hvd.local_rank(), 1 - hvd.local_rank()
        told["bytes"] = [torch.cuda.max_memory_allocated(gpu) > 0 for gpu in (mine, other)]
    print("TOLD", json.dumps(told))
"""


def told(runs: Runs, cluster: dict[str, str]) -> list[dict[str, object]]:
    record = runs.completed(TRAINING, mpi=(2, 2), cluster=cluster)
    lines = [line for rank in range(4) for line in log(record, rank).splitlines()]
    found = [json.loads(line[5:]) for line in lines if line.startswith("TOLD ")]
    assert len(found) == 4, story(record)
    return found


def test_training_with_a_gpu_per_process_is_that_on_cpus(workspace: Runs) -> None:
    """The usual script: pinned, broadcast, fp16 compression, dropout, metrics, every collective."""
    on_gpus, on_cpus = told(workspace, GPUS), told(workspace, {})
    for rank, (gpu, cpu) in enumerate(zip(on_gpus, on_cpus, strict=True)):
        for what in ("losses", "weights", "rows", "sums"):
            assert gpu[what] == cpu[what], what
        assert gpu["devices"] == [f"cuda:{rank % 2}"]
        assert gpu["root"] == {"device": "cuda"}
        assert gpu["gpu"] == ["Tesla K80", K80_BYTES, 2]
        assert gpu["bytes"] == [True, False]
    assert on_gpus[0]["rows"] == [0.0] + [1.0] * 2 + [2.0] * 3 + [3.0] * 4
    assert on_gpus[0]["sums"] == [[6.0, 6.0], [12.0, 12.0]]


FORGOT = """
    import horovod.torch as hvd, torch
    hvd.init()
    model = torch.nn.Linear(4, 2).cuda()  # of every process on cuda:0
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.allreduce(torch.ones(2).cuda())
"""


def test_processes_that_forget_set_device_fail_as_with_nccl(workspace: Runs) -> None:
    record = workspace.failed(FORGOT, mpi=(2, 2), cluster=GPUS)
    seen = cause(record) + evidence(record)
    assert "Duplicate GPU detected : local rank " in seen, story(record)
    assert "[simgrid-ml] both use cuda:0 of node" in seen, story(record)
    assert "torch.cuda.set_device(local_rank)" in seen, story(record)


GLOBAL = """
    import horovod.torch as hvd, torch
    hvd.init()
    torch.cuda.set_device(hvd.rank())
    hvd.allreduce(torch.ones(2).cuda())
"""


def test_the_global_rank_is_no_ordinal(workspace: Runs) -> None:
    record = workspace.failed(GLOBAL, mpi=(2, 2), cluster=GPUS)
    seen = cause(record) + evidence(record)
    assert "invalid device ordinal" in seen, story(record)
    assert "use the local rank, not the global one" in seen, story(record)
