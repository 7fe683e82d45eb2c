"""The cache folder: environments, resolutions and wheels, shared by all workspaces of a user.

::

    <cache>/
      envs/<lock hash>/            a virtual environment, built in place (scripts name their path)
        environment.json           the marker: written last, atomically; without it there is none
        last-used                  its mtime is the time of the last use
      locks/<lock hash>            flock: exclusive while building or pruning, shared while in use
      resolutions/<key>.json       what a specification was resolved to
      wheels/<key>/horovod-….whl   the compiled Horovod

A lock file is never removed: two processes could then lock two files of one name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from simgrid_ml.errors import EnvironmentBuildError, NotFoundError
from simgrid_ml.record.journal import read_json
from simgrid_ml.record.store import cache_home

__all__ = ["LAST_USED", "MARKER", "Cache", "Entry", "document", "locked", "remove"]

MARKER = "environment.json"
LAST_USED = "last-used"
_LOCK_POLL_S = 0.05


class Entry(NamedTuple):
    """A published environment. ``marker`` is the whole of its ``environment.json``."""

    lock_hash: str
    path: Path
    marker: dict[str, Any]
    last_used: float
    in_use: bool

    @property
    def size_bytes(self) -> int:
        return int(self.marker.get("size_bytes", 0))

    def to_json(self) -> dict[str, Any]:
        return {
            "lock_hash": self.lock_hash,
            "path": str(self.path),
            "last_used": self.last_used,
            "in_use": self.in_use,
            **self.marker,
        }


class Cache(NamedTuple):
    """One cache folder."""

    root: Path

    @classmethod
    def default(cls) -> Cache:
        return cls(Path(cache_home()))

    def env(self, lock_hash: str) -> Path:
        return self.root / "envs" / lock_hash

    def lock(self, name: str) -> Path:
        return self.root / "locks" / name

    def resolution(self, key: str) -> Path:
        return self.root / "resolutions" / f"{key}.json"

    def wheels(self, key: str) -> Path:
        return self.root / "wheels" / key

    def marker(self, lock_hash: str) -> dict[str, Any] | None:
        """The marker of a published environment whose Python is still there, else None."""
        path = self.env(lock_hash)
        marker = document(path / MARKER)
        # The interpreter is a link to one of the system, which may be gone after an upgrade.
        if marker is None or not os.access(path / "bin" / "python", os.X_OK):
            return None
        return marker

    def touch(self, lock_hash: str) -> None:
        path = self.env(lock_hash) / LAST_USED
        try:
            os.utime(path)
        except OSError:
            with contextlib.suppress(OSError):
                path.touch()

    def entries(self) -> list[Entry]:
        """All published environments, the latest used first."""
        found = []
        for path in sorted((self.root / "envs").glob("*")):
            marker = self.marker(path.name)
            if marker is not None:
                found.append(
                    Entry(
                        path.name,
                        path,
                        marker,
                        _mtime(path / LAST_USED, float(marker.get("created", 0))),
                        self._in_use(path.name),
                    )
                )
        return sorted(found, key=lambda entry: -entry.last_used)

    def entry(self, prefix: str) -> Entry:
        """The environment whose hash begins so.

        Raises:
            NotFoundError: there is none, or more than one.
        """
        matches = [entry for entry in self.entries() if entry.lock_hash.startswith(prefix)]
        if len(matches) == 1 and prefix:
            return matches[0]
        what = "more than one environment" if matches and prefix else "no environment"
        raise NotFoundError(
            f"there is {what} whose hash begins with {prefix!r}",
            remedy="`simgrid-ml env list` shows them",
        )

    def _in_use(self, lock_hash: str) -> bool:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.lock(lock_hash), wait=False))
            except BlockingIOError:
                return True
        return False

    @contextlib.contextmanager
    def hold(self, lock_hash: str) -> Iterator[int]:
        """Keep an environment from being pruned; gives the descriptor of the lock.

        Raises:
            EnvironmentBuildError: it was pruned before it could be held.
        """
        with locked(self.lock(lock_hash), shared=True) as descriptor:
            if self.marker(lock_hash) is None:
                raise EnvironmentBuildError(
                    f"the environment {lock_hash} was removed before it could be used",
                    remedy="submit again, it will be built again",
                )
            yield descriptor

    def prune(
        self,
        *,
        unused_days: float | None,
        now: float | None = None,
        report: Callable[[str], None] | None = None,
    ) -> tuple[list[Entry], list[Entry]]:
        """Remove environments unused for so many days, all for None; never one in use.

        Leftovers of killed builders go too. Resolutions whose environment is gone are removed, so
        that newer releases are looked for; with None also the wheels.

        Returns:
            (removed, kept because in use)
        """
        clock = time.time() if now is None else now
        removed, kept = [], []
        known = {entry.lock_hash: entry for entry in self.entries()}
        for path in sorted((self.root / "envs").glob("*")):
            entry = known.get(path.name)
            if (
                entry is not None
                and unused_days is not None
                and clock - entry.last_used < unused_days * 86400
            ):
                continue
            try:
                with locked(self.lock(path.name), wait=False):
                    if report is not None:
                        report(f"removing {path.name}")
                    remove(path)
                    if entry is not None:
                        removed.append(entry)
            except BlockingIOError:
                if entry is not None:
                    kept.append(entry)
        for path in (self.root / "resolutions").glob("*.json"):
            resolution = document(path)
            if resolution is None or not self.env(str(resolution.get("lock_hash"))).exists():
                path.unlink(missing_ok=True)
        if unused_days is None:
            self._prune_wheels()
        return removed, kept

    def _prune_wheels(self) -> None:
        for path in sorted((self.root / "wheels").glob("*")):
            try:
                with locked(self.lock(path.name), wait=False):
                    remove(path)
            except BlockingIOError:
                continue


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    shared: bool = False,
    wait: bool = True,
    cancel: threading.Event | None = None,
    waiting: Callable[[], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Iterator[int]:
    """Hold a flock; gives its descriptor, which a child may inherit to hold it longer.

    Args:
        waiting: called once if somebody else holds the lock.
        check: called while waiting; an exception from it ends the wait.

    Raises:
        BlockingIOError: without ``wait`` and somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        told = False
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not wait:
                    raise
            if waiting is not None and not told:
                waiting()
                told = True
            if check is not None:
                check()
            (cancel or threading.Event()).wait(_LOCK_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def document(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; what a power cut has torn counts as none, as does no file."""
    try:
        plain = read_json(str(path))
    except (OSError, ValueError):
        return None
    return plain if isinstance(plain, dict) else None


def remove(path: Path) -> None:
    """Remove a folder; its marker first, so that a half-removed environment counts as none."""
    (path / MARKER).unlink(missing_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        import shutil  # as slow to import as an environment is to find

        shutil.rmtree(path, ignore_errors=True)


def _mtime(path: Path, otherwise: float) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return otherwise
