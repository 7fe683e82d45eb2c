"""Stored clusters for tests: makes them, and ends the nodes that they keep warm."""

from __future__ import annotations

import glob
import os
from typing import Any

from simgrid_ml import wire
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.value import from_plain, to_plain
from simgrid_ml.testing.runs import Runs

__all__ = ["put_cluster", "stop_pools"]


def put_cluster(runs: Runs, **fields: Any) -> dict[str, Any]:
    """Store a cluster of at most 4 nodes, or change it; its fields, for ``runs.submit``."""
    from simgrid_ml.engine import pools

    spec = from_plain({"name": "four", **fields}, ClusterSpec, "cluster")
    runs.store.put_cluster(spec.name, to_plain(spec))
    pools.cluster_changed(runs.store, spec.name)
    return {name: getattr(spec, name) for name in ClusterSpec.__struct_fields__}


def stop_pools(home: str, *, runs_too: bool = True) -> None:
    """End the idle nodes of all workspaces below ``home``, and with them their pools.

    Args:
        runs_too: end also what runs on their nodes.
        home: a folder that holds workspaces, up to three folders down.
    """
    for depth in ("", "*", "*/*", "*/*/*"):
        for folder in glob.glob(os.path.join(glob.escape(home), depth, wire.POOLS, "*")):
            from simgrid_ml.engine import pools  # few tests have any

            pools.stop(folder, runs_too=runs_too)
