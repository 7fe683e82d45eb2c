"""Docker's engine over its socket: what nodes need of it, without the 0.3 s that an SDK loads for.

Everything a cold start waits for goes through here; ``images`` uses the docker package, whose
handling of registries, builds and credentials is not to be written twice. Podman's compatible
socket answers the same.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from simgrid_ml.errors import HostError, SimgridError

__all__ = ["Engine", "EngineError", "engine_address"]

_API = "/v1.40"  # Docker 19.03 and Podman 3 know it
_TIMEOUT_S = 15.0
"""For an answer. A run cannot be cancelled before its requests have ended."""
_IMPORT_TIMEOUT_S = 60.0
_INSTALL = (
    "install and start Docker (`apt-get install docker.io iproute2`, then `dockerd &` where no "
    "init system starts it), or use --backend process"
)


class EngineError(HostError):
    """The engine refused; ``status`` is that of its answer (404: no such thing; 0: none came, so
    that what was asked for may happen yet)."""

    def __init__(self, cause: str, *, status: int, remedy: str = "", evidence: str = "") -> None:
        super().__init__(cause, remedy=remedy, evidence=evidence)
        self.status = status


def engine_address() -> str:
    """Where the engine listens: ``DOCKER_HOST``, else the first of the usual sockets that lets
    this user in; the first that exists, where none does.

    Raises:
        HostError: there is none.
    """
    given = os.environ.get("DOCKER_HOST")
    if given:
        return given
    places = _usual_sockets()
    there = [path for path in places if os.path.exists(path)]
    if there:
        return f"unix://{next(filter(_listens, there), there[0])}"
    raise HostError(
        "there is no container engine on this host",
        evidence="no socket at " + ", ".join(places),
        remedy=_INSTALL,
    )


def _usual_sockets() -> list[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    own = [f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock"] if runtime else []
    return [*own, "/var/run/docker.sock", "/run/podman/podman.sock"]


def _listens(path: str) -> bool:
    """Whether somebody does at this socket, and this user may talk to them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(_TIMEOUT_S)
        try:
            trial.connect(path)
        except OSError:
            return False
    return True


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


class Engine:
    """One engine; every call is a connection of its own, so that threads may share it.

    Raises:
        HostError: there is no engine, or this user may not talk to it.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address or engine_address()

    # -- containers ------------------------------------------------------------------------
    def create(self, name: str, body: Mapping[str, Any]) -> str:
        """A container, not started; its id."""
        answer = self._ask("POST", "/containers/create", body, query={"name": name})
        return str(answer["Id"])

    def start(self, container: str) -> None:
        self._ask("POST", f"/containers/{container}/start")

    def inspect(self, container: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask("GET", f"/containers/{container}/json")
        return answer

    def remove(self, container: str) -> None:
        """Kill and remove it; one that is gone, or going, is no error."""
        path, query = f"/containers/{container}", {"force": "1", "v": "1"}
        try:
            self._ask("DELETE", path, query=query)
        except EngineError as error:
            if error.status in (404, 409):
                return
            if error.status == 0:
                raise
            self.unpause(container)  # what is frozen cannot be killed
            self._ask("DELETE", path, query=query)

    def wait_removed(self, container: str, timeout_s: float) -> None:
        """Until nothing of it exists.

        Raises:
            EngineError: it still does after ``timeout_s``.
        """
        try:
            self._ask(
                "POST",
                f"/containers/{container}/wait",
                query={"condition": "removed"},
                timeout_s=timeout_s,
            )
        except EngineError as error:
            if error.status != 404:
                raise

    def has(self, container: str, path: str) -> bool:
        """Whether the path exists in it; the container need not run."""
        try:
            self._ask("HEAD", f"/containers/{container}/archive", query={"path": path})
            return True
        except EngineError as error:
            if error.status == 404:
                return False
            raise

    def kill(self, container: str, number: int) -> None:
        self._ask("POST", f"/containers/{container}/kill", query={"signal": str(int(number))})

    def pause(self, container: str) -> None:
        self._ask("POST", f"/containers/{container}/pause")

    def unpause(self, container: str) -> None:
        self._ask("POST", f"/containers/{container}/unpause")

    def containers(self, *labels: str) -> list[dict[str, Any]]:
        """Those with all of the labels (``name`` or ``name=value``), stopped ones, too."""
        filters = json.dumps({"label": list(labels)})
        answer: list[dict[str, Any]] = self._ask(
            "GET", "/containers/json", query={"all": "1", "filters": filters}
        )
        return answer

    def deaths(self, label: str, since_s: float) -> Deaths:
        """Containers with the label that end from now on."""
        filters = json.dumps({"label": [label], "event": ["die"], "type": ["container"]})
        path = "/events?" + urlencode({"filters": filters, "since": f"{since_s:.6f}"})
        connection = self._connection(None)
        try:
            connection.connect()
            stream = connection.sock
            connection.request("GET", _API + path)
            return Deaths(stream, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error

    # -- images ----------------------------------------------------------------------------
    def image(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of an image; None: it has none of that name."""
        try:
            answer: dict[str, Any] = self._ask("GET", f"/images/{quote(name)}/json")
            return answer
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    def import_image(self, name: str, tag: str, tar: bytes, labels: Mapping[str, str]) -> None:
        """An image made of a tar archive."""
        changes = [f"LABEL {key}={json.dumps(value)}" for key, value in labels.items()]
        # Podman 4 ignores a `tag`, and would call every image the latest.
        query = [("fromSrc", "-"), ("repo", f"{name}:{tag}")]
        query += [("changes", change) for change in changes]
        path = "/images/create?" + urlencode(query)
        self._ask("POST", path, raw=tar, timeout_s=_IMPORT_TIMEOUT_S)

    # -- the engine ------------------------------------------------------------------------
    def is_rootless(self) -> bool:
        """Whether root in its containers is the user that runs it."""
        return "name=rootless" in (self.info().get("SecurityOptions") or ())

    def info(self) -> dict[str, Any]:
        """Cores, memory, versions, drivers: the engine's own words."""
        answer: dict[str, Any] = self._ask("GET", "/info")
        return answer

    def version(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask("GET", "/version")
        return answer

    # -- talking ---------------------------------------------------------------------------
    def _connection(self, timeout_s: float | None) -> http.client.HTTPConnection:
        scheme, _, rest = self.address.partition("://")
        if scheme == "unix":
            return _UnixConnection(rest, timeout_s)
        if scheme == "tcp" and not os.environ.get("DOCKER_TLS_VERIFY"):
            return http.client.HTTPConnection(rest.rstrip("/"), timeout=timeout_s)
        raise HostError(
            f"DOCKER_HOST is {self.address!r}: nodes need an engine on this host",
            remedy="point DOCKER_HOST at a socket: unix:///var/run/docker.sock",
        )

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        raw: bytes | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> Any:
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        kind = "application/x-tar" if raw is not None else "application/json"
        target = _API + path + ("?" + urlencode(query) if query else "")
        connection = self._connection(timeout_s)
        try:
            connection.request(method, target, content, {"Content-Type": kind})
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise _refusal(f"{method} {path}", answer.status, said)
        return json.loads(said) if said.startswith((b"{", b"[")) and raw is None else None

    def _unreachable(self, error: Exception) -> SimgridError:
        if isinstance(error, PermissionError):
            return HostError(
                f"this user may not talk to the container engine at {self.address}",
                evidence=str(error),
                remedy="join the group that owns the socket (`sudo usermod -aG docker $USER`, then "
                "log in again), or use --backend process",
            )
        if isinstance(error, TimeoutError):
            return EngineError(
                f"the container engine at {self.address} did not answer in time",
                status=0,
                evidence=str(error),
                remedy="`docker info` shows whether it works; restart it",
            )
        return EngineError(
            f"the container engine at {self.address} does not answer",
            status=0,
            evidence=f"{type(error).__name__}: {error}",
            remedy=_INSTALL,
        )


class Deaths:
    """A stream of ended containers; iterate in a thread, ``close`` from another."""

    def __init__(self, stream: socket.socket, answer: http.client.HTTPResponse) -> None:
        self._stream = stream
        self._answer = answer

    def __iter__(self) -> Iterator[tuple[str, int | None]]:
        """(container id, exit code) until closed, or the engine goes away."""
        try:
            while line := self._answer.readline():
                event = json.loads(line)
                actor = event.get("Actor", {})
                code = actor.get("Attributes", {}).get("exitCode")
                yield actor.get("ID", ""), None if code is None else int(code)
        except (OSError, ValueError, http.client.HTTPException):
            return
        finally:
            self._answer.close()
            self._stream.close()

    def close(self) -> None:
        """End the iteration."""
        try:
            self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended


def _refusal(request: str, status: int, said: bytes) -> EngineError:
    try:
        message = str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        message = said.decode("utf-8", "replace")
    return EngineError(
        "the container engine refused a request",
        status=status,
        evidence=f"{request}: {status} {message.strip()}",
        remedy="`simgrid-ml doctor` checks the engine",
    )
