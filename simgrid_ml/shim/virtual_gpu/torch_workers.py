"""Gloo's threads at the end of a process.

They carry tensors that have Python objects, and let go of them after a collective is over. A C++
thread that asks for Python when it has ended is stopped in a place where nothing may stop it, and
the process dies of SIGABRT: seen where hosts were so busy that a thread rested in between.
"""

import atexit
import os
import time

__all__ = ["outlive"]

_NAME = "pt_gloo"  # pt_gloo_runloop
_PATIENCE_S = 5.0
_GLANCE_S = 0.001
_GLANCES = 3

_known = []


def outlive():
    """Have Python end no sooner than such threads have nothing to do."""
    if not _known:
        _known.append(atexit.register(_wait))


def _wait():
    deadline = time.monotonic() + _PATIENCE_S
    seen_at_rest = 0
    while seen_at_rest < _GLANCES and time.monotonic() < deadline:
        time.sleep(_GLANCE_S)  # meanwhile Python is theirs
        seen_at_rest = 0 if _any_works() else seen_at_rest + 1


def _any_works():
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/stat", encoding="utf-8") as stream:
                before, _, after = stream.read().rpartition(")")
        except OSError:  # it has just ended
            continue
        if before.partition("(")[2].startswith(_NAME) and not after.lstrip().startswith("S"):
            return True
    return False
