"""Runs the commands of a build: log, progress, cancellation, and no orphan whatever happens."""

from __future__ import annotations

import errno
import os
import re
import selectors
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from simgrid_ml.errors import EnvironmentBuildError

__all__ = ["BuildLog", "Commands", "Finished", "no_space_left", "redact"]

_GUARD = str(Path(__file__).with_name("guard.py"))
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_TAIL_LINES = 2000  # the first error of a C++ compiler is far from its last line
_POLL_S = 0.1  # how soon a cancellation is seen

DISK_FULL_REMEDY = (
    "free some space (`simgrid-ml env prune --all` removes unused environments), "
    "or set SIMGRID_ML_CACHE to a folder on another disk"
)


def redact(text: str) -> str:
    """The text without user names and passwords in URLs.

    >>> redact("https://joe:secret@example.org/simple")
    'https://***@example.org/simple'
    """
    return _CREDENTIALS.sub("***@", text)


def no_space_left(where: str, evidence: str = "") -> EnvironmentBuildError:
    return EnvironmentBuildError(
        f"the disk is full: {where}", evidence=evidence, remedy=DISK_FULL_REMEDY
    )


class BuildLog:
    """What becomes ``20_image_build_log.txt``: nothing is written until there is a build.

    Resolving comes first, and its result may be that the environment exists already; a run that
    found its environment in the cache has no build log.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._early: list[str] = []
        self._file: IO[str] | None = None

    def open(self) -> None:
        """From now on lines go to the file, beginning with those so far."""
        if self._path is None or self._file is not None:
            return
        try:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            self._file = open(  # noqa: SIM115 — closed by close()
                self._path, "a", encoding="utf-8", buffering=1
            )
            self._file.writelines(self._early)
        except OSError as error:
            raise _log_error(self._path, error) from error
        self._early.clear()

    def write(self, line: str) -> None:
        text = redact(line.rstrip("\n")) + "\n"
        if self._file is None:
            if self._path is not None:
                self._early.append(text)
            return
        try:
            self._file.write(text)
        except OSError as error:
            raise _log_error(str(self._path), error) from error

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                raise _log_error(str(self._path), error) from error


def _log_error(path: str, error: OSError) -> EnvironmentBuildError:
    if error.errno == errno.ENOSPC:
        return no_space_left(f"could not write the build log {path}")
    return EnvironmentBuildError(
        f"could not write the build log {path}: {error.strerror}",
        remedy="make its folder writable",
    )


@dataclass(frozen=True)
class Finished:
    """How a command ended; ``tail`` are its last lines, both streams together."""

    code: int
    tail: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.tail)

    def evidence(self, lines: int = 12) -> str:
        return redact("\n".join(self.tail[-lines:]))


@dataclass
class Commands:
    """Runs commands for one build.

    Attributes:
        log: gets every command line and everything it prints.
        cancel: set by another thread to end the build.
        lock_fds: descriptors every command inherits, so that the locks outlive a killed builder
            exactly as long as its commands do.
    """

    log: BuildLog
    cancel: threading.Event | None = None
    lock_fds: list[int] = field(default_factory=list)

    def check_cancelled(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise EnvironmentBuildError(
                "building the environment was cancelled",
                remedy="submit again; what was downloaded and compiled so far is kept",
            )

    @contextmanager
    def holding(self, lock_fd: int) -> Iterator[None]:
        self.lock_fds.append(lock_fd)
        try:
            yield
        finally:
            self.lock_fds.remove(lock_fd)

    def run(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: str | None = None,
        on_line: Callable[[str], None] | None = None,
        deadline_s: float = 3600.0,
    ) -> Finished:
        """Run to the end; a code other than 0 is the caller's to judge.

        Raises:
            EnvironmentBuildError: cancelled, not to be started, or over its deadline.
        """
        self.check_cancelled()
        self.log.write("$ " + " ".join(argv))
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", _GUARD, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
                pass_fds=self.lock_fds,
            )
        except OSError as error:
            raise EnvironmentBuildError(
                f"could not start {argv[0]}: {error.strerror}",
                remedy="`simgrid-ml doctor` shows what this machine lacks",
            ) from error
        assert process.stdin is not None and process.stdout is not None
        ended = False
        try:
            until = time.monotonic() + deadline_s
            for line in self._lines(process.stdout, argv[0], until):
                tail.append(line)
                self.log.write(line)
                if on_line is not None:
                    on_line(line)
            code = process.wait(timeout=60)
            ended = True
        finally:
            if ended:
                process.stdin.close()
            else:
                self._end(process)
            process.stdout.close()
        return Finished(code, tuple(tail))

    def _lines(self, stream: IO[bytes], name: str, until: float) -> Iterator[str]:
        """Lines as they come; a bare carriage return ends a line too (progress bars)."""
        rest = b""
        descriptor = stream.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while True:
                self.check_cancelled()
                if time.monotonic() > until:
                    raise EnvironmentBuildError(
                        f"{name} did not finish in time",
                        remedy="look at the build log; submit again to go on",
                    )
                if not selector.select(_POLL_S):
                    continue
                chunk = os.read(descriptor, 65536)
                if not chunk:
                    break
                *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
                for line in lines:
                    if line.strip():
                        yield line.decode("utf-8", "replace")
        if rest.strip():
            yield rest.decode("utf-8", "replace")

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        """End the whole group. No TERM first: nothing half-written here is ever published."""
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
        process.wait(timeout=30)
        if process.stdin is not None:
            process.stdin.close()
