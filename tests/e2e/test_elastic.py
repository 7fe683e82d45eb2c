"""Elastic Horovod: nodes join and leave while a job trains, and its ranks go on."""

from __future__ import annotations

import json
import textwrap
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.testing.runs import Runs, story

TRAIN = """
    import json, os, time
    import horovod.torch as hvd
    import torch

    hvd.init()
    torch.manual_seed(hvd.rank())  # only the state that Horovod hands over makes ranks equal
    model = torch.nn.Linear(4, 1)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.01), named_parameters=model.named_parameters())
    node = os.uname().nodename

    @hvd.elastic.run
    def train(state):
        with open(f"pid-{node}", "w") as stream:
            stream.write(str(os.getpid()))
        while True:
            optimizer.zero_grad()
            loss = model(torch.ones(8, 4)).pow(2).mean()
            loss.backward()
            optimizer.step()
            state.step += 1
            nodes = hvd.allgather_object(node)
            if hvd.rank() == 0:
                with open("outputs/steps.jsonl", "a") as stream:
                    stream.write(json.dumps([state.step, sorted(nodes), loss.item()]) + "\\n")
            if hvd.broadcast_object(os.path.exists("stop"), 0):
                return
            time.sleep(0.02)
            state.commit()

    train(hvd.elastic.TorchState(model=model, optimizer=optimizer, step=0))
"""

SCHEDULE = """
    import json, os, subprocess, sys, time

    if os.environ["AZ_BATCH_IS_CURRENT_NODE_MASTER"] == "false":
        sys.exit()

    def offer(*nodes):
        with open("hosts.new", "w") as stream:
            stream.writelines(node + ":1\\n" for node in nodes)
        os.rename("hosts.new", "hosts")

    def until(*nodes):
        "The last five steps were made by these."
        while True:
            assert launcher.poll() is None, f"horovodrun ended with {launcher.poll()}"
            try:
                with open("outputs/steps.jsonl") as stream:
                    last = [json.loads(line)[1] for line in stream.read().splitlines()[-5:]]
            except (FileNotFoundError, ValueError):
                last = []
            if last == [list(nodes)] * 5:
                return
            time.sleep(0.05)

    with open("discover.sh", "w") as stream:
        stream.write("#!/bin/sh\\ncat hosts\\n")
    os.chmod("discover.sh", 0o755)
    offer("node0", "node1")
    launcher = subprocess.Popen(
        ["horovodrun", "-np", "2", "--min-np", "1", "--max-np", "3",
         "--host-discovery-script", "./discover.sh", sys.executable, "elastic.py"])
    until("node0", "node1")
    offer("node0", "node1", "node2")
    until("node0", "node1", "node2")
    subprocess.run(["ssh", "node1", f"kill -9 $(cat {os.getcwd()}/pid-node1)"], check=True)
    until("node0", "node2")
    offer("node0", "node1")  # of which node1 has failed, and is not asked again
    until("node0")
    open("stop", "w").close()
    sys.exit(launcher.wait())
"""


@pytest.mark.parametrize("backend", ["process", "docker"])
def test_training_goes_on_while_nodes_join_fail_and_leave(
    workspace: Runs, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "docker":
        request.getfixturevalue("docker_engine")
    texts = {"train.py": SCHEDULE, "elastic.py": TRAIN}
    record = workspace.submit(
        None,
        source=workspace.source({name: textwrap.dedent(text) for name, text in texts.items()}),
        entry_script="train.py",
        nodes=3,
        cluster={"backend": backend},
    )
    workspace.ended(record, 150)
    steps = Path(record.file(wire.ARTIFACTS, "outputs", "steps.jsonl"))
    assert steps.exists() and record.state.value == "Completed", story(record)
    made = [json.loads(line) for line in steps.read_text().splitlines()]
    assert [nodes for nodes, _ in groupby(nodes for _, nodes, _ in made)] == [
        ["node0", "node1"],
        ["node0", "node1", "node2"],
        ["node0", "node2"],
        ["node0"],
    ], story(record)
    numbers = [number for number, _, _ in made]
    assert numbers[0] == 1
    for before, after in pairwise(numbers):
        assert after in (before, before + 1), "at most the step that was not committed is repeated"
    losses = [loss for _, _, loss in made]
    assert losses == sorted(losses, reverse=True), "nobody started again from random weights"
