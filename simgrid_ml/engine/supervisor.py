"""The detached process of one run: holds its lock for as long as it works, then is gone.

``python -m simgrid_ml.engine.supervisor RUN_DIR LOCK_FD``; the lock was taken by who started it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

modules: dict[str, Any] = sys.modules
modules.setdefault("ssl", None)  # asyncio takes it along, 7 ms of every start; nobody here uses it
import asyncio  # noqa: E402

if modules["ssl"] is None:
    del modules["ssl"]

from simgrid_ml.engine.execute import execute  # noqa: E402
from simgrid_ml.record.run import RunLock, RunRecord  # noqa: E402


def main(argv: list[str]) -> int:
    record, lock = RunRecord(argv[0]), RunLock(int(argv[1]))
    os.set_inheritable(lock.fd, False)
    asyncio.run(execute(record))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
