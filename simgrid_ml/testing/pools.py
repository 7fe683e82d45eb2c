"""Ends the nodes that stored clusters keep warm, so that a test leaves nothing behind."""

from __future__ import annotations

import glob
import os

from simgrid_ml import wire

__all__ = ["stop_pools"]


def stop_pools(home: str) -> None:
    """End the pools of all workspaces below ``home``, and whatever runs on their nodes.

    Args:
        home: a folder that holds workspaces, at whatever depth of the first three.
    """
    for depth in ("", "*", "*/*"):
        for folder in glob.glob(os.path.join(glob.escape(home), depth, wire.POOLS, "*")):
            from simgrid_ml.engine import pools  # few tests have any

            pools.stop(folder, runs_too=True)
