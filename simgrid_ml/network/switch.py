"""Connects nodes whose namespaces somebody else made, by a switch that ends with its caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator

from simgrid_ml.errors import NodeError
from simgrid_ml.native import PACKAGE
from simgrid_ml.network.bridge import Wiring

__all__ = ["can_switch", "switched"]

_PROGRAM = os.path.join(PACKAGE, "network", "bridge.py")
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def can_switch() -> bool:
    """Whether this user may enter network namespaces of others."""
    return os.geteuid() == 0


@contextlib.asynccontextmanager
async def switched(wiring: Wiring) -> AsyncIterator[None]:
    """A switch, and a cable from it to each node, for as long as the block runs.

    Raises:
        NodeError: the host refuses it.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", _PROGRAM),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={"PATH": _PATH},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(wiring._asdict()).encode() + b"\n")
        said = json.loads(await process.stdout.readline() or '{"error": "it ended at once"}')
        if "error" in said:
            raise NodeError(
                f"the network of {len(wiring.pids)} nodes could not be made",
                evidence=said["error"],
                remedy="install iproute2; the kernel needs `veth` and `bridge`; "
                "`simgrid-ml doctor` checks both",
            )
        yield
    finally:
        process.stdin.close()
        await process.wait()
