"""Makes a warm node as good as new between two runs: nothing in it tells that one was there."""

from __future__ import annotations

import ctypes
import errno
import os
import signal

TYPE_CHECKING = False  # agents do without typing; see agent.py
if TYPE_CHECKING:
    from typing import Callable

__all__ = ["empty", "end_all", "remove_ipc"]

_IPC_RMID = 0


def end_all() -> None:
    """As PID 1 of a process-id namespace: end and reap all that is in it."""
    try:
        while True:
            try:
                os.kill(-1, signal.SIGKILL)  # all but this process; none of them can fork after it
            except ProcessLookupError:
                pass
            os.waitpid(-1, 0)
    except ChildProcessError:
        return


def empty(folder: str) -> None:
    """Remove what is in ``folder``, but nothing below a mount point in it.

    Folders of the host may be mounted there: run directories, where they are in ``/tmp``.
    """
    _empty(os.path.realpath(folder), _mount_points())


def _empty(folder: str, mounted: "frozenset[str]") -> None:
    for entry in os.scandir(folder):
        if entry.path in mounted:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                _empty(entry.path, mounted)
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOENT, errno.ENOTEMPTY):
                raise


def _mount_points() -> "frozenset[str]":
    """Of this mount namespace. Where they cannot be told, nothing may be removed.

    Raises:
        OSError: there is no ``/proc``.
    """
    with open("/proc/self/mountinfo", "rb") as stream:
        fields = [line.split(b" ")[4] for line in stream]
    return frozenset(os.fsdecode(_unescaped(field)) for field in fields)


def _unescaped(field: bytes) -> bytes:
    """Blanks, tabs, newlines and backslashes are written as octal numbers."""
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def remove_ipc() -> None:
    """In an IPC namespace of the node's own: remove System V shared memory, semaphores, queues."""
    libc = ctypes.CDLL(None)
    removals: "tuple[tuple[str, Callable[[int], int]], ...]" = (
        ("shm", lambda number: libc.shmctl(number, _IPC_RMID, None)),
        ("sem", lambda number: libc.semctl(number, 0, _IPC_RMID)),
        ("msg", lambda number: libc.msgctl(number, _IPC_RMID, None)),
    )
    for kind, remove in removals:
        try:
            with open(f"/proc/sysvipc/{kind}") as stream:
                numbers = [int(line.split()[1]) for line in stream.readlines()[1:]]
        except OSError:
            continue
        for number in numbers:
            remove(number)
