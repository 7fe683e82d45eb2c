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
import fcntl
import os
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

__all__ = [
    "FULL",
    "TCP",
    "TMP",
    "call",
    "enter",
    "enter_mounts",
    "enter_network",
    "has_network",
    "open_tun",
    "probe",
    "raise_interface",
    "set_hostname",
    "shared_folders",
    "unshare_network",
]

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18

FULL = ("hostname", "pid", "mount", "ipc")
HOSTNAME = ("hostname",)

TMP = "/dev/shm/tmp"
"""A short name for the node's TMPDIR. Programs put sockets there (multiprocessing does, and so do
the workers of torch's DataLoader), whose paths may have 107 bytes; a run directory has as many."""

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """A function of the C library that returns 0, or sets ``errno``."""
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _unshare(flags: int) -> None:
    """``unshare`` where the caller may: as root, or in a user namespace of its own that it is in
    already; else in a new one. A second one inside the first would lose what the first owns."""
    uid, gid = os.getuid(), os.getgid()
    try:
        call("unshare", flags)
    except PermissionError:
        if uid == 0:
            raise
        call("unshare", _NEWUSER | flags)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")


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
    call("sethostname", encoded, len(encoded))


def enter_mounts(shm_bytes: int, hosts: str, tmp: str) -> None:
    """In the first process of the node: its own ``/proc``, ``/dev/shm`` and ``/etc/hosts``.

    Args:
        shm_bytes: size of ``/dev/shm``.
        hosts: the file to see as ``/etc/hosts``.
        tmp: the folder to see as ``TMP`` as well.
    """
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)
    _mount(b"shm", b"/dev/shm", b"tmpfs", _MS_NOSUID | _MS_NODEV, f"size={shm_bytes}".encode())
    _mount(os.fsencode(hosts), b"/etc/hosts", None, _MS_BIND, None)
    os.mkdir(TMP)
    _mount(os.fsencode(tmp), os.fsencode(TMP), None, _MS_BIND, None)


def probe(wanted: Tuple[str, ...]) -> Tuple[Tuple[str, ...], List[str]]:
    """What a node would get of ``wanted``, as ``enter`` tells it; asked in another process."""
    import json
    import subprocess

    limits: List[str] = []
    for rungs in (wanted, HOSTNAME):
        argv = [sys.executable, "-I", "-S", os.path.abspath(__file__), *rungs]
        said = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
        if said.returncode == 0:
            have, refused = json.loads(said.stdout.decode())
            return tuple(have), limits + refused
        limits += said.stderr.decode("utf-8", "replace").splitlines()[-1:]
    return (), limits


def _answer(wanted: Tuple[str, ...]) -> None:
    """Enter what is allowed of ``wanted``, as an agent does, and print it."""
    import json

    have, refused = enter(wanted)
    if "pid" in have:
        child = os.fork()
        if child != 0:
            _, status = os.waitpid(child, 0)
            os._exit(1 if status else 0)
        try:
            enter_mounts(2**20, "/etc/hosts", "/tmp")
        except OSError as error:
            sys.exit(f"no own mounts: {error}")
    print(json.dumps([have, refused]))


def shared_folders(shared: str, tmp: str) -> Dict[str, Optional[str]]:
    """What a node without own mounts uses for TMPDIR and shared memory.

    Args:
        shared: a folder in ``/dev/shm`` for the nodes of one run, removed with the last of them.
            Open MPI leaves its segments there when its ranks are killed.
        tmp: the node's temporary folder; gets a short name in ``shared``, as ``TMP`` is one.
    """
    try:
        os.makedirs(shared, 0o700, exist_ok=True)
        short = os.path.join(shared, os.path.basename(tmp))
        os.symlink(tmp, short)
    except OSError:  # no /dev/shm, or a full one
        return {"tmp": tmp, "shm": None}
    return {"tmp": short, "shm": shared}


def _mount(
    source: bytes, target: bytes, kind: "bytes | None", flags: int, data: "bytes | None"
) -> None:
    call("mount", source, target, kind, ctypes.c_ulong(flags), data)


# -- networks ------------------------------------------------------------------------------
_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x400454CA, 1, 0x1000, 0x4000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_SIOCSIFMTU = 0x8922
_IFF_UP, _IFF_LOOPBACK = 1, 8
_IFREQ_FLAGS = "16sH22x"
_TUN = "/dev/net/tun"
_INTERFACE, _ADDRESS, _NETMASK = "mpi0", "10.255.255.1", "255.255.255.252"


def has_network() -> bool:
    """Whether an interface other than loopback is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = [_flags(control, os.fsencode(name)) for _, name in socket.if_nameindex()]
    return any(each & _IFF_UP and not each & _IFF_LOOPBACK for each in flags)


def _flags(control: socket.socket, interface: bytes) -> int:
    request = struct.pack(_IFREQ_FLAGS, interface, 0)
    flags: int = struct.unpack(_IFREQ_FLAGS, fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
    return flags


def unshare_network(*, tun: bool = True) -> None:
    """A network namespace of the caller's own, with a loopback that is up.

    Args:
        tun: whether a TUN device is to be made in it.

    Raises:
        OSError: the host allows none, or no TUN device could be made in it.
    """
    if tun and not os.access(
        _TUN, os.R_OK | os.W_OK
    ):  # asked first: after unshare there is no way back
        raise PermissionError(f"{_TUN} cannot be opened")
    _unshare(_NEWNET)
    raise_interface("lo")
    if tun:
        _tune_tcp()


TCP = {"tcp_congestion_control": "cubic", "tcp_slow_start_after_idle": "0"}
"""How TCP of shaped nodes is set, whatever this host does.

BBR takes the time in which an idle link answers for the distance of the peer. A relay answers
within microseconds, and where bulk goes both ways BBR then sends at two thirds of the rate. And the
first message of a training step shall not wait for acknowledgements because the one before was a
second ago: that is how clusters for training are set up."""


def _tune_tcp() -> None:
    """Set it for this network namespace."""
    for name, value in TCP.items():
        try:
            _write(f"/proc/sys/net/ipv4/{name}", value)
        except OSError:  # the kernel has it not, or the file is not ours to write
            pass


def open_tun(interface: str, address: str, netmask: str, mtu: int = 1500, *, relay: bool) -> int:
    """A TUN device in the caller's network namespace, up and with its address.

    Args:
        relay: packets carry a virtio header (10 bytes), so that segments may stay together.

    Returns:
        a descriptor; the interface exists until it is closed.
    """
    tun = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    flags = _IFF_TUN | _IFF_NO_PI | (_IFF_VNET_HDR if relay else 0)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack(_IFREQ_FLAGS, interface.encode(), flags))
    raise_interface(interface, address, netmask, mtu)
    return tun


def raise_interface(
    interface: str, address: str = "", netmask: str = "", mtu: Optional[int] = None
) -> None:
    """Give an interface of the caller's network namespace its address, and put it up."""
    name = interface.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        if mtu is not None:
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name, mtu))
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, netmask)):
            if value:
                packed = struct.pack("16sHH4s16x", name, socket.AF_INET, 0, _packed(value))
                fcntl.ioctl(control, request, packed)
        flags = _flags(control, name) | _IFF_UP
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_IFREQ_FLAGS, name, flags))


def enter_network() -> int:
    """A network namespace with a loopback and one idle interface, for the caller's children.

    Open MPI's daemons refuse to start where there is only a loopback: a machine that is offline.
    Nothing ever crosses the interface; it has to be there.

    Returns:
        a descriptor; the interface exists until it is closed.

    Raises:
        OSError: the host allows no network namespace, or no TUN device in it.
    """
    unshare_network()
    return open_tun(_INTERFACE, _ADDRESS, _NETMASK, relay=False)


def _packed(address: str) -> bytes:
    return bytes(int(part) for part in address.split("."))


if __name__ == "__main__":
    _answer(tuple(sys.argv[1:]))
