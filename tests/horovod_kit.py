"""Horovod jobs for tests: who each rank should be, and runs whose first node starts the ranks."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from simgrid_ml.record.run import RunRecord
from simgrid_ml.testing.runs import Runs, log

ON_FIRST_NODE = """
import os, subprocess, sys
if os.environ["AZ_BATCH_IS_CURRENT_NODE_MASTER"] == "false":
    sys.exit()  # the first node does it all, as on a cluster without a scheduler
"""


def topology(rank: int, nodes: int, per_node: int) -> list[int]:
    """What rank, size, local_rank, local_size, cross_rank and cross_size of ``hvd`` must be."""
    return [rank, nodes * per_node, rank % per_node, per_node, rank // per_node, nodes]


def started_by_first_node(
    runs: Runs, script: str, *, nodes: int = 2, backend: str = "process", **files: str
) -> RunRecord:
    """A completed job that ran ``script`` on its first node, beside the scripts of ``files``."""
    texts = {f"{name}.py": textwrap.dedent(text) for name, text in files.items()}
    texts["train.py"] = ON_FIRST_NODE + textwrap.dedent(script)
    return runs.completed(
        None,
        source=runs.source(texts),
        entry_script="train.py",
        nodes=nodes,
        cluster={"backend": backend},
    )


def answers(record: RunRecord, ranks: int = 1) -> list[Mapping[str, Any]]:
    """What the ranks printed as JSON, by their ``topology``.

    Launchers put something of theirs before each line.

    Args:
        ranks: how many logs there are: one where a script started the ranks.
    """
    lines = [line for rank in range(ranks) for line in log(record, rank).splitlines()]
    found = [json.loads(line[line.index('{"') :]) for line in lines if '{"topology"' in line]
    return sorted(found, key=lambda one: one["topology"])
