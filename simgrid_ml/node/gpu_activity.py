"""How busy a node's virtual GPUs are: what can honestly be said of GPUs that have no clock.

A GPU is said to be as busy as the processes that use it are on a CPU, 100 % at most: that is where
its work is done. Python itself and the reading of data count, too, so that the figure is too high
for a script that keeps its GPU waiting. Where a process cannot be looked at, nothing is said.
"""

from __future__ import annotations

import os
import time
from typing import Dict, List, Optional

from simgrid_ml.node.gpu_ledger import Ledger

__all__ = ["activity"]

PERIOD_S = 0.2
"""The kernel counts in hundredths of a second, so that this gives steps of 5 %."""


def activity(ledger: Ledger, period_s: float = PERIOD_S) -> List[Optional[int]]:
    """Per cent of the time that each GPU's processes compute; None: it cannot be known.

    Takes ``period_s`` seconds if any process uses a GPU.
    """
    rows = [row for row in ledger.rows() if row.used]
    if not rows:
        return [0] * len(ledger.gpus)
    before = {row.pid: _cpu_s(row.pid) for row in rows}
    began = time.monotonic()
    time.sleep(period_s)
    spent_s = time.monotonic() - began
    shares: Dict[int, Optional[float]] = {}
    for pid, first in before.items():
        last = _cpu_s(pid)
        shares[pid] = None if first is None or last is None else (last - first) / spent_s
    busy: List[Optional[int]] = []
    for gpu in range(len(ledger.gpus)):
        own = [shares[row.pid] for row in rows if gpu in row.used]
        known = [share for share in own if share is not None]
        busy.append(min(100, round(100 * sum(known))) if len(known) == len(own) else None)
    return busy


def _cpu_s(pid: int) -> Optional[float]:
    """Seconds that a process has been on a CPU; None: it is not there, or not to be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
