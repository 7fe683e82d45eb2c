"""Connects nodes whose namespaces somebody else made, by a switch that ends with its caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

from simgrid_ml.errors import NodeError
from simgrid_ml.native import PACKAGE
from simgrid_ml.network.bridge import Wiring

__all__ = ["Switch", "can_switch", "switched"]

_PROGRAM = os.path.join(PACKAGE, "network", "bridge.py")
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def can_switch() -> bool:
    """Whether this user may enter network namespaces of others."""
    return os.geteuid() == 0


class Switch:
    """A switch that is up."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def set_rate(self, node: str, rate_bytes_per_s: float | None) -> None:
        """Change the rate of a node's cable, in both directions; None: it has none.

        Raises:
            NodeError: the kernel refuses it.
        """
        async with self._turn:
            said = await _ask(self._process, {"node": node, "rate": rate_bytes_per_s})
        if "error" in said:
            raise NodeError(
                f"the link of {node} could not be changed",
                evidence=said["error"],
                remedy="`simgrid-ml doctor` checks what shaping needs",
            )


@contextlib.asynccontextmanager
async def switched(wiring: Wiring) -> AsyncIterator[Switch]:
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
    assert process.stdin is not None
    try:
        said = await _ask(process, wiring._asdict())
        if "error" in said:
            raise NodeError(
                f"the network of {len(wiring.pids)} nodes could not be made",
                evidence=said["error"],
                remedy="install iproute2; the kernel needs `veth` and `bridge`; "
                "`simgrid-ml doctor` checks both",
            )
        yield Switch(process)
    finally:
        process.stdin.close()
        await process.wait()


async def _ask(process: asyncio.subprocess.Process, question: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(question).encode() + b"\n")
    line = await process.stdout.readline()
    answer: dict[str, Any] = json.loads(line) if line else {"error": "the switch has ended"}
    return answer
