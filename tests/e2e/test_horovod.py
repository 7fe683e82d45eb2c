"""Jobs over real Horovod: topology and values."""

from __future__ import annotations

import json

import pytest
from horovod_kit import topology

from simgrid_ml.testing.runs import Runs, log

SCRIPT = """
    import json
    import horovod.torch as hvd
    import torch
    hvd.init()
    rank = hvd.rank()
    summed = hvd.allreduce(torch.arange(5.0) * (rank + 1), op=hvd.Sum, name="sum")
    mean = hvd.allreduce(torch.tensor([float(rank)]), name="mean")
    big = hvd.allreduce(torch.full((1_000_000,), rank + 1.0), op=hvd.Sum, name="big")
    root = hvd.broadcast(torch.tensor([rank, rank * 10]), root_rank=hvd.size() - 1)
    # As many rows as the rank says: the pieces have different lengths.
    rows = hvd.allgather(torch.full((rank + 1, 2), rank))
    words = hvd.allgather_object({"rank": rank})
    print(json.dumps({
        "topology": [rank, hvd.size(), hvd.local_rank(), hvd.local_size(),
                     hvd.cross_rank(), hvd.cross_size()],
        "sum": summed.tolist(), "mean": mean.item(),
        "big": [big.min().item(), big.max().item()],
        "root": root.tolist(), "rows": rows.tolist(), "words": words,
    }))
"""


def expected(rank: int, nodes: int, per_node: int) -> dict[str, object]:
    size = nodes * per_node
    total = size * (size + 1) / 2
    return {
        "topology": topology(rank, nodes, per_node),
        "sum": [total * n for n in range(5)],
        "mean": (size - 1) / 2,
        "big": [total, total],
        "root": [size - 1, (size - 1) * 10],
        "rows": [[r, r] for r in range(size) for _ in range(r + 1)],
        "words": [{"rank": r} for r in range(size)],
    }


@pytest.mark.parametrize(
    ("nodes", "per_node", "isolation"), [(2, 2, "full"), (3, 1, "hostname"), (2, 2, "none")]
)
def test_topology_and_values_are_right_on_every_rank_and_rung_of_isolation(
    workspace: Runs,
    monkeypatch: pytest.MonkeyPatch,
    nodes: int,
    per_node: int,
    isolation: str,
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", isolation)
    record = workspace.completed(SCRIPT, mpi=(nodes, per_node))
    for rank in range(nodes * per_node):
        assert json.loads(log(record, rank).splitlines()[-1]) == expected(rank, nodes, per_node)
