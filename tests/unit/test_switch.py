"""The switch between containers: each caller gets the answer to their own question, and a cable
goes to the node that was meant."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simgrid_ml.network import switch
from simgrid_ml.network.bridge import Plug
from simgrid_ml.network.switch import switched


def plug(node: str) -> Plug:
    return Plug(node, 1, "10.0.0.1", "255.255.255.0", "eth0")


def test_a_plug_that_is_cancelled_does_not_answer_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bridge.py"
    program.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    refused = 'bad' in line\n"
        "    print(json.dumps({'error': 'refused'} if refused else {}), flush=True)\n"
    )
    monkeypatch.setattr(switch, "_PROGRAM", str(program))

    async def cancel_one() -> None:
        async with switched() as up:
            first = asyncio.ensure_future(up.plug([plug("bad")]))
            for _ in range(5):
                await asyncio.sleep(0)  # the question is on its way
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await up.plug([plug("good")])

    asyncio.run(cancel_one())


PLUGS = """
import os, subprocess
from simgrid_ml.network import bridge
argv = ["unshare", "--net", "sleep", "60"]
node, other = processes = [subprocess.Popen(argv) for _ in range(2)]
try:
    switch = bridge.Switch(shaped=False, host=bridge._namespace(os.getpid()))
    plug = bridge.Plug("node0", node.pid, "10.0.0.1", "255.255.255.0", "eth0")
    switch.plug([plug])
    with switch._inside("node0"):
        print("inside")
    switch._plugs["node0"] = plug._replace(pid=other.pid)
    try:
        with switch._inside("node0"):
            print("inside another")
    except OSError as error:
        print(error)
finally:
    for process in processes:
        process.kill()
        process.wait()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may connect namespaces of others")
def test_a_process_that_got_the_id_of_a_node_is_not_taken_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLUGS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.splitlines() == ["inside", "node0 has ended"], done.stderr
