"""The detached process of one run: holds its lock for as long as it works, then is gone.

``python -m simgrid_ml.engine.supervisor RUN_DIR LOCK_FD``; the lock was taken by who started it.
"""

from __future__ import annotations

import asyncio
import os
import sys

from simgrid_ml.engine.execute import execute
from simgrid_ml.record.run import RunLock, RunRecord


def main(argv: list[str]) -> int:
    record, lock = RunRecord(argv[0]), RunLock(int(argv[1]))
    os.set_inheritable(lock.fd, False)
    asyncio.run(execute(record))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
