"""Nodes look at their GPUs before the first rank starts, and a wrong one ends the run there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from simgrid_ml.engine import prepare
from simgrid_ml.record.run import RunLock, RunRecord
from simgrid_ml.testing.runs import Runs, cause, evidence

HALVED = """
import sys
from simgrid_ml.engine import supervisor
from simgrid_ml.node import gpu_ledger

as_planned = gpu_ledger.create

def create(path, cards, **rest):
    less = [card._replace(memory_bytes=card.memory_bytes // 2) for card in cards]
    as_planned(path, less if path.endswith("node1") else cards, **rest)

gpu_ledger.create = create
supervisor.main(sys.argv[1:])
"""
"""A supervisor whose second node gets GPUs of half the size."""


def test_a_node_whose_gpus_are_not_as_planned_ends_the_run_before_any_rank_starts(
    workspace: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(record: RunRecord, lock: RunLock) -> None:
        with open(record.file("supervisor.log"), "wb") as log:
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", HALVED, record.path, str(lock.fd)],
                pass_fds=(lock.fd,),
                stdout=log,
                stderr=log,
            ).wait()

    cluster = {"vm_size": "STANDARD_NC12"}
    record = workspace.completed("print('ran')", mpi=(2, 1), cluster=cluster)
    checked = [line for line in record.events() if line["event"] == "gpus-checked"]
    assert [line["nodes"] for line in checked] == [["node0", "node1"]]

    monkeypatch.setattr(prepare, "_start_supervisor", start)
    record = workspace.failed("print('ran')", mpi=(2, 1), cluster=cluster)
    assert cause(record) == "node1 does not have the GPUs that were planned for it"
    assert "(11.2 GiB), GPU-" in evidence(record)
    assert "its ledger has: GPU-" in evidence(record)
    assert "(5.59 GiB)" in evidence(record)
    assert record.task_reports() == {}
