"""Nodes as containers of Podman, which answers at a socket as Docker's engine does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simgrid_ml.backends.docker import our_containers
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.errors import HostError
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs

SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
"""
"""Its own ask for more than a host may allow."""


@pytest.fixture
def podman(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """One whose images and containers are in a folder of the test's."""
    if os.getuid() != 0 or not shutil.which("podman"):
        pytest.skip("needs root and podman, to start an engine of the test's own")
    with tempfile.TemporaryDirectory(prefix="sgml-") as folder:
        settings = Path(folder, "containers.conf")
        settings.write_text(SETTINGS)
        storage = ("--root", f"{folder}/root", "--runroot", f"{folder}/run")
        address = f"unix://{folder}/podman.sock"
        # It ends after the workspace, where what names a folder of the test's counts as left.
        variables = {key: each for key, each in os.environ.items() if "SIMGRID_ML" not in key}
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen(
                ["podman", *storage, "system", "service", "--time", "0", address],
                env={**variables, "CONTAINERS_CONF": str(settings)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        engine = Engine(address)

        def answers() -> bool:
            with contextlib.suppress(HostError):
                return bool(engine.version())
            return False

        try:
            wait_until(answers, "Podman answers")
            monkeypatch.setenv("DOCKER_HOST", address)
            yield engine
            assert our_containers(engine) == []
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            # Its storage is a mount as long as it is used.
            subprocess.run(["podman", *storage, "system", "reset", "--force"], capture_output=True)


def test_two_nodes_are_containers_of_podman(podman: Engine, workspace: Runs) -> None:
    """Its engine lives longer than its workspace: a janitor waits for one that does not answer."""
    record = workspace.completed(
        "import socket; print(socket.gethostbyname('node0'), socket.gethostbyname('node1'))",
        nodes=2,
        cluster={"backend": "docker"},
    )
    info = record.document("placement.json")["node_info"]
    assert len({each["address"] for each in info.values()}) == 2
    assert podman.image("simgrid-ml/host:1") is not None
