"""What the engine's client makes of addresses, answers and refusals."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from simgrid_ml.backends import engine_api
from simgrid_ml.backends.engine_api import Engine, EngineError, engine_address
from simgrid_ml.errors import HostError

Answer = tuple[int, bytes]


class Handler(BaseHTTPRequestHandler):
    """Answers every request as the test says."""

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.seen.append((self.command, self.path, self.rfile.read(length)))  # type: ignore[attr-defined]
        status, content = self.server.answer(self.command, self.path)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_DELETE = do_POST

    def address_string(self) -> str:
        return "client"

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, answer: Callable[[str, str], Answer]) -> None:
        self.answer = answer
        self.seen: list[tuple[str, str, bytes]] = []
        super().__init__(path, Handler)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Callable[[str, str], Answer]], Server]]:
    servers: list[Server] = []

    def start(answer: Callable[[str, str], Answer]) -> Server:
        server = Server(str(tmp_path / "engine.sock"), answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def engine(tmp_path: Path) -> Engine:
    return Engine(f"unix://{tmp_path}/engine.sock")


def test_docker_host_decides_where_the_engine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere.sock")
    assert engine_address() == "unix:///somewhere.sock"


def test_without_a_socket_the_error_says_where_it_looked_and_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    with pytest.raises(HostError) as caught:
        engine_address()
    assert "no container engine" in caught.value.cause
    assert f"{tmp_path}/podman/podman.sock" in caught.value.evidence
    assert "docker.io" in caught.value.remedy


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


def only_these(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine_api, "_usual_sockets", lambda: [str(path) for path in paths])


def test_a_users_own_engine_goes_before_the_hosts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    with listening(tmp_path / "podman" / "podman.sock"):
        assert engine_address() == f"unix://{tmp_path}/podman/podman.sock"


def test_a_socket_nobody_listens_at_hides_no_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stale, alive = tmp_path / "stale.sock", tmp_path / "alive.sock"
    with listening(stale):
        pass
    only_these(monkeypatch, tmp_path / "none.sock", stale, alive)
    with listening(alive):
        assert engine_address() == f"unix://{alive}"
    assert engine_address() == f"unix://{stale}", "its error is told"


def test_an_engine_elsewhere_is_refused() -> None:
    with pytest.raises(HostError, match="an engine on this host"):
        Engine("ssh://somewhere").version()


def test_a_refusal_carries_the_engines_own_words(
    serve: Callable[[Callable[[str, str], Answer]], Server], tmp_path: Path
) -> None:
    serve(lambda *_: (500, json.dumps({"message": "no space left"}).encode()))
    with pytest.raises(EngineError) as caught:
        engine(tmp_path).create("name", {})
    assert caught.value.status == 500
    assert "no space left" in caught.value.evidence


def test_an_answer_that_is_no_json_is_shown_as_it_is(
    serve: Callable[[Callable[[str, str], Answer]], Server], tmp_path: Path
) -> None:
    serve(lambda *_: (502, b"Bad gateway"))
    with pytest.raises(EngineError, match="refused") as caught:
        engine(tmp_path).version()
    assert "502 Bad gateway" in caught.value.evidence


def test_an_image_that_is_not_there_is_none(
    serve: Callable[[Callable[[str, str], Answer]], Server], tmp_path: Path
) -> None:
    serve(lambda *_: (404, b'{"message": "no such image"}'))
    assert engine(tmp_path).image("what") is None


@pytest.mark.parametrize("status", [404, 409])
def test_removing_what_is_gone_or_going_is_no_error(
    serve: Callable[[Callable[[str, str], Answer]], Server], tmp_path: Path, status: int
) -> None:
    serve(lambda *_: (status, b'{"message": "going"}'))
    engine(tmp_path).remove("c")
    engine(tmp_path).wait_removed("c", 1.0) if status == 404 else None


def test_what_is_paused_is_woken_before_it_is_removed(
    serve: Callable[[Callable[[str, str], Answer]], Server], tmp_path: Path
) -> None:
    paused = [True]

    def answer(method: str, path: str) -> Answer:
        if path.endswith("/unpause"):
            paused[0] = False
        elif paused[0]:
            return 500, b'{"message": "cannot kill a paused container"}'
        return 204, b""

    server = serve(answer)
    engine(tmp_path).remove("c")
    assert [method for method, *_ in server.seen] == ["DELETE", "POST", "DELETE"]


def test_an_engine_that_hangs_up_is_not_asked_again(
    serve: Callable[[Callable[[str, str], Answer]], Server], tmp_path: Path
) -> None:
    def hang_up(*_: str) -> Answer:
        raise ConnectionAbortedError

    server = serve(hang_up)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(EngineError) as caught:
        engine(tmp_path).remove("c")
    assert caught.value.status == 0
    assert len(server.seen) == 1


def test_an_image_gets_its_tag_from_podman_as_well(
    serve: Callable[[Callable[[str, str], Answer]], Server], tmp_path: Path
) -> None:
    server = serve(lambda *_: (200, b"{}"))
    engine(tmp_path).import_image("an/image", "1", b"", {})
    (_, path, _), *_ = server.seen
    assert parse_qs(urlsplit(path).query) == {"fromSrc": ["-"], "repo": ["an/image:1"]}


@pytest.mark.parametrize(
    ("options", "rootless"), [(["name=seccomp", "name=rootless"], True), (["name=x"], False)]
)
def test_whether_root_in_containers_is_the_caller(
    serve: Callable[[Callable[[str, str], Answer]], Server],
    tmp_path: Path,
    options: list[str],
    rootless: bool,
) -> None:
    serve(lambda *_: (200, json.dumps({"SecurityOptions": options}).encode()))
    assert engine(tmp_path).is_rootless() is rootless


def test_a_socket_nobody_listens_at_is_an_engine_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "engine.sock").touch()
    with pytest.raises(EngineError, match="does not answer") as caught:
        engine(tmp_path).version()
    assert caught.value.remedy


def test_containers_are_asked_for_by_label_whatever_is_in_it(
    serve: Callable[[Callable[[str, str], Answer]], Server], tmp_path: Path
) -> None:
    server = serve(lambda *_: (200, b"[]"))
    assert engine(tmp_path).containers("label=a\nb&c") == []
    (_, path, _), *_ = server.seen
    assert "label%3Da%5Cnb%26c" in path


def test_deaths_are_told_until_the_stream_is_closed(
    serve: Callable[[Callable[[str, str], Answer]], Server], tmp_path: Path
) -> None:
    lines = [
        {"Actor": {"ID": "a", "Attributes": {"exitCode": "137"}}},
        {"Actor": {"ID": "b", "Attributes": {}}},
    ]
    serve(lambda *_: (200, b"".join(json.dumps(line).encode() + b"\n" for line in lines)))
    assert list(engine(tmp_path).deaths("label", 0)) == [("a", 137), ("b", None)]
