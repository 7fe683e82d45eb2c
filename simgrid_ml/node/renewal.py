"""Makes a warm node as good as new between two runs: nothing in it tells that one was there."""

from __future__ import annotations

import ctypes
import errno
import os
import signal

TYPE_CHECKING = False  # agents do without typing; see agent.py
if TYPE_CHECKING:
    from typing import Callable, Set

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
    """Remove what is in ``folder``, and nothing that is mounted there: that is not the node's.

    Workspaces may lie below the host's ``/tmp``; the node then sees all their runs in its own.
    """
    _empty(os.path.realpath(folder), _mount_points())


def _empty(folder: str, mounted: Set[str]) -> None:
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


def _mount_points() -> Set[str]:
    """Where something is mounted, as this process sees it."""
    with open("/proc/self/mountinfo", "rb") as stream:
        fields = [line.split(b" ")[4] for line in stream]
    for code, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        fields = [field.replace(code, byte) for field in fields]
    return {os.fsdecode(field) for field in fields}


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
