"""Nodes as containers: what a user's script finds there, what it cannot do, and what is left."""

from __future__ import annotations

import json
import os

import pytest

from simgrid_ml.backends.container import LABELS
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.spec.links import Links
from simgrid_ml.spec.value import from_plain
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs, log

DOCKER = {"backend": "docker"}

pytestmark = pytest.mark.usefixtures("docker_engine")


def seen(workspace: Runs, script: str, **cluster: object) -> dict[str, object]:
    """What the script's one rank prints as JSON."""
    record = workspace.completed(script, mpi=(1, 1), cluster={**DOCKER, **cluster})
    return dict(json.loads(log(record).strip().splitlines()[-1]))


def test_horovod_reduces_over_containers(workspace: Runs) -> None:
    script = """
        import socket
        import horovod.torch as hvd
        import torch
        hvd.init()
        total = hvd.allreduce(torch.tensor([float(hvd.rank())]), op=hvd.Sum).item()
        local = (hvd.local_rank(), hvd.local_size(), socket.gethostname())
        print(hvd.rank(), hvd.size(), *local, total)
    """
    record = workspace.completed(script, mpi=(2, 2), cluster=DOCKER)
    assert [log(record, rank).strip() for rank in range(4)] == [
        "0 4 0 2 node0 6.0",
        "1 4 1 2 node0 6.0",
        "2 4 0 2 node1 6.0",
        "3 4 1 2 node1 6.0",
    ]


def test_a_script_has_no_privilege_and_cannot_get_one(workspace: Runs) -> None:
    told = seen(
        workspace,
        """
        import json, os, re
        status = open("/proc/self/status").read()
        fields = dict(re.findall(r"^(\\w+):\\s*(\\w+)$", status, re.MULTILINE))
        sets = ("CapInh", "CapPrm", "CapEff", "CapAmb")
        refused = []
        for path in ("/etc/x", "/usr/x", "/x"):
            try:
                open(path, "w")
            except OSError as error:
                refused.append(path)
        print(json.dumps({
            "capabilities": [int(fields[name], 16) for name in sets],
            "no_new_privileges": fields["NoNewPrivs"],
            "refused": refused,
            "first": open("/proc/1/cmdline").read().split("\\0")[3],
            "uid": os.getuid(),
        }))
        """,
    )
    assert told["capabilities"] == [0, 0, 0, 0]
    assert told["no_new_privileges"] == "1"
    assert told["refused"] == ["/etc/x", "/usr/x", "/x"]
    assert str(told["first"]).endswith("agent.py")
    assert told["uid"] == os.getuid()


@pytest.mark.parametrize("links", [None, {"default": {"delay_s": 0.001}}])
def test_a_script_does_not_regain_what_its_agent_dropped(
    workspace: Runs, links: dict[str, object] | None
) -> None:
    """Neither where the agent left the host's network itself nor where the engine did it."""
    told = seen(
        workspace,
        """
        import ctypes, json, os
        libc = ctypes.CDLL(None, use_errno=True)
        unshared = libc.unshare(0x40000000)
        own_user = libc.unshare(0x10000000 | 0x40000000 | 0x20000)
        named = libc.sethostname(b"other", 5)
        import subprocess, threading
        threading.Thread(target=lambda: None).start()
        subprocess.run(["true"], check=True)
        print(json.dumps({"unshare": unshared, "user": own_user, "sethostname": named}))
        """,
        links=None if links is None else from_plain(links, Links, "links"),
    )
    assert told == {"unshare": -1, "user": -1, "sethostname": -1}


def test_nodes_reach_each_other_by_name_and_nothing_else(workspace: Runs) -> None:
    script = """
        import json, os, socket, sys
        names = sorted(name for _, name in socket.if_nameindex())
        listed = sorted(os.listdir("/sys/class/net"))
        peers = {name: socket.gethostbyname(name) for name in ("node0", "node1")}
        outside = socket.socket()
        outside.settimeout(2)
        try:
            outside.connect(("198.51.100.1", 80))
            reached = True
        except OSError:
            reached = False
        print(json.dumps({"interfaces": names, "listed": listed, "peers": peers, "out": reached}))
    """
    record = workspace.completed(script, nodes=2, cluster=DOCKER)
    told = json.loads(log(record).strip().splitlines()[-1])
    assert [name for name in told["interfaces"] if name in ("eth0", "lo")] == ["eth0", "lo"]
    assert told["listed"] == []
    assert len(set(told["peers"].values())) == 2
    assert told["out"] is False
    info = record.document("placement.json")["node_info"]
    assert {name: each["address"] for name, each in info.items()} == told["peers"]


def test_files_of_a_run_belong_to_the_caller(workspace: Runs) -> None:
    record = workspace.completed(
        "import os; os.makedirs('outputs', exist_ok=True); open('outputs/x', 'w').write('y')",
        cluster=DOCKER,
    )
    for base, folders, files in os.walk(record.path):
        for name in [*folders, *files]:
            assert os.lstat(os.path.join(base, name)).st_uid == os.getuid()
    assert record.artifact("outputs/x").bytes == 1


def test_containers_carry_the_run_and_its_node_as_labels(
    workspace: Runs, docker_engine: Engine
) -> None:
    record = workspace.submit("import time; time.sleep(600)", nodes=2, cluster=DOCKER)
    label = f"{LABELS.DIRECTORY}={record.path}"
    wait_until(lambda: record.state.value == "Running", "the run runs", 30.0)
    found = docker_engine.containers(label)
    assert sorted(each["Labels"][LABELS.NODE] for each in found) == ["node0", "node1"]
    assert {each["Labels"][LABELS.RUN] for each in found} == {record.id}
    record.request_cancel()
    workspace.ended(record)
    wait_until(lambda: not docker_engine.containers(label), "they are gone", 10.0)


def test_the_same_script_leaves_the_same_run_directory_on_either_backend(workspace: Runs) -> None:
    script = """
        import os
        from azureml.core import Run
        run = Run.get_context()
        run.log("loss", 0.5)
        os.makedirs("outputs", exist_ok=True)
        open(f"outputs/of-{os.environ['OMPI_COMM_WORLD_RANK']}", "w").write("x")
        print("done")
    """
    names = {}
    for backend in ("process", "docker"):
        record = workspace.completed(script, mpi=(2, 1), cluster={"backend": backend})
        names[backend] = [artifact.name for artifact in record.artifacts()]
    assert names["process"] == names["docker"]
