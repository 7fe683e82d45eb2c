"""Real runs on a host without a compiler: the node programs in Python."""

from __future__ import annotations

import json

import pytest

from simgrid_ml import wire
from simgrid_ml.native import PROGRAMS_VARIABLE
from simgrid_ml.testing.runs import Runs, cause, log


@pytest.fixture(autouse=True)
def in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAMS_VARIABLE, "python")


def test_ranks_find_each_other_without_a_compiler(workspace: Runs) -> None:
    script = """
        import json, sys
        from mpi4py import MPI
        print(json.dumps([sys.argv[1:], MPI.COMM_WORLD.allreduce(1)]))
    """
    record = workspace.completed(script, "a b", "$AZ_BATCHAI_TASK_INDEX", mpi=(2, 2))
    assert [json.loads(log(record, rank)) for rank in range(4)] == [
        [["a b", str(rank)], 4] for rank in range(4)
    ]
    assert {one["verdict"] for one in record.document(wire.VERDICTS)} == {"pass"}
    words = record.document(wire.LAUNCH)["plan"]["commands"][0]["argv"]
    assert any(word.endswith("rank.py") for word in words)


def test_a_failing_rank_is_named_without_a_compiler(workspace: Runs) -> None:
    script = "import os; os.environ['OMPI_COMM_WORLD_RANK'] == '1' and os.abort()"
    record = workspace.failed(script, mpi=(2, 1))
    assert "rank 1 on node1 was ended by SIGABRT" in cause(record)
