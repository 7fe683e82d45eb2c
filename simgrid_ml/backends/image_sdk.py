"""The docker package, for what is rare: pulling, building, trying something out in an image.

It alone imports that package, and only when one of these is called: loading it takes 0.3 s. What
it raises ends here; callers see errors of ours, without the password a registry was given.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import re
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from simgrid_ml import wire
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.errors import EnvironmentBuildError, HostError, NodeError, SimgridError
from simgrid_ml.spec.job import Registry

if TYPE_CHECKING:
    import docker

__all__ = ["Bind", "Trial", "as_ours", "build", "missing_in", "pull", "try_in"]

Bind = tuple[str, str, bool]
_ANSWER_S = 120
_LOOK_S = 0.1
_TAIL_LINES = 40
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REPEATED = ("Downloading", "Extracting", "Waiting", "Verifying Checksum")
_NOT_STARTED = 127
_CLEAN = "`simgrid-ml doctor` checks the engine"


class Trial(NamedTuple):
    """A command that was run in a container of its own; 127: it could not be started."""

    argv: tuple[str, ...]
    code: int
    output: str


# -- registries ----------------------------------------------------------------------------
def pull(
    engine: Engine,
    name: str,
    registry: Registry | None,
    log: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Fetch an image.

    Args:
        log: called with each line of progress.
        check: called again and again; what it raises ends the pull.

    Raises:
        NodeError: the registry cannot be reached, has no such image, or does not give it to us.
    """
    secret = registry.password if registry is not None else None
    with _client(engine) as client, _translated(f"pulling {name}", secret, _pull_remedy(name)):
        from docker.errors import APIError
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(name)
        credentials = _credentials(registry)
        said: set[tuple[str, str]] = set()

        def progress() -> Iterator[Any]:
            yield from client.api.pull(
                repository, tag=tag or "latest", stream=True, decode=True, auth_config=credentials
            )

        for line in _watched(progress(), check):
            if "error" in line:
                raise APIError(str(line["error"]))
            key = (str(line.get("id", "")), str(line.get("status", "")))
            if key in said or key[1] in _REPEATED:
                continue
            said.add(key)
            log(": ".join(filter(None, key)))


def _watched(lines: Iterator[Any], check: Callable[[], None]) -> Iterator[Any]:
    """The lines as they come; a registry may not answer for minutes, and a user not wait for it."""
    arrived: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def read() -> None:
        try:
            for line in lines:
                arrived.put((line, None))
            arrived.put((None, StopIteration()))
        except BaseException as error:
            arrived.put((None, error))

    threading.Thread(target=read, daemon=True).start()  # one that waits ends with the process
    while True:
        check()
        try:
            line, end = arrived.get(timeout=_LOOK_S)
        except queue.Empty:
            continue
        if isinstance(end, StopIteration):
            return
        if end is not None:
            raise end
        yield line


def _credentials(registry: Registry | None) -> dict[str, str] | None:
    """None leaves it to the user's own ``docker login``."""
    if registry is None or not registry.username:
        return None
    return {"username": registry.username, "password": registry.password or ""}


def _pull_remedy(name: str) -> str:
    return (
        f"check its name and the credentials of its registry (image_registry_details, or docker "
        f"login); without a registry, docker load it, or use another image in its place: "
        f"simgrid-ml images map {name} LOCAL"
    )


# -- building ------------------------------------------------------------------------------
def build(
    engine: Engine,
    files: Mapping[str, bytes],
    tag: str,
    log: Callable[[str], None],
) -> None:
    """Build an image.

    Args:
        files: the build context by path; one is ``Dockerfile``.
        tag: the image's name.
        log: called with each line; what it raises ends the build.

    Raises:
        EnvironmentBuildError: a step failed, or the base image cannot be had.
    """
    tail: list[str] = []
    with _client(engine) as client, _translated(f"building the image {tag}", None, ""):
        from docker.errors import BuildError

        lines = client.api.build(
            fileobj=_context(files),
            custom_context=True,
            tag=tag,
            decode=True,
            rm=True,
            forcerm=True,
            labels={wire.LABEL: "image"},
            network_mode="host",  # the way to packages is this host's
        )
        for line in lines:
            said = str(line.get("stream") or line.get("status") or "")
            for text in _COLOUR.sub("", said).splitlines():
                if text.strip():
                    tail = [*tail[-_TAIL_LINES:], text]
                    log(text)
            if "error" in line:
                log(str(line["error"]))
                # types-docker wants an iterator of lines; the message is all that is used
                raise BuildError("\n".join([*tail[-12:], str(line["error"])]), iter(()))


def _context(files: Mapping[str, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    stream.seek(0)
    return stream


# -- trying out ----------------------------------------------------------------------------
def try_in(
    engine: Engine, image: str, argv: Sequence[str], binds: Sequence[Bind], timeout_s: float = 60
) -> Trial:
    """Run a command as a node would, in a container that is gone afterwards."""
    with _made(engine, image, argv, binds) as container:
        from docker.errors import APIError

        try:
            container.start()
        except APIError as error:
            if error.status_code is not None and error.status_code < 500:
                said = _one_line(str(error.explanation or error))
                return Trial(tuple(argv), _NOT_STARTED, said.rpartition("container process: ")[2])
            raise
        code = int(container.wait(timeout=timeout_s)["StatusCode"])
        return Trial(tuple(argv), code, container.logs().decode("utf-8", "replace").strip())


def missing_in(engine: Engine, image: str, paths: Sequence[str]) -> list[str]:
    """Those of the paths that the image has not; nothing is run in it."""
    with _made(engine, image, ["true"], ()) as container:
        return [path for path in paths if not engine.has(container.id, path)]


@contextlib.contextmanager
def _made(engine: Engine, image: str, argv: Sequence[str], binds: Sequence[Bind]) -> Iterator[Any]:
    with _client(engine) as client, _translated(f"trying {argv[0]} in {image}", None, _CLEAN):
        from docker.errors import NotFound
        from docker.types import Mount

        container = client.containers.create(
            image,
            entrypoint=list(argv),
            cap_drop=["ALL"],
            labels={wire.LABEL: "trial"},
            mounts=[Mount(to, path, type="bind", read_only=flag) for path, to, flag in binds],
            network_mode="none",
            read_only=True,
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": ""},
            user=f"{os.getuid()}:{os.getgid()}",
        )
        try:
            yield container
        finally:
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)


# -- what it raises ------------------------------------------------------------------------
@contextlib.contextmanager
def _client(engine: Engine) -> Iterator[docker.DockerClient]:
    with _translated(f"talking to the container engine at {engine.address}", None, _CLEAN):
        import docker

        client = docker.DockerClient(base_url=engine.address, timeout=_ANSWER_S)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def _translated(doing: str, secret: str | None, remedy: str) -> Iterator[None]:
    try:
        yield
    except SimgridError:
        raise
    except Exception as error:
        ours = as_ours(error, doing, remedy, secret)
        if ours is None:
            raise
        raise ours from None  # the chain would show what the password was hidden from


def as_ours(
    error: Exception, doing: str, remedy: str = "", secret: str | None = None
) -> SimgridError | None:
    """The error of ours that says what one of the docker package means; None: it is no such."""
    import requests
    from docker import errors
    from docker.credentials.errors import CredentialsNotFound, StoreError

    explained = isinstance(error, errors.APIError) and error.explanation
    seen = str(explained or error)
    if secret:
        seen = seen.replace(secret, "***")
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        return HostError(
            f"the container engine did not answer while {doing}",
            evidence=_one_line(seen),
            remedy="`docker info` shows whether it works; " + _CLEAN,
        )
    if isinstance(error, errors.BuildError):
        return EnvironmentBuildError(
            f"{doing} failed",
            evidence=seen,
            remedy="see the build log; a base image that exists: --base NAME, and for one that "
            "cannot be pulled: docker load",
        )
    if isinstance(error, (StoreError, CredentialsNotFound)):
        return HostError(
            f"the credentials of {doing} could not be read",
            evidence=_one_line(seen),
            remedy="docker login, or give username and password in image_registry_details",
        )
    if isinstance(error, errors.TLSParameterError):
        return HostError(
            "the container engine cannot be reached over TLS as the environment says",
            evidence=_one_line(seen),
            remedy="check DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH",
        )
    foreign = (errors.DockerException, errors.StreamParseError, requests.RequestException)
    if isinstance(error, foreign):
        return NodeError(f"{doing} failed", evidence=_one_line(seen), remedy=remedy or _CLEAN)
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())
