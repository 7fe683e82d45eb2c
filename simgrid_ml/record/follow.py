"""Reading a run while it grows: new bytes of its logs, and the moves of its state.

The kernel says when a file changes (inotify), so a line is with the reader within a millisecond
and an idle reader costs nothing. Where there is no inotify, or no instance of it is left, the
files are looked at 50 times a second.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import time
from typing import Any, Callable, Collection, Dict, Iterator, Optional, Set, Tuple, Union

from simgrid_ml import wire
from simgrid_ml.record.run import RunRecord, RunState

__all__ = ["LOG_FOLDERS", "Names", "follow", "has_ended", "wait_state"]

LOG_FOLDERS = ("azureml-logs", "user_logs", wire.LOGS)
"""The folders among the artifacts whose files grow while the run lives."""

Names = Union[None, Collection[str], Callable[[str], bool]]

_POLL_S = 0.02
_TICK_S = 0.5  # a supervisor that dies writes nothing: its lock is looked at this often
_BLOCK = 2**20


def has_ended(state: RunState) -> bool:
    """Whether nothing will happen in the run any more, also because its supervisor is gone."""
    return state.is_terminal or state is RunState.NOT_RESPONDING


def follow(record: RunRecord, *, names: Names = None) -> Iterator[Tuple[str, bytes]]:
    """Every log from its beginning, as (artifact name, new bytes), until the run has ended.

    Bytes of one log come in order; a chunk may end inside a line or a character. When the run
    is terminal (or nobody is left to end it), what is still unread comes, and then no more.

    Args:
        record: the run.
        names: the logs wanted, by name or by predicate; None: all in ``LOG_FOLDERS``.
    """
    logs = _Logs(record, names)
    with _watcher() as watcher:
        watcher.watch(record.file(wire.STATE), moves=False)
        while True:
            ended = has_ended(record.state)  # before looking: what is written later is not awaited
            logs.find(watcher)
            for name in sorted(logs.paths):
                yield from logs.read(name)
            if ended:
                return
            deadline = time.monotonic() + _TICK_S
            while True:
                changed = watcher.wait(max(0.0, deadline - time.monotonic()))
                if changed is None or not changed <= logs.seen or time.monotonic() >= deadline:
                    break
                for path in sorted(changed):
                    if path in logs.names:
                        yield from logs.read(logs.names[path])


def wait_state(
    record: RunRecord,
    timeout_s: Optional[float] = None,
    *,
    until: Callable[[RunState], bool] = has_ended,
) -> RunState:
    """The run's state as soon as ``until`` holds for it, or when ``timeout_s`` have passed.

    The caller looks at the state to tell the two apart.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with _watcher() as watcher:
        watcher.watch(record.file(wire.STATE), moves=False)
        while True:
            state = record.state
            left = _TICK_S if deadline is None else min(_TICK_S, deadline - time.monotonic())
            if until(state) or left <= 0:
                return state
            watcher.wait(left)


class _Logs:
    """Where the run's logs are, and how far each has been read."""

    def __init__(self, record: RunRecord, names: Names) -> None:
        self._record = record
        self._wanted = names if callable(names) else (lambda n: names is None or n in names)
        self._offsets: Dict[str, int] = {}
        self._attempts = 0  # that were pre-empted
        self.paths: Dict[str, str] = {}
        self.names: Dict[str, str] = {}
        self.seen: Set[str] = set()  # also the logs nobody asked for

    def find(self, watcher: _Watcher) -> None:
        """Look for new logs. A folder is watched before it is listed, so no file is missed."""
        record = self._record
        watcher.watch(record.path, content=False)
        watcher.watch(record.file(wire.ARTIFACTS), content=False)
        attempts = _count(record.file(wire.ATTEMPTS))
        if attempts != self._attempts:  # the job has begun again, with new logs of the same names
            self._attempts = attempts
            self._offsets.clear()
        self.paths, self.seen = {}, set()
        for folder in LOG_FOLDERS:
            self._list(record.file(wire.ARTIFACTS, folder), folder, watcher)
        if not os.path.exists(record.file(wire.ARTIFACT_INDEX)):
            for work in record.work_directories():
                watcher.watch(work, content=False)
                self._list(os.path.join(work, wire.LOGS), wire.LOGS, watcher)
        self.names = {path: name for name, path in self.paths.items()}

    def _list(self, folder: str, prefix: str, watcher: _Watcher) -> None:
        watcher.watch(folder)
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            name = f"{prefix}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                self._list(entry.path, name, watcher)
            elif entry.is_file():
                self.seen.add(entry.path)
                if self._wanted(name):
                    self.paths.setdefault(name, entry.path)

    def read(self, name: str) -> Iterator[Tuple[str, bytes]]:
        """What was added; only as much as there is now, so that one log cannot starve the rest."""
        try:
            stream = open(self.paths[name], "rb", buffering=0)  # noqa: SIM115 - closed below
        except FileNotFoundError:  # renamed; the next look finds it
            return
        with stream:
            size = os.fstat(stream.fileno()).st_size
            offset = self._offsets.get(name, 0)
            if size < offset:  # started anew
                offset = 0
            stream.seek(offset)
            while offset < size:
                block = stream.read(min(_BLOCK, size - offset))
                if not block:
                    break
                offset += len(block)
                self._offsets[name] = offset
                yield name, block


def _count(folder: str) -> int:
    try:
        return len(os.listdir(folder))
    except FileNotFoundError:
        return 0


class _Watcher:
    """Polling: the files may have changed whenever the interval is over."""

    def watch(self, path: str, *, content: bool = True, moves: bool = True) -> None:
        """Report what happens to ``path``, or in it; nothing if it does not exist."""

    def wait(self, timeout_s: float) -> Optional[Set[str]]:
        """Paths that changed, empty after the timeout; None if anything may have."""
        time.sleep(min(_POLL_S, timeout_s))
        return None

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_MODIFY, _MOVED_TO, _CREATE = 0x2, 0x80, 0x100
_OVERFLOW, _IGNORED = 0x4000, 0x8000


class _Inotify(_Watcher):
    """The kernel tells.

    Raises:
        OSError: there is no inotify, or the user has no instance left.
    """

    def __init__(self) -> None:
        import ctypes  # 10 ms, and only followers need it

        libc: Any = ctypes.CDLL(None, use_errno=True)
        try:
            self._fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError as error:
            raise OSError(errno.ENOSYS, "no inotify") from error
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._add = libc.inotify_add_watch
        self._paths: Dict[int, str] = {}
        self._watched: Set[str] = set()
        self._full = False
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def watch(self, path: str, *, content: bool = True, moves: bool = True) -> None:
        if path in self._watched:
            return
        mask = (_MODIFY if content else 0) | (_MOVED_TO | _CREATE if moves else 0)
        found = self._add(self._fd, os.fsencode(path), mask)
        if found >= 0:
            self._paths[found] = path
            self._watched.add(path)
        elif os.path.exists(path):  # no watch left for this user: look often instead
            self._full = True

    def wait(self, timeout_s: float) -> Optional[Set[str]]:
        if self._full:
            return super().wait(timeout_s)
        if not self._poll.poll(timeout_s * 1000):
            return set()
        try:
            events = os.read(self._fd, 2**16)
        except BlockingIOError:
            return set()
        changed: Set[str] = set()
        position = 0
        while position < len(events):
            number, mask, _, length = struct.unpack_from("iIII", events, position)
            position += 16
            name = os.fsdecode(events[position : position + length].rstrip(b"\0"))
            position += length
            if mask & _OVERFLOW:
                return None
            path = self._paths.get(number)
            if path is None:
                continue
            if mask & _IGNORED:  # deleted; it may come again under the same name
                self._watched.discard(self._paths.pop(number))
            changed.add(os.path.join(path, name) if name else path)
        return changed

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _watcher() -> _Watcher:
    try:
        return _Inotify()
    except OSError:
        return _Watcher()
