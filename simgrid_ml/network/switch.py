"""Connects nodes whose namespaces somebody else made, by a switch that ends with its caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from simgrid_ml.errors import NodeError
from simgrid_ml.native import PACKAGE
from simgrid_ml.network.bridge import Plug

__all__ = ["Switch", "can_switch", "switched"]

_PROGRAM = os.path.join(PACKAGE, "network", "bridge.py")
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def can_switch() -> bool:
    """Whether this user may enter network namespaces of others."""
    return os.geteuid() == 0


class Switch:
    """A switch that is up, or will be once it is first asked for something."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self._exchanges: set[asyncio.Future[dict[str, Any]]] = set()

    async def plug(self, plugs: Sequence[Plug]) -> None:
        """Connect nodes; a cable vanishes with its node.

        Raises:
            NodeError: the host refuses it.
        """
        said = await self._ask({"op": "plug", "plugs": [plug._asdict() for plug in plugs]})
        if "error" in said:
            raise NodeError(
                f"the network of {len(plugs)} nodes could not be made",
                evidence=said["error"],
                remedy="install iproute2; the kernel needs `veth` and `bridge`; "
                "`simgrid-ml doctor` checks both",
            )

    async def set_rate(self, node: str, rate_bytes_per_s: float | None) -> None:
        """Change the rate of a node's cable, in both directions; None: it has none.

        Raises:
            NodeError: the kernel refuses it.
        """
        said = await self._ask({"op": "rate", "node": node, "rate": rate_bytes_per_s})
        if "error" in said:
            raise NodeError(
                f"the link of {node} could not be changed",
                evidence=said["error"],
                remedy="`simgrid-ml doctor` checks what shaping needs",
            )

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Whoever is cancelled leaves the answer to be read, lest the next takes it for theirs."""
        exchange = asyncio.ensure_future(self._exchange(question))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)
        return await asyncio.shield(exchange)

    async def _exchange(self, question: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        async with self._turn:
            stdin.write(json.dumps(question).encode() + b"\n")
            line = await stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the switch has ended"}
        return answer


@contextlib.asynccontextmanager
async def switched(*, shaped: bool = False) -> AsyncIterator[Switch]:
    """A switch for as long as the block runs.

    Args:
        shaped: its ports may have rates.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", _PROGRAM, str(int(shaped))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={"PATH": _PATH},
    )
    assert process.stdin is not None
    try:
        yield Switch(process)
    finally:
        process.stdin.close()
        await process.wait()
