"""Ways to hold a run in a state, so that something can be done to it there."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from simgrid_ml.environments.build import ensure
from simgrid_ml.record.follow import wait_state
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.runs import Runs, story

BACKENDS = """
    import asyncio, contextlib, os, sys
    from simgrid_ml.backends import process

    class Held(process.ProcessBackend):
        "Starts its nodes once the file named by HELD_UNTIL exists."
        @contextlib.asynccontextmanager
        async def nodes(self, request):
            while not os.path.exists(os.environ["HELD_UNTIL"]):
                await asyncio.sleep(0.01)
            async with super().nodes(request) as ended:
                yield ended

    class Silent(process.ProcessBackend):
        "Says that its nodes are started, and starts none."
        @contextlib.asynccontextmanager
        async def nodes(self, request):
            yield None

    class Broken(process.ProcessBackend):
        "Its agents fail at once."
        def nodes(self, request):
            process._AGENT = os.path.join(os.path.dirname(__file__), "broken_agent.py")
            return super().nodes(request)
"""


@pytest.fixture
def odd_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs the backends ``held``, ``silent`` and ``broken``; returns the file that lets go."""
    site = tmp_path / "site"
    info = site / "odd_backends-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-backends\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[simgrid_ml.backends]\nheld = odd_backends:Held\n"
        "silent = odd_backends:Silent\nbroken = odd_backends:Broken\n"
    )
    (site / "odd_backends.py").write_text(textwrap.dedent(BACKENDS))
    (site / "broken_agent.py").write_text("import sys; sys.exit('boom: no agent today')")
    monkeypatch.syspath_prepend(str(site))
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("HELD_UNTIL", str(tmp_path / "go"))
    monkeypatch.delitem(sys.modules, "odd_backends", raising=False)
    return tmp_path / "go"


WAITS = """
    import os, time
    from mpi4py import MPI
    print("up", flush=True)
    open(f"outputs/rank-{MPI.COMM_WORLD.rank}.txt", "w").write("written before")
    while not os.path.exists("outputs/go"):
        time.sleep(0.02)
"""

FINALIZES_LONG = """
    import os
    if os.environ["OMPI_COMM_WORLD_RANK"] == "0":
        with open("outputs/big", "wb") as stream:
            stream.truncate(1 << 29)  # takes a while to be hashed, and no space
    print("up", flush=True)
"""

Held = Callable[[str], RunRecord]


@pytest.fixture
def held(workspace: Runs, odd_backends: Path, tmp_path: Path) -> Held:
    """A run that stays in the state it is asked for, 2 nodes x 1 process."""

    def start(state: str) -> RunRecord:
        if state == "Preparing":
            inner = ensure(workspace.environment).python
            slow = tmp_path / "slow-python"
            slow.write_text(
                f'#!/bin/sh\nwhile [ ! -e "{odd_backends}" ]; do sleep 0.05; done\n'
                f'exec {inner} "$@"\n'
            )
            slow.chmod(0o755)
            given = EnvironmentSpec(interpreter=str(slow))
            record = workspace.submit(WAITS, mpi=(2, 1), environment=given)
        elif state == "Queued":
            record = workspace.submit(WAITS, mpi=(2, 1), cluster={"backend": "held"})
        elif state == "Running":
            record = workspace.submit(WAITS, mpi=(2, 1))
        else:
            record = workspace.submit(FINALIZES_LONG, mpi=(2, 1))
        reached = wait_state(record, 30, until=lambda now: now.value == state or now.is_terminal)
        assert reached is RunState(state), story(record)
        return record

    return start
