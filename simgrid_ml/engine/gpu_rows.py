"""The processes of a node's ledger as a run's record has them."""

from __future__ import annotations

from typing import Any

from simgrid_ml.node.gpu_ledger import Ledger

__all__ = ["user_rows"]


def user_rows(ledger: Ledger, *, ended: bool) -> list[dict[str, Any]]:
    """The processes that put anything on a GPU of the node; sequences have an entry per GPU.

    Args:
        ended: also those that have ended.
    """
    return [
        {
            "pid": row.pid,
            "rank": row.rank,
            "name": row.name,
            "bytes": list(row.bytes),
            "peaks": list(row.peaks),
        }
        for row in ledger.rows(ended=ended)
        if row.used
    ]
