"""A switch for nodes with network namespaces of their own: a bridge in a namespace of its own.

``python -I -S bridge.py SHAPED``, as root, makes the switch, obeys the lines of JSON that it reads
(``plug`` and ``rate``, see below; each is answered by a line), and keeps it until its stdin closes;
then the kernel takes all of it apart. So nothing of it is seen on the host: no interface, no route,
no rule of a firewall.

What it costs over a loopback was found with Open MPI's allreduce over two nodes. Docker's own
bridge: 8 B in 1.46 times the time, 16 MiB at 0.77 of the bandwidth. Without its firewall rules,
1.08 and 0.80; with packets as long as a loopback's, 1.08 and 1.0. Hence the MTU.

A SHAPED switch (1, else 0) gives its ports rates, by htb on both ends of the cable, and has the
MTU of Ethernet, since rates count frames. The bucket is a compromise: smaller, and fast links lose
up to a fifth of their rate; any size lets that much pass unshaped after a pause.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from simgrid_ml.node import isolation

__all__ = ["MTU", "Plug", "Switch", "burst_bytes"]

MTU = 65535
_SHAPED_MTU = 1500
_QUEUE_BYTES = 512 * 1024
_NEWNET = 0x40000000
_SWITCH = "switch"
_LEFT_S = 20.0


class Plug(NamedTuple):
    """The end of one node's cable.

    Attributes:
        node: its name.
        pid: a process in its network namespace.
        address: of the node.
        netmask: of all of them.
        interface: the name of the node's end.
        rate: in bytes per second and each direction; None: as fast as it goes.
    """

    node: str
    pid: int
    address: str
    netmask: str
    interface: str
    rate: float | None = None


def main(argv: list[str]) -> int:
    host = _namespace(os.getpid())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one for each node, for a moment
    switch: Switch | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if switch is None:
                switch = Switch(shaped=argv[0] == "1", host=host)
            if asked["op"] == "plug":
                switch.plug([Plug(**plug) for plug in asked["plugs"]])
            else:
                switch.rate(asked["node"], asked["rate"])
            print(json.dumps({}), flush=True)
        except OSError as error:
            print(json.dumps({"error": str(error)}), flush=True)
    return 0


class Switch:
    """The bridge, in a namespace that this process has moved to.

    Args:
        shaped: whether ports may have rates.
        host: the host's network namespace, as its inode; nothing is ever plugged into that.
    """

    def __init__(self, *, shaped: bool, host: int) -> None:
        self._mtu = _SHAPED_MTU if shaped else MTU
        self._host = host
        self._plugs: dict[str, Plug] = {}
        self._namespaces: dict[str, int] = {}  # inode of each node's; its pid may be another's soon
        self._shaped: set[str] = set()
        isolation.unshare_network(tun=False)
        _batch("ip", [f"link add {_SWITCH} mtu {self._mtu} type bridge forward_delay 0"])
        isolation.raise_interface(_SWITCH)

    def plug(self, plugs: list[Plug]) -> None:
        """A cable to each node, once it has a namespace of its own."""
        lines = []
        with contextlib.ExitStack() as stack:
            for plug in plugs:
                namespace = self._await_namespace(plug.pid)
                stack.callback(os.close, namespace)
                self._plugs[plug.node] = plug
                self._namespaces[plug.node] = os.fstat(namespace).st_ino
                port = self._port(plug.node)
                lines += [
                    f"link add {port} mtu {self._mtu} type veth peer name {plug.interface} "
                    f"mtu {self._mtu} netns /proc/{os.getpid()}/fd/{namespace}",
                    f"link set {port} master {_SWITCH} up",
                ]
            _batch("ip", lines)
        for plug in plugs:
            with self._inside(plug.node):
                isolation.raise_interface(plug.interface, plug.address, plug.netmask)
            if plug.rate is not None:
                self.rate(plug.node, plug.rate)

    def rate(self, node: str, rate: float | None) -> None:
        """Give a node's cable a rate in bytes per second, in either direction, or take it away."""
        plug, shaped = self._plugs[node], node in self._shaped
        _batch("tc", _shaping(self._port(node), rate, shaped))
        with self._inside(node):
            _batch("tc", _shaping(plug.interface, rate, shaped))
        (self._shaped.discard if rate is None else self._shaped.add)(node)

    def _port(self, node: str) -> str:
        """Of the last process that had the name: a cable goes with its node, a moment later."""
        return f"p{self._plugs[node].pid}"

    def _await_namespace(self, pid: int) -> int:
        """Until ``pid`` has left the namespace it was started in, which is still its parent's;
        an open descriptor of the new one."""
        deadline = time.monotonic() + _LEFT_S
        others = {self._host, _namespace(_parent(pid))}
        while True:
            namespace = _open(pid)
            if os.fstat(namespace).st_ino not in others:
                return namespace
            os.close(namespace)
            if time.monotonic() > deadline:
                raise OSError(f"process {pid} is still in the host's network after {_LEFT_S:g} s")
            time.sleep(0.001)

    @contextlib.contextmanager
    def _inside(self, node: str) -> Iterator[None]:
        """In the network namespace of a node; never in that of whoever has its process id now."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            away = _open(self._plugs[node].pid)
            try:
                if os.fstat(away).st_ino != self._namespaces[node]:
                    raise OSError(f"{node} has ended")
                _set_namespace(away)
            finally:
                os.close(away)
            yield
        finally:
            _set_namespace(home)
            os.close(home)


def _open(pid: int) -> int:
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _namespace(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as stream:
        return int(stream.read().rpartition(b")")[2].split()[1])


def burst_bytes(rate: float) -> int:
    """The bucket for a rate in bytes per second.

    256 KiB keep 1 to 5 Gbit/s within 0.5 %; slower links need less, faster ones more.
    """
    return round(max(64 * 1024, min(0.002 * rate, max(256 * 1024, 0.0004 * rate))))


def _shaping(device: str, rate: float | None, is_shaped: bool) -> list[str]:
    """Lines for ``tc -batch``."""
    if rate is None:
        return [f"qdisc del dev {device} root"] if is_shaped else []
    burst = burst_bytes(rate)
    given = f"rate {round(rate * 8)}bit burst {burst} cburst {burst} quantum 60000"
    if is_shaped:
        return [f"class change dev {device} parent 1: classid 1:1 htb {given}"]
    return [
        f"qdisc add dev {device} root handle 1: htb default 1",
        f"class add dev {device} parent 1: classid 1:1 htb {given}",
        f"qdisc add dev {device} parent 1:1 bfifo limit {_QUEUE_BYTES}",
    ]


def _batch(program: str, lines: list[str]) -> None:
    try:
        done = subprocess.run(
            [program, "-batch", "-"],
            input="\n".join(lines).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError:
        raise OSError(f"there is no program `{program}`: install the package iproute2") from None
    if done.returncode != 0:
        raise OSError(done.stderr.decode("utf-8", "replace").strip())


def _set_namespace(namespace: int) -> None:
    isolation.call("setns", namespace, _NEWNET)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
