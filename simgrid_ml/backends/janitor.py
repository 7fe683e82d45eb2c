"""Removes the containers of a run whose supervisor was killed.

``python -I -S janitor.py ENGINE LABEL`` waits until its stdin closes. After the line ``done`` all
is well; without it, whatever carries the label is removed. Containers that run end by themselves,
but one that was created and not yet started, or is paused, cannot. Until then this costs one idle
process that has imported nothing.
"""

from __future__ import annotations

import os
import sys
import time

_QUIET_S = 2.0
"""A request that was under way when the supervisor died may take so long to have an effect."""
_LIMIT_S = 60.0
"""An engine that does not answer may be restarting; what it did before it will know of then."""


def main(argv: list[str]) -> int:
    if sys.stdin.readline() == "done\n":
        return 0
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, os.path.dirname(os.path.dirname(here)))
    from simgrid_ml.backends.engine_api import Engine
    from simgrid_ml.errors import SimgridError

    engine, label = Engine(argv[0]), argv[1]
    now = time.monotonic()
    quiet_until, limit = now + _QUIET_S, now + _LIMIT_S
    while time.monotonic() < min(quiet_until, limit):
        try:
            for container in engine.containers(label):
                quiet_until = time.monotonic() + _QUIET_S
                engine.remove(container["Id"])
        except SimgridError:
            quiet_until = time.monotonic() + _QUIET_S
        time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
