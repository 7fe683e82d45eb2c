"""How a container's agent gives up what it was started with, before it listens to anybody."""

from __future__ import annotations

import ctypes
import os
import struct

from simgrid_ml.node.isolation import call

TYPE_CHECKING = False  # agents do without typing; see agent.py
if TYPE_CHECKING:
    from typing import Dict, List, Tuple

__all__ = ["can_forbid_namespaces", "drop_privileges", "forbid_namespaces"]

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_CAPABILITY_VERSION_3 = 0x20080522
_NEWUSER = 0x10000000
_X32 = 0x40000000

_CALLS: Dict[str, Tuple[int, Tuple[int, ...], int, int]] = {
    # the kernel's name of the machine; unshare, setns, bpf, perf_event_open; clone3; clone
    "x86_64": (0xC000003E, (272, 308, 321, 298), 435, 56),
    "aarch64": (0xC00000B7, (97, 268, 280, 241), 435, 220),
}

_LOAD, _EQUAL, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x50001, 0x50026


def drop_privileges(uid: int, gid: int) -> None:
    """Become ``uid`` without any capability, for good: nothing executed later regains one."""
    if os.getuid() != uid or os.getgid() != gid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())


def can_forbid_namespaces() -> bool:
    """Whether ``forbid_namespaces`` knows this machine's system calls."""
    return os.uname().machine in _CALLS


def forbid_namespaces() -> None:
    """Refuse new namespaces, and what else a container may ask for that has CAP_SYS_ADMIN.

    An engine derives its filter of system calls from the capabilities that a container starts with.
    Those are gone, the filter stays as wide; in a user namespace of its own a process has them all.
    """
    machine, refused, clone3, clone = _CALLS[os.uname().machine]
    program: List[Tuple[int, int, int, int]] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, machine)]
    program += [(_RETURN, 0, 0, _EPERM), (_LOAD, 0, 0, 0)]
    for number in refused:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _EPERM)]
    program += [(_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _ENOSYS)]  # libraries then use clone
    program += [(_EQUAL, 0, 3, clone), (_LOAD, 0, 0, 16)]  # its flags are its first argument
    program += [(_HAS, 0, 1, _NEWUSER), (_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    call("prctl", _PR_SET_SECCOMP, _FILTER, ctypes.create_string_buffer(header, len(header)), 0, 0)
