"""Clusters whose nodes live longer than a run: warm nodes, queues, scale, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simgrid_ml.engine import pools
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.spec.value import to_plain
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.pools import stop_pools
from simgrid_ml.testing.runs import Runs, log

WAITS = """
    import os, time
    from mpi4py import MPI
    print("up", flush=True)
    while not os.path.exists("outputs/go"):
        time.sleep(0.02)
"""


@pytest.fixture
def workspace(tmp_path: Path, environment: EnvironmentSpec) -> Iterator[Runs]:
    with nothing_left(str(tmp_path)):
        runs = Runs(str(tmp_path), environment)
        yield runs
        for record in runs.store.list():
            record.request_cancel()
            runs.ended(record)
        stop_pools(str(tmp_path))


def put(workspace: Runs, **fields: object) -> dict[str, object]:
    """Store a cluster; returns its fields, for ``submit(cluster=...)``."""
    spec = ClusterSpec(**{"name": "four", "max_nodes": 4, **fields})  # type: ignore[arg-type]
    workspace.store.put_cluster(spec.name, to_plain(spec))
    pools.cluster_changed(workspace.store, spec.name)
    return {"name": "four", "max_nodes": 4, **fields}


def states(workspace: Runs, name: str = "four") -> list[str]:
    said = pools.status(workspace.store, name)
    return [] if said is None else [node["state"] for node in said["nodes"]]


def test_nodes_stay_warm_between_runs(workspace: Runs) -> None:
    cluster = put(workspace)
    where = "import os; from mpi4py import MPI; print(os.stat('/proc/self/ns/pid').st_ino)"
    first = workspace.completed(where, mpi=(2, 1), cluster=cluster)
    assert states(workspace) == ["idle", "idle"]
    second = workspace.completed(where, mpi=(2, 1), cluster=cluster)
    assert [log(first, rank) for rank in (0, 1)] == [log(second, rank) for rank in (0, 1)]
