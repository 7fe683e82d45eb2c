"""Collectives on real GPUs: by whom, staged or watched. Driven with tensors of the CPU.

What decides that a tensor is on a GPU is replaced, so that every tensor goes through the host's
copy; nothing here has run on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.environments.build import ensure
from simgrid_ml.record.journal import read_journal
from simgrid_ml.shim.virtual_gpu import caps_torch, collectives, collectives_torch
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.runs import Runs, log

PACKAGE = os.path.dirname(simgrid_ml.__file__)


def test_the_next_rung_is_one_below_what_is_used() -> None:
    staged = "nccl=staged, which carries collectives through host memory"
    several = {"NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    assert collectives.next_rung("nccl-by-rank", {}) == staged
    assert collectives.next_rung("nccl", several) == f"NCCL_MAX_CTAS=1; or {staged}"
    assert collectives.next_rung("nccl", {**several, "NCCL_MAX_CTAS": "1"}) == staged
    assert collectives.next_rung("nccl", {}).startswith("NCCL_DEBUG=INFO to see")


def test_each_rank_is_a_host_of_its_own_where_nccl_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NCCL_HOSTID", raising=False)
    monkeypatch.setenv(wire.GPU_COLLECTIVES_VARIABLE, "nccl")
    collectives.settle()
    assert "NCCL_HOSTID" not in os.environ
    monkeypatch.setenv(wire.GPU_COLLECTIVES_VARIABLE, "nccl-by-rank")
    monkeypatch.setenv("NCCL_HOSTID", "own")  # a job's own wins
    collectives.settle()
    assert os.environ["NCCL_HOSTID"] == "own"
    monkeypatch.delenv("NCCL_HOSTID")
    collectives.settle()
    assert os.environ["NCCL_HOSTID"] == f"{os.uname().nodename}-{os.getpid()}"


def watchers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "simgrid-ml-watch"]


def test_what_makes_no_progress_is_told_to_the_log_and_to_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(wire.RUN_DIR_VARIABLE, str(tmp_path))
    monkeypatch.setenv(wire.TASK_VARIABLE, "rank-0")
    monkeypatch.setenv(wire.GPU_COLLECTIVES_VARIABLE, "nccl-by-rank")
    collectives.Watch("the first collective", lambda: False, patience_s=0.01)
    for thread in watchers():
        thread.join()
    text = (
        "the first collective has not ended for 0.01 s; try nccl=staged, which carries collectives "
        "through host memory"
    )
    assert capsys.readouterr().err == f"simgrid-ml: {text}\n"
    (line,) = read_journal(str(tmp_path / wire.TASKS / "rank-0.jsonl"))
    assert (line["event"], line["text"]) == ("no-progress", text)


def test_what_ends_in_time_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    collectives.Watch("one that is over", lambda: True, patience_s=600)
    collectives.Watch("one that says so", patience_s=600).end()
    for thread in watchers():
        thread.join()
    assert capsys.readouterr().err == ""


def test_of_all_collectives_the_first_is_watched_until_the_gpu_is_through_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Event:
        over = False

        def query(self) -> bool:
            return self.over

    event = Event()
    monkeypatch.setattr(collectives_torch, "_mark", lambda: event)
    monkeypatch.setattr(collectives, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(collectives, "_LOOK_S", 0.001)
    monkeypatch.delenv(wire.RUN_DIR_VARIABLE, raising=False)
    first: list[object] = []

    def all_reduce(value: int) -> int:
        return value + 1

    watched = collectives_torch._watched(all_reduce, first)
    assert (watched(1), watched(2)) == (2, 3)
    (thread,) = watchers()
    thread.join()
    assert "all_reduce) has not ended for 0.05 s" in capsys.readouterr().err
    first.clear()
    event.over = True
    monkeypatch.setattr(collectives, "_PATIENCE_S", 600)
    assert watched(3) == 4
    for thread in watchers():
        thread.join()
    assert capsys.readouterr().err == ""


class Store(dict):
    """What the ranks of a group share."""

    def set(self, key: str, value: str) -> None:
        self[key] = value.encode()


class World(SimpleNamespace):
    """A group; a key, as c10d has them."""

    __hash__ = object.__hash__


def test_two_ranks_on_one_gpu_are_refused_where_gloo_would_carry_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SIMGRID_ML_GPU_NCCL_CHECK", raising=False)
    store = Store()
    store.set("simgrid-ml/gpu/1", "node0 00000001:00:00.0 GPU-v0")
    world = World(rank=lambda: 0, size=lambda: 2)
    c10d = SimpleNamespace(
        GroupMember=SimpleNamespace(WORLD=world),
        _world=SimpleNamespace(pg_map={world: ("gloo", store)}),
    )
    tensors = {
        "mine": SimpleNamespace(is_cuda=True, get_device=lambda: 0),
        "host": SimpleNamespace(is_cuda=False),
    }
    place = ["node0", "00000001:00:00.0", "GPU-v0", 0]
    monkeypatch.setattr(caps_torch, "place", lambda ordinal: tuple(place))
    calls: list[object] = []
    met: list[object] = []
    all_reduce = collectives_torch._met(c10d, lambda *given, **rest: calls.append(given), met)
    all_reduce(tensors["host"])
    all_reduce(tensors["mine"], group=object())
    assert (len(calls), met) == (2, [])
    with pytest.raises(RuntimeError, match="Duplicate GPU detected : rank 1 and rank 0"):
        all_reduce([tensors["host"], tensors["mine"]])
    met.clear()
    place[2] = "GPU-v1"
    all_reduce(tensors["mine"], group=world)
    all_reduce(tensors["mine"])
    assert (len(calls), len(met)) == (4, 1)


HOROVOD = """
    import json
    import torch
    from simgrid_ml.shim.virtual_gpu import horovod_staging

    staged = []
    def to_host(tensor):
        staged.append(tensor)
        return tensor.clone()
    horovod_staging.install.__defaults__ = (to_host,)

    import horovod.torch as hvd
    hvd.init()
    me, n = hvd.rank(), hvd.size()
    said = {}
    x = torch.full((3,), float(me + 1))
    said["sum"] = hvd.allreduce(x, op=hvd.Sum).tolist()
    said["input"] = x.tolist()
    y = x.clone()
    said["in place"] = [hvd.allreduce_(y, op=hvd.Sum) is y, y.tolist()]
    said["average"] = hvd.allreduce(x).tolist()
    group = [torch.full((2,), float(me)), torch.ones(1)]
    said["group"] = [t.tolist() for t in hvd.grouped_allreduce(group, op=hvd.Sum)]
    said["in group"] = [a is b for a, b in zip(hvd.grouped_allreduce_(group, op=hvd.Sum), group)]
    said["gather"] = hvd.allgather(torch.full((me + 1,), float(me))).tolist()
    said["broadcast"] = hvd.broadcast(x, 1).tolist()
    parts = torch.arange(3.0) + 10 * me
    out, sizes = hvd.alltoall(parts, splits=torch.tensor([1, 2], dtype=torch.int32))
    said["alltoall"] = [out.tolist(), sizes.tolist()]
    said["scatter"] = hvd.reducescatter(torch.arange(4.0), op=hvd.Sum).tolist()
    handle = hvd.allreduce_async_(y, op=hvd.Sum)
    while not hvd.poll(handle):
        pass
    said["async"] = hvd.synchronize(handle) is y
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), 1.0), model.named_parameters())
    hvd.broadcast_parameters(model.state_dict(), 0)
    before = model.weight.detach().clone()
    model(torch.full((1, 2), float(me))).sum().backward()
    optimizer.step()
    said["step"] = [round(x, 6) for x in (before - model.weight.detach())[0].tolist()]
    said["staged"] = len(staged) > 15
    print(json.dumps(said))
"""


def test_horovods_cpu_build_gets_copies_and_its_results_come_back(workspace: Runs) -> None:
    record = workspace.completed(
        HOROVOD, mpi=(1, 2), variables={wire.HOOKS_VARIABLE: "gpu_collectives"}
    )
    told, result = log(record, 0).splitlines()[:2]
    assert "Horovod is built for the CPU: tensors of GPUs are reduced in host memory" in told
    (other,) = [line for line in log(record, 1).splitlines() if line.startswith("{")]
    common = {
        "sum": [3.0] * 3,
        "in place": [True, [3.0] * 3],
        "average": [1.5] * 3,
        "group": [[1.0, 1.0], [2.0]],
        "in group": [True, True],
        "gather": [0.0, 1.0, 1.0],
        "broadcast": [2.0] * 3,
        "async": True,
        "step": [0.5, 0.5],
        "staged": True,
    }
    assert json.loads(result) == {
        **common,
        "input": [1.0] * 3,
        "alltoall": [[0.0, 10.0], [1, 1]],
        "scatter": [0.0, 2.0],
    }
    assert json.loads(other) == {
        **common,
        "input": [2.0] * 3,
        "alltoall": [[1.0, 2.0, 11.0, 12.0], [2, 2]],
        "scatter": [4.0, 6.0],
    }


TORCH = """
    import json, os, sys
    from simgrid_ml.shim.virtual_gpu import collectives_torch

    staged = []
    def to_host(tensor):
        if any(tensor is copy for copy in staged):
            return None
        staged.append(tensor.clone())
        return staged[-1]
    collectives_torch.install.__defaults__ = (to_host,)
    import torch
    import torch.distributed as dist

    me = int(os.environ["RANK"])
    dist.init_process_group(
        "nccl", sys.argv[1], rank=me, world_size=2, device_id=torch.device("cuda", 0))
    said = {"backend": dist.get_backend()}
    x = torch.full((2,), float(me + 1))
    dist.all_reduce(x)
    said["plain"] = [x.tolist(), len(staged)]       # Gloo takes these where they are
    out = torch.zeros(1)
    dist.reduce_scatter_tensor(out, torch.arange(2.0))
    said["scattered"] = out.tolist()
    both = torch.zeros(2)
    work = dist.all_gather_into_tensor(both, torch.ones(1) * me, async_op=True)
    said["gathered"] = [work.wait(), both.tolist()]
    there = torch.zeros(1)
    if me == 0:
        dist.send(torch.tensor([7.0]), 1)
        dist.recv(there, 1)
    else:
        dist.recv(there, 0)
        dist.send(there + 1, 0)
    other = torch.zeros(1)
    jobs = [dist.P2POp(dist.isend, torch.tensor([float(me)]), 1 - me),
            dist.P2POp(dist.irecv, other, 1 - me)]
    for work in dist.batch_isend_irecv(jobs):
        work.wait()
    said["sent"] = [there.tolist(), other.tolist()]
    said["staged"] = len(staged)
    group = dist.new_group(backend="nccl")
    said["group"] = dist.get_backend(group)
    print(json.dumps(said), flush=True)
    dist.destroy_process_group()
"""


def test_gloo_carries_what_is_given_to_nccl_and_what_it_cannot_is_staged(
    tmp_path: Path, environment: EnvironmentSpec
) -> None:
    path = tmp_path / "python"
    path.mkdir()
    (path / "simgrid_ml").symlink_to(PACKAGE)
    (path / "sitecustomize.py").symlink_to(os.path.join(PACKAGE, "shim/hooks/sitecustomize.py"))
    (tmp_path / "script.py").write_text(textwrap.dedent(TORCH))
    python = ensure(environment).python
    ranks = [
        subprocess.Popen(
            [python, str(tmp_path / "script.py"), f"file://{tmp_path}/meet"],
            env={
                "PYTHONPATH": str(path),
                "RANK": str(rank),
                "GLOO_SOCKET_IFNAME": "lo",
                wire.HOOKS_VARIABLE: "gpu_collectives",
                wire.GPU_COLLECTIVES_VARIABLE: "gloo",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [rank.communicate() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], ended
    assert "carried by Gloo and MPI, through host memory" in ended[0][1]
    assert "carried by" not in ended[1][1]
    for me, (out, _) in enumerate(ended):
        assert json.loads(out) == {
            "backend": "gloo",
            "plain": [[3.0, 3.0], 0],
            "scattered": [2.0 * me],
            "gathered": [True, [0.0, 1.0]],
            "sent": [[8.0] if me == 0 else [7.0], [float(1 - me)]],
            "staged": 8,
            "group": "gloo",
        }
