"""Requests for nodes whose engine loses answers or hangs: what it has made is found and removed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml import wire
from simgrid_ml.backends import docker
from simgrid_ml.backends.base import NodesRequest
from simgrid_ml.backends.container import LABELS
from simgrid_ml.backends.docker import DockerBackend
from simgrid_ml.backends.engine_api import Engine, EngineError
from simgrid_ml.backends.host_image import host_image
from simgrid_ml.errors import NodeError
from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.processes import wait_until


class Forgetful(Engine):
    """Makes containers, and its answers are lost."""

    lists = True

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        super().create(name, body)
        raise EngineError("no answer", status=0)

    def containers(self, *labels: str) -> list[dict[str, Any]]:
        if not self.lists:
            raise EngineError("no answer", status=0)
        return super().containers(*labels)


@pytest.fixture
def request_(tmp_path: Path, docker_engine: Engine) -> Iterator[NodesRequest]:
    with nothing_left(str(tmp_path)):
        (tmp_path / "log").touch()
        yield NodesRequest(
            run_id="r_1",
            run_dir=str(tmp_path),
            nodes=("node0", "node1"),
            socket=str(tmp_path / wire.SOCKET),
            capacity=Capacity(1.0, None, None, 2**26),
            log=str(tmp_path / "log"),
        )


def asked(request: NodesRequest, engine: Engine) -> NodeError:
    """Why nodes were not to be had."""
    backend = DockerBackend()
    backend._engine = engine

    async def ask() -> None:
        async with backend.nodes(request) as ended:
            await ended

    with pytest.raises(NodeError) as caught:
        asyncio.run(ask())
    assert backend._limits == {}
    return caught.value


def left(request: NodesRequest) -> list[dict[str, Any]]:
    return Engine().containers(f"{LABELS.DIRECTORY}={request.run_dir}")


@pytest.fixture
def patient_janitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder: the janitor writes what it is told to ``told``, and waits until ``go`` exists."""
    program = tmp_path / "janitor.py"
    program.write_text(
        "import os, sys, time\n"
        "folder, said = os.path.dirname(__file__), sys.stdin.read()\n"
        "end = time.monotonic() + 20\n"
        "while not said and not os.path.exists(folder + '/go') and time.monotonic() < end:\n"
        "    time.sleep(0.01)\n"
        "open(folder + '/told', 'w').write(said or 'nothing')\n"
    )
    monkeypatch.setattr(docker, "_JANITOR", str(program))
    return tmp_path


def test_containers_whose_ids_were_lost_are_removed(
    request_: NodesRequest, patient_janitor: Path
) -> None:
    error = asked(request_, Forgetful())
    assert "could not be started as a container" in error.cause
    assert left(request_) == []
    (patient_janitor / "go").touch()
    wait_until((patient_janitor / "told").exists, "the janitor has ended")
    assert (patient_janitor / "told").read_text() == "nothing", "it looks on for what may come"


def test_an_engine_that_does_not_answer_is_the_janitors_and_nobody_waits_for_it(
    request_: NodesRequest, patient_janitor: Path
) -> None:
    engine = Forgetful()
    engine.lists = False
    asked(request_, engine)
    assert not (patient_janitor / "told").exists()
    assert len(left(request_)) == 2
    (patient_janitor / "go").touch()
    wait_until((patient_janitor / "told").exists, "the janitor has ended")
    for each in left(request_):
        Engine().remove(each["Id"])


def test_the_janitor_removes_what_could_not_be_removed(request_: NodesRequest) -> None:
    engine = Forgetful()
    engine.lists = False
    asked(request_, engine)
    wait_until(lambda: left(request_) == [], "they are gone")


def test_an_agent_that_dies_before_it_has_a_log_is_told_by_its_exit_code(
    request_: NodesRequest, docker_engine: Engine
) -> None:
    image = replace(host_image(docker_engine, ()), python=("/bin/sh", "-c", "exit 77"))
    request = replace(request_, image=image.encode(), nodes=("node0",))
    error = asked(request, docker_engine)
    assert error.cause == "the agents of node0 ended before they had reported"
    assert error.evidence == "node0: exit code 77 of /bin/sh"


def test_the_loop_goes_on_while_an_engine_keeps_a_thread() -> None:
    threads, answers = ThreadPoolExecutor(1), threading.Event()
    hangs = threads.submit(answers.wait, 10.0)

    async def end() -> None:
        asyncio.get_running_loop().call_soon(answers.set)
        await docker._end_threads(threads)

    asyncio.run(end())
    assert hangs.result(), "the loop could not set it"
