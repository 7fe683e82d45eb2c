"""Give the calling process the namespaces of a virtual node, as many as the host allows.

The rungs, best first:

1. own host name, process ids, mounts and IPC (as root, or in an own user namespace);
2. own host name only;
3. nothing: the node has its name in its environment alone.

With own process ids the node's agent is PID 1 and the kernel ends whatever is left in the node
when the agent ends, even by SIGKILL. With own mounts ``/dev/shm`` is the node's: no shared
memory segment outlives it, and none can clash with another run's.
"""

from __future__ import annotations

import ctypes
import os
from typing import List, Tuple

__all__ = ["FULL", "enter", "enter_mounts", "set_hostname"]

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 1 << 18

FULL = ("hostname", "pid", "mount", "ipc")
HOSTNAME = ("hostname",)

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _unshare(flags: int) -> None:
    """``unshare``, as root in the host's user namespace, else in one of our own."""
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        _call("unshare", _NEWUSER | flags)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    else:
        _call("unshare", flags)


def _write(path: str, text: str) -> None:
    with open(path, "w") as stream:
        stream.write(text)


def enter(wanted: Tuple[str, ...]) -> Tuple[Tuple[str, ...], List[str]]:
    """Unshare what of ``wanted`` is allowed; process ids take effect in the next child.

    Returns:
        what the caller has now, and one sentence for each rung that was refused.
    """
    refused: List[str] = []
    for rung, flags in ((FULL, _NEWUTS | _NEWNS | _NEWIPC | _NEWPID), (HOSTNAME, _NEWUTS)):
        if not set(rung) <= set(wanted):
            continue
        try:
            _unshare(flags)
            return rung, refused
        except OSError as error:
            refused.append(f"no own {', '.join(rung)}: {error}")
    return (), refused


def set_hostname(name: str) -> None:
    """Name the node (Python has no ``sethostname`` in ``os``)."""
    encoded = name.encode()
    _call("sethostname", encoded, len(encoded))


def enter_mounts(shm_bytes: int) -> None:
    """In the first process of the node: its own ``/proc`` and ``/dev/shm``."""
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)
    _mount(b"shm", b"/dev/shm", b"tmpfs", _MS_NOSUID | _MS_NODEV, f"size={shm_bytes}".encode())


def _mount(
    source: bytes, target: bytes, kind: "bytes | None", flags: int, data: "bytes | None"
) -> None:
    _call("mount", source, target, kind, ctypes.c_ulong(flags), data)
