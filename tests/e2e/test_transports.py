"""What carries the bytes between ranks, as Open MPI itself tells, and by which interface."""

from __future__ import annotations

import ctypes
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap

import pytest

from simgrid_ml import wire
from simgrid_ml.record.run import RunRecord
from simgrid_ml.testing.runs import Runs, log, story

TALKS = """
    import numpy
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    data = numpy.full(1 << 22, world.rank, dtype=numpy.uint8)
    for peer in range(1, world.size):
        if world.rank == 0:
            world.Send(data, dest=peer)
        elif world.rank == peer:
            world.Recv(data, source=0)
            assert not data.any()
    print("talked", flush=True)
"""

TELL_ALL = {
    f"SIMGRID_ML_MCA_{framework}_base_verbose": "100" for framework in ("bml", "btl", "smsc")
}


def carriers(record: RunRecord, rank: int) -> dict[int, str]:
    """By which component a rank sends to each other rank."""
    found = re.findall(r"bml: Using (\w+) btl for send to \[\[\d+,\d+\],(\d+)\]", log(record, rank))
    return {int(peer): carrier for carrier, peer in found}


def called(record: RunRecord, rank: int) -> set[str]:
    """The addresses to which a rank made connections."""
    return set(re.findall(r"attempting to connect\(\) to \S+ address (\S+)", log(record, rank)))


@pytest.fixture
def copies_once() -> bool:
    """Whether this host lets a process read the memory of its like, as CMA does."""
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        byte = ctypes.create_string_buffer(1)
        segment = (ctypes.c_void_p * 2)(ctypes.addressof(byte), 1)
        done = libc.process_vm_readv(child, segment, 1, segment, 1, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return bool(done == 1)


@pytest.mark.parametrize("backend", ["process", "docker"])
def test_ranks_share_memory_within_a_node_and_use_one_interface_between_nodes(
    workspace: Runs, backend: str, copies_once: bool, request: pytest.FixtureRequest
) -> None:
    if backend == "docker":
        request.getfixturevalue("docker_engine")
    record = workspace.completed(
        TALKS, mpi=(2, 2), variables=TELL_ALL, cluster={"backend": backend}
    )
    for rank, expected in {
        0: {0: "self", 1: "sm", 2: "tcp", 3: "tcp"},
        3: {0: "tcp", 3: "self"},
    }.items():
        assert expected.items() <= carriers(record, rank).items(), story(record)
    nodes = record.document(wire.PLACEMENT)["node_info"]
    addresses = {node["address"] for node in nodes.values()} if backend == "docker" else {LOOPBACK}
    for rank in range(4):
        assert called(record, rank) <= addresses, story(record)
    assert called(record, 0), "it called somebody at all"
    assert "selected shared-memory single-copy component: cma" in log(record)
    refused = "mca_smsc_cma_module_get_endpoint: can not proceed" in log(record)
    assert refused is not copies_once, story(record)


LOOPBACK = "127.0.0.1"
MANY = {"other0": "10.99.1.1", "other1": "10.99.2.1", "other2": "10.99.3.1"}

ON_A_HOST_WITH_MANY_INTERFACES = """
    import pickle, sys
    from simgrid_ml.node import isolation
    from simgrid_ml.record.run import RunState

    workspace, script, options, interfaces = pickle.load(sys.stdin.buffer)
    isolation.unshare_network()
    held = [isolation.open_tun(name, address, "255.255.255.0", relay=False)
            for name, address in interfaces.items()]
    print(workspace.run(script, **options).path)
"""


@pytest.fixture
def own_network() -> None:
    """Skips where this host allows no network of one's own, to put interfaces into."""
    asked = "from simgrid_ml.node import isolation; isolation.unshare_network()"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no own network: {done.stderr.splitlines()[-1]}; see `simgrid-ml doctor`")


def run_among(
    interfaces: dict[str, str], workspace: Runs, script: str | None, **options: object
) -> str:
    """The path of a run that has ended, on a host whose network is loopback and ``interfaces``.

    Nothing answers behind them: what is sent there is lost.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ON_A_HOST_WITH_MANY_INTERFACES)],
        input=pickle.dumps((workspace, script, options, interfaces)),
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    return done.stdout.decode().strip()


SCRIPT = """
    import os, subprocess, sys
    if os.environ["AZ_BATCH_IS_CURRENT_NODE_MASTER"] == "true":
        sys.exit(subprocess.run(
            ["horovodrun", "-np", "2", "-H", "node0:1,node1:1", "--gloo", sys.executable, "gloo.py"]
        ).returncode)
"""
GLOO = """
    import os
    import horovod.torch as hvd
    import torch, torch.distributed as dist
    hvd.init()
    summed = hvd.allreduce(torch.full((1000,), hvd.rank() + 1.0), op=hvd.Sum)
    dist.init_process_group("gloo", rank=hvd.rank(), world_size=hvd.size(),
                            init_method=f"file://{os.getcwd()}/meeting")
    again = torch.full((1000,), 1.0)
    dist.all_reduce(again)
    dist.destroy_process_group()
    print("sums", summed.max().item(), again.max().item(), flush=True)
"""


@pytest.mark.usefixtures("own_network")
def test_open_mpi_calls_no_other_interface_of_the_host(workspace: Runs) -> None:
    path = run_among(MANY, workspace, TALKS, mpi=(2, 2), variables=TELL_ALL)
    record = RunRecord(path)
    assert record.state.value == "Completed", story(record)
    assert set().union(*(called(record, rank) for rank in range(4))) == {LOOPBACK}, story(record)


@pytest.mark.usefixtures("own_network")
def test_gloo_of_horovod_and_of_torch_work_among_many_interfaces(workspace: Runs) -> None:
    texts = {"train.py": SCRIPT, "gloo.py": GLOO}
    source = workspace.source({name: textwrap.dedent(text) for name, text in texts.items()})
    path = run_among(MANY, workspace, None, source=source, entry_script="train.py", nodes=2)
    record = RunRecord(path)
    assert record.state.value == "Completed", story(record)
    assert sorted(log(record).splitlines()) == [
        f"[{rank}]<stdout>:sums 3.0 2.0" for rank in (0, 1)
    ], story(record)
