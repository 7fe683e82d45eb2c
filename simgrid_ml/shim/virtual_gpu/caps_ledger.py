"""Tells the node how much a process has of slices of real GPUs, as its framework says now and then.

What is taken and given back between two looks is still in the framework's own peak.
"""

import os
import sys
import threading

from simgrid_ml import wire

__all__ = ["tell"]

_PERIOD_S = 0.5


def tell(slices, taken):
    """Be known on the node as a process that uses GPUs, to the process's end.

    Args:
        slices: those that this process sees.
        taken: gives (number on the node, bytes at most, bytes now) of each; an error ends this.

    Raises:
        OSError: the node has too many such processes.
    """
    ledger = slices.ledger
    ledger.claim(
        rank=int(os.environ.get(wire.RANK_VARIABLE, -1)),
        local_rank=int(os.environ.get(wire.LOCAL_RANK_VARIABLE, -1)),
        visible=[one.number for one in slices],
        name=os.path.basename(sys.executable or "python"),
    )
    os.register_at_fork(after_in_child=ledger.detach)

    def look():
        main = threading.main_thread()
        alive = True
        peaks = {}
        while alive:  # and a last time after the script has ended
            main.join(_PERIOD_S)
            alive = main.is_alive()
            try:
                for number, most, now in taken():
                    if most > peaks.get(number, 0):
                        peaks[number] = most
                        ledger.put(number, most)
                    ledger.put(number, now)
            except Exception:
                return  # the framework has ended first

    threading.Thread(target=look, name="simgrid-ml-gpu", daemon=True).start()
