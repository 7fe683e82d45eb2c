"""Who carries NCCL's collectives on this host's real GPUs: what the plan of the run has decided.

The plan's word is ``nccl``; or ``nccl-by-rank``, where NCCL must take every rank for a host of its
own, as it refuses two of one host on a GPU; or ``gloo``, through host memory. It is said once, and
NCCL, which fails by waiting, is watched until its first collective is over.

Never run on a GPU.
"""

import os
import sys
import threading
import time

from simgrid_ml import wire

__all__ = ["Watch", "carrier", "next_rung", "on_host", "said", "say", "settle"]

_PATIENCE_S = 60.0
_LOOK_S = 0.5


def carrier():
    """As the node's environment says."""
    return os.environ.get(wire.GPU_COLLECTIVES_VARIABLE, "nccl")


def settle():
    """What NCCL must find in the environment when it is first used."""
    if carrier() == "nccl-by-rank":
        os.environ.setdefault("NCCL_HOSTID", host_identity(os.uname().nodename, os.getpid()))


def host_identity(node, pid):
    """A name that no other rank of the run has.

    >>> host_identity("node1", 71)
    'node1-71'
    """
    return f"{node}-{pid}"


def said(how, backing):
    """What carries collectives, for the log of the first rank.

    Args:
        how: as of ``carrier``.
        backing: name of a ``Backing``.
    """
    if how == "gloo":
        return (
            "collectives of NCCL are carried by Gloo and MPI, through host memory: the GPUs of the "
            "nodes are parts of one GPU (nccl=real asks for NCCL)"
        )
    if how == "nccl-by-rank":
        several = "instances of a GPU" if backing == "MIG" else "parts of a GPU"
        return (
            f"NCCL carries collectives between {several}: each rank is a host of its own to it, "
            "and they meet over TCP"
        )
    return "NCCL carries collectives"


def next_rung(how, environment):
    """What to try when NCCL makes no progress.

    >>> next_rung("nccl", {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_MAX_CTAS": "2"})
    'NCCL_MAX_CTAS=1; or nccl=staged, which carries collectives through host memory'
    """
    staged = "nccl=staged, which carries collectives through host memory"
    if environment.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1":
        fewer = environment.get("NCCL_MAX_CTAS", "2") != "1"
        return f"NCCL_MAX_CTAS=1; or {staged}" if fewer else staged
    if how == "nccl-by-rank":
        return staged
    return f"NCCL_DEBUG=INFO to see what it waits for; or {staged}"


def on_host(tensor):
    """A copy in host memory, which waits for what the GPU does before; None: it is there."""
    return tensor.cpu() if tensor.is_cuda else None


def say(line):
    sys.stderr.write(f"simgrid-ml: {line}\n")


class Watch:
    """Speaks up once if something has not ended ``patience_s`` after its begin.

    In the log of the rank, and in the events of the run.

    Args:
        what: has begun.
        is_over: asked from time to time, from a thread; None: until ``end``.
    """

    def __init__(self, what, is_over=None, patience_s=None):
        self.what = what
        self._over = threading.Event()
        self._is_over = is_over
        self._patience_s = _PATIENCE_S if patience_s is None else patience_s
        threading.Thread(target=self._look, name="simgrid-ml-watch", daemon=True).start()

    def end(self):
        self._over.set()

    def _look(self):
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            if self._over.wait(min(_LOOK_S, self._patience_s)):
                return
            if self._is_over is not None and self._is_over():
                return
        advice = next_rung(carrier(), os.environ)
        text = f"{self.what} has not ended for {self._patience_s:g} s; try {advice}"
        say(text)
        _note(text)


def _note(text):
    """Into the journal of the task, which the engine reads."""
    run, task = os.environ.get(wire.RUN_DIR_VARIABLE), os.environ.get(wire.TASK_VARIABLE)
    if not run or not task:
        return
    from simgrid_ml.record.journal import Journal

    try:
        journal = Journal(os.path.join(run, wire.TASKS, task + ".jsonl"))
        journal.append({"t": time.time(), "event": "no-progress", "text": text})
    except OSError:
        pass  # the log has it
