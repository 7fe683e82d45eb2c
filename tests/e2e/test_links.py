"""Real Open MPI and Horovod over shaped links; lower bounds only, as hosts may be busy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml import wire
from simgrid_ml.network.bridge import burst_bytes
from simgrid_ml.network.choose import abilities
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.links_text import parse_links
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.processes import RunProcesses, host_processes, wait_until
from simgrid_ml.testing.runs import Runs, log, story

pytestmark = pytest.mark.usefixtures("shaped_links")

SIZE_BYTES = 4 * 2**20
MBIT = 125_000.0

ALLREDUCE = f"""
    import os, time
    import numpy as np
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    mine = np.full({SIZE_BYTES} // 4, world.rank + 1, dtype=np.float32)
    total = np.empty_like(mine)
    def allreduce_s():
        world.Barrier()
        began = time.monotonic()
        world.Allreduce(mine, total)
        world.Barrier()
        assert (total == world.size * (world.size + 1) / 2).all()
        return time.monotonic() - began
"""

UNTIL_TOLD = (
    ALLREDUCE
    + """
    print("before", allreduce_s(), flush=True)
    while not os.path.exists("changed"):
        time.sleep(0.02)
    world.Barrier()
    print("after", allreduce_s(), flush=True)
"""
)

HOROVOD = """
    import os, socket, time
    import torch
    import horovod.torch as hvd
    hvd.init()
    assert hvd.local_size() == 1
    began = time.monotonic()
    total = hvd.allreduce(torch.ones(2**20), op=hvd.Sum)
    took_s = time.monotonic() - began
    assert (total == hvd.size()).all()
    print("took", took_s, "on", socket.gethostname(), hvd.size())
"""

SEEN = """
    import os, socket, subprocess
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    names = world.allgather(os.environ["SIMGRID_ML_NODE"])
    devices = sorted(name for _, name in socket.if_nameindex())
    print(devices, [socket.gethostbyname(name) for name in names])
"""


@pytest.fixture(params=["process", "docker"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return str(request.param)


def links(**words: Any) -> Mapping[str, Any]:
    return {"links": parse_links(words)}


def figures(record: RunRecord, word: str) -> float:
    """The number behind ``word`` in what rank 0 wrote."""
    words = log(record).split()
    return float(words[words.index(word) + 1])


@pytest.mark.parametrize("nodes", [2, 4])
def test_an_allreduce_takes_at_least_what_the_rate_allows(
    workspace: Runs, nodes: int, backend: str
) -> None:
    script = ALLREDUCE + '    print("took", allreduce_s())\n'
    wish = {"backend": backend, **links(rate="100Mbit")}
    record = workspace.completed(script, mpi=(nodes, 1), cluster=wish)
    # Every element crosses each node's link 2(n-1)/n times, whatever the algorithm.
    bound_s = 2 * (nodes - 1) / nodes * SIZE_BYTES / (100 * MBIT)
    assert figures(record, "took") > 0.95 * bound_s, story(record)


@pytest.mark.usefixtures("docker_engine")
def test_the_kernel_shapes_bare_rates_of_containers(workspace: Runs) -> None:
    lacks = abilities(None).no_htb
    if lacks:
        pytest.skip(f"{lacks}: `simgrid-ml doctor` says what to do")
    wish = {"backend": "docker", **links(rate="100Mbit", method="htb")}
    record = waiting(workspace, UNTIL_TOLD, **wish)
    assert program("link", "show", record=record).stdout.startswith("htb (kernel)")
    assert "rates alone" in program(
        "link", "set", "node0", "--delay", "1ms", record=record, code=2
    ).stderr  # fmt: skip
    program("link", "set", "node0", "--rate", "50Mbit", record=record)
    go_on(record)
    workspace.ended(record)
    beyond_buckets = SIZE_BYTES - 4 * burst_bytes(100 * MBIT)
    assert figures(record, "before") > beyond_buckets / (100 * MBIT), story(record)
    assert figures(record, "after") > beyond_buckets / (50 * MBIT), story(record)


def test_a_delay_is_crossed_once_for_each_link(workspace: Runs) -> None:
    script = ALLREDUCE + '    print("took", allreduce_s())\n'
    record = workspace.completed(script, mpi=(2, 1), cluster=links(delay="20ms"))
    assert figures(record, "took") > 2 * 0.020, story(record)


@pytest.mark.parametrize("nodes", [2, 4])
def test_horovod_spans_nodes_with_shaped_links(workspace: Runs, nodes: int) -> None:
    wish = links(rate="200Mbit", delay="1ms")
    record = workspace.completed(HOROVOD, mpi=(nodes, 1), cluster=wish)
    bound_s = 2 * (nodes - 1) / nodes * SIZE_BYTES / (200 * MBIT)
    assert figures(record, "took") > 0.95 * bound_s, story(record)
    last = nodes - 1
    assert f"on node{last} {nodes}" in log(record, last), story(record)


def test_nodes_have_one_interface_and_names_lead_to_it(workspace: Runs) -> None:
    record = workspace.completed(SEEN, mpi=(2, 1), cluster=links(rate="1Gbit"))
    info = record.document(wire.PLACEMENT)["node_info"]
    addresses = [info[node]["address"] for node in ("node0", "node1")]
    assert all(address.startswith("10.") for address in addresses)
    assert f"['eth0', 'lo'] {addresses}" in log(record), story(record)
    assert "network" in info["node0"]["isolation"]


def test_the_record_says_which_way_was_chosen_and_for_what(workspace: Runs) -> None:
    wish = links(
        rate="1Gbit",
        delay="1ms",
        nodes={"node1": {"rate": "500Mbit"}},
        racks=[{"name": "left", "nodes": ["node0"], "oversubscription": 2}],
    )
    record = workspace.completed(SEEN, mpi=(2, 1), cluster=wish)
    network = record.document(wire.PLACEMENT)["network"]
    assert network["method"] == "relay"
    assert network["program"] in ("c", "python")
    assert {target: link["text"] for target, link in network["links"].items()} == {
        "node0": "1 Gbit/s, 1 ms",
        "node1": "500 Mbit/s, 1 ms",
        "left": "500 Mbit/s",
    }


def test_runs_without_links_have_no_relay(workspace: Runs) -> None:
    record = workspace.completed("print(1)", nodes=2)
    assert record.document(wire.PLACEMENT)["network"] is None


ASKS_A_PEER = """
import os, socket, time
print("uid", os.getuid())
if os.environ["SIMGRID_ML_NODE"] == "node1":
    with socket.create_server(("node1", 4000)) as server:
        peer = server.accept()[0]
        peer.send(peer.recv(1))
else:
    while True:
        began = time.monotonic()
        try:
            peer = socket.create_connection(("node1", 4000))
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    peer.send(b"x")
    peer.recv(1)
    print("took", time.monotonic() - began)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="then all these tests run as a user")
def test_a_user_who_may_open_tun_devices_needs_no_root(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "src")
    (tmp_path / "src" / "ask.py").write_text(ASKS_A_PEER)
    with nothing_left(str(tmp_path)):
        words = ["run", "--nodes", "2", "--plain", "--delay", "10ms"]
        words += ["--interpreter", sys.executable, "src/ask.py"]
        # In a user namespace this process's files are those of the user 1000, who has no rights.
        user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
        done = subprocess.run(
            [*user, sys.executable, "-m", "simgrid_ml", *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert "[0] uid 1000" in done.stdout, done.stdout + done.stderr
    took_s = float(done.stdout.partition("[0] took ")[2].split()[0])
    assert took_s > 2 * 2 * 2 * 0.010  # connecting and asking are a round trip each, over two links


# -- live ----------------------------------------------------------------------------------


def program(*words: str, record: RunRecord, code: int = 0) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "simgrid_ml", *words, "--run", record.id]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    return done


def waiting(workspace: Runs, script: str, **cluster: Any) -> RunRecord:
    """A live run of two nodes, once rank 0 has written a line."""
    workspace.store = RunStore.of_workspace("local")  # where the command line looks
    record = workspace.submit(script, mpi=(2, 1), cluster=cluster)
    path = record.file(wire.ARTIFACTS, "azureml-logs", "70_driver_log_0.txt")
    wait_until(lambda: os.path.exists(path) and os.path.getsize(path), "rank 0 writes a line")
    return record


def go_on(record: RunRecord) -> None:
    with open(record.file(wire.WORK, "changed"), "w", encoding="utf-8"):
        pass


def test_a_link_is_changed_while_the_run_is_live(workspace: Runs, backend: str) -> None:
    record = waiting(workspace, UNTIL_TOLD, backend=backend, **links(rate="1Gbit"))
    said = program("link", "set", "node1", "--rate", "40Mbit", "--delay", "3ms", record=record)
    assert said.stdout == "The link of node1 is now: 40 Mbit/s, 3 ms\n"
    go_on(record)
    workspace.ended(record)
    assert figures(record, "after") > 0.95 * SIZE_BYTES / (40 * MBIT), story(record)
    assert figures(record, "before") < figures(record, "after"), story(record)
    (event,) = [event for event in record.events() if event["event"] == "link-set"]
    assert event["target"] == "node1"
    assert event["asked"] == {"rate": "40Mbit", "delay": "3ms"}
    assert event["text"] == "40 Mbit/s, 3 ms"


def test_the_links_of_a_live_run_are_shown_with_what_they_carried(workspace: Runs) -> None:
    record = waiting(workspace, UNTIL_TOLD, **links(rate="1Gbit"))
    shown = program("link", "show", record=record).stdout
    assert shown.startswith("relay (")
    assert "node0" in shown and "1 Gbit/s" in shown
    told = json.loads(program("link", "show", "--json", record=record).stdout)
    for node in ("node0", "node1"):
        for way in ("up", "down"):
            assert told["cables"][f"{node} {way}"]["bytes"] > SIZE_BYTES
    go_on(record)
    workspace.ended(record)


def test_what_cannot_be_changed_is_refused_and_nothing_is_logged(workspace: Runs) -> None:
    record = waiting(workspace, UNTIL_TOLD, **links(delay="1ms"))
    for words, said in (
        (("node7", "--rate", "1Gbit"), "there is no link 'node7' in this run"),
        (("node0", "--rate", "900Gbit"), "900 Gbit/s"),
        (("node0", "--rate", "fast"), "'fast' is not a rate"),
        (("node0", "--jitter", "2ms"), "a jitter of 2 ms exceeds the delay of 1 ms"),
        (("node0", "--loss", "100%"), "leaves nothing that arrives"),
        (("node0",), "nothing to change"),
    ):
        error = program("link", "set", *words, record=record, code=2).stderr
        assert said in error and "Try:" in error
    go_on(record)
    workspace.ended(record)
    assert not [event for event in record.events() if event["event"] == "link-set"]
    assert "it is Completed" in program("link", "show", record=record, code=2).stderr


def test_a_run_whose_links_are_not_shaped_says_so(workspace: Runs) -> None:
    record = waiting(workspace, UNTIL_TOLD)
    error = program("link", "set", "node0", "--rate", "1Gbit", record=record, code=2).stderr
    assert "the links of this run are not shaped" in error and "--rate 1Gbit" in error
    go_on(record)
    workspace.ended(record)


def test_no_relay_outlives_a_killed_supervisor(workspace: Runs) -> None:
    record = waiting(workspace, UNTIL_TOLD, **links(rate="1Gbit"))
    supervisor = RunProcesses(record).supervisor()
    relays = [
        process.pid
        for process in host_processes()
        if process.parent == supervisor and any("relay" in word for word in process.argv[:4])
    ]
    assert len(relays) == 1
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{relays[0]}"), "the relay is gone", 5.0)
    wait_until(lambda: not RunProcesses(record).all(), "its nodes are gone", 5.0)
    record.request_cancel()
