"""What ``doctor`` says about containers: is there an engine, and does a node come up in it?"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from simgrid_ml import wire
from simgrid_ml.errors import HostError, SimgridError
from simgrid_ml.units import format_seconds

__all__ = ["docker_checks"]

_DEADLINE_S = 30.0


def docker_checks() -> Iterator[tuple[str, str, str, str]]:
    """(check, answer, found, remedy); no engine is no fault, as the process backend needs none."""
    from simgrid_ml.backends.engine_api import Engine

    try:
        engine = Engine()
        version = engine.version()
    except HostError as error:
        found = f"{error.cause}; --backend docker is not to be had"
        yield "container engine", "limited", found, error.remedy
        return
    name = (version.get("Components") or [{}])[0].get("Name", "Engine")
    yield "container engine", "yes", f"{name} {version.get('Version')} at {engine.address}", ""
    if os.geteuid() == 0 and shutil.which("ip") is None:
        yield (
            "iproute2",
            "no",
            "no program `ip`, which connects containers",
            ("apt-get install iproute2"),
        )
        return
    try:
        time_s = asyncio.run(_node())
    except (SimgridError, OSError) as error:
        cause = error.cause if isinstance(error, SimgridError) else str(error)
        evidence = getattr(error, "evidence", "").strip().replace("\n", "; ")
        found = f"{cause}: {evidence}" if evidence else cause
        yield "node as container", "no", found, "use --backend process until this works"
        return
    yield "node as container", "yes", f"up in {format_seconds(time_s)}, and gone again", ""


async def _node() -> float:
    """Start a node as a run does; seconds until its agent reported.

    Raises:
        SimgridError: it did not.
    """
    from simgrid_ml.backends.base import NodesRequest
    from simgrid_ml.backends.docker import DockerBackend
    from simgrid_ml.engine.agents import Switchboard
    from simgrid_ml.spec.capacity import Capacity

    with tempfile.TemporaryDirectory(prefix=f"{wire.LABEL}-doctor-") as folder:
        nothing: dict[str, Any] = {}
        log = os.path.join(folder, "log")
        open(log, "w").close()
        socket = os.path.join(folder, wire.SOCKET)
        board = Switchboard(socket, lambda node: nothing, folder, lambda node: log)
        request = NodesRequest(
            run_id=os.path.basename(folder),
            run_dir=folder,
            nodes=("node0",),
            socket=socket,
            capacity=Capacity(1.0, None, None, 2**26),
            log=log,
        )
        async with board.listening():
            began = time.monotonic()
            async with DockerBackend().nodes(request):
                await board.hellos(request.nodes, _DEADLINE_S)
                time_s = time.monotonic() - began
                board.dismiss()
        return time_s
