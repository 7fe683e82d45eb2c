"""Jobs that start ranks themselves, from a script on the first node: ssh, mpirun, horovodrun.

No command here has an option that names this emulation: they are those of a real cluster.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from horovod_kit import answers, started_by_first_node, topology

from simgrid_ml.record.follow import wait_state
from simgrid_ml.record.run import RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.testing.runs import Runs, log, story

TOPOLOGY = """
    import json
    import horovod.torch as hvd
    import os, torch
    hvd.init()
    summed = hvd.allreduce(torch.full((100_000,), hvd.rank() + 1.0), op=hvd.Sum)
    print(json.dumps({
        "topology": [hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(),
                     hvd.cross_rank(), hvd.cross_size()],
        "sum": [summed.min().item(), summed.max().item()],
        "node": os.uname().nodename,
        "controller": "mpi" if hvd.mpi_enabled() else "gloo",
    }))
"""


@pytest.fixture(params=["process", "docker"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "docker":
        request.getfixturevalue("docker_engine")
    return name


def test_ssh_runs_a_command_on_another_node_and_brings_its_streams_and_code_back(
    workspace: Runs, backend: str
) -> None:
    record = started_by_first_node(
        workspace,
        """
        address = os.environ["AZ_BATCH_NODE_LIST"].split(";")[1]
        for host in ("node1", "somebody@" + address, "localhost"):
            done = subprocess.run(
                ["ssh", "-o", "StrictHostKeyChecking=no", "-p", "22", host,
                 "uname -n; cat; echo $SIMGRID_ML_NODE >&2; exit 3"],
                input="typed", capture_output=True, text=True)
            print(done.returncode, done.stdout.split(), done.stderr.split())
        print(subprocess.run(["ssh", "node7", "true"], capture_output=True, text=True))
        """,
        backend=backend,
    )
    *three, refused = log(record).splitlines()
    assert three == [
        "3 ['node1', 'typed'] ['node1']",
        "3 ['node1', 'typed'] ['node1']",
        "3 ['node0', 'typed'] ['node0']",
    ]
    assert "returncode=255" in refused and "no node 'node7'; there are: node0, node1" in refused


def test_a_command_ends_with_the_ssh_that_started_it(workspace: Runs, backend: str) -> None:
    record = started_by_first_node(
        workspace,
        """
        import time
        ssh = subprocess.Popen(["ssh", "-n", "node1", f"cd {os.getcwd()}; echo $$ >pid; sleep 600"])
        while not os.path.exists("pid") or not os.path.getsize("pid"):
            time.sleep(0.05)
        lives = ["ssh", "-n", "node1", f"kill -0 $(cat {os.getcwd()}/pid)"]
        assert subprocess.run(lives).returncode == 0
        ssh.kill()
        while subprocess.run(lives, stderr=subprocess.DEVNULL).returncode == 0:
            time.sleep(0.05)
        print("gone")
        """,
        backend=backend,
    )
    assert log(record) == "gone\n", story(record)


HELLO = """
    import os, time
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    print([world.rank, world.size, os.uname().nodename, world.allreduce(world.rank),
           os.environ["SIMGRID_ML_NODE"], len(os.sched_getaffinity(0)) == os.cpu_count()])
    time.sleep(0.3)  # see wire.RANK_MIN_LIFE_S
"""


def test_mpirun_of_a_script_spans_the_nodes_by_its_default_ssh(
    workspace: Runs, backend: str
) -> None:
    record = started_by_first_node(
        workspace,
        """
        command = ["mpirun", "-np", "4", "--host", "node0:2,node1:2", sys.executable, "hello.py"]
        sys.exit(subprocess.run(command).returncode)
        """,
        backend=backend,
        hello=HELLO,
    )
    expected = [[rank, 4, f"node{rank // 2}", 6, f"node{rank // 2}", True] for rank in range(4)]
    said = [line for line in log(record).splitlines() if "plm:ssh: Warning" not in line]
    assert sorted(said) == [str(line) for line in expected], story(record)


def test_ssh_and_mpirun_work_in_what_simgrid_ml_exec_runs(workspace: Runs) -> None:
    workspace.store = RunStore.of_workspace("local")
    waits = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\n"
    source = workspace.source({"train.py": waits, "hello.py": textwrap.dedent(HELLO)})
    record = workspace.submit(None, source=source, entry_script="train.py", nodes=2)
    assert wait_state(record, 30, until=lambda now: now is RunState.RUNNING) is RunState.RUNNING
    command = "ssh node0 uname -n && mpirun -np 2 --host node0:1,node1:1 python hello.py; touch go"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "simgrid_ml", "exec", record.id, "node1"),
            *("--", "sh", "-c", command),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    workspace.ended(record)
    hello = [f"[{rank}, 2, 'node{rank}', 1, 'node{rank}', True]" for rank in (0, 1)]
    assert sorted(done.stdout.splitlines()) == [*hello, "node0"], (done, story(record))


@pytest.mark.parametrize("isolation", ["hostname", "none"])
def test_names_of_nodes_resolve_where_nodes_have_no_hosts_file_of_their_own(
    workspace: Runs, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    """Gloo takes part of its addresses from them, whatever interface it is told."""
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", isolation)
    record = started_by_first_node(
        workspace,
        """
        import socket
        address = os.environ["AZ_BATCH_NODE_LIST"].split(";")[1]
        print(socket.gethostbyname("node1") == address, socket.gethostbyname("localhost"))
        sys.exit(subprocess.run(["horovodrun", "-np", "2", "-H", "node0:1,node1:1", "--gloo",
                                 sys.executable, "topology.py"]).returncode)
        """,
        topology=TOPOLOGY,
    )
    assert log(record).startswith("True 127.0.0.1\n"), story(record)
    found = [(one["topology"], one["node"]) for one in answers(record)]
    assert found == [(topology(rank, 2, 1), f"node{rank}") for rank in (0, 1)], story(record)


@pytest.mark.parametrize("controller", ["gloo", "mpi"])
def test_horovodrun_of_a_script_spans_the_nodes(
    workspace: Runs, backend: str, controller: str
) -> None:
    record = started_by_first_node(
        workspace,
        f"""
        command = ["horovodrun", "-np", "4", "-H", "node0:2,node1:2", "--{controller}",
                   sys.executable, "topology.py"]
        sys.exit(subprocess.run(command).returncode)
        """,
        backend=backend,
        topology=TOPOLOGY,
    )
    assert answers(record) == [
        {
            "topology": topology(rank, 2, 2),
            "sum": [10.0, 10.0],
            "node": f"node{rank // 2}",
            "controller": controller,
        }
        for rank in range(4)
    ], story(record)
