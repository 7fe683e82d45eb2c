"""Ports for tasks whose nodes share the network of this host."""

from __future__ import annotations

import contextlib
import socket
import zlib
from collections.abc import Iterator

from simgrid_ml.errors import HostError

__all__ = ["free_ports"]

_FIRST, _LAST = 10_000, 32_000
"""Below those that Linux gives to connections (32768 and up)."""


def free_ports(seed: str) -> Iterator[int]:
    """Ports that nothing on this host listens to, each once.

    Nobody holds them until a task does, so runs begin at different places.

    Raises:
        HostError: none is left.
    """
    count = _LAST - _FIRST
    start = zlib.crc32(seed.encode()) % count
    for number in range(count):
        port = _FIRST + (start + number) % count
        if _is_free(port):
            yield port
    raise HostError(
        f"every port from {_FIRST} to {_LAST} of this host is in use",
        remedy="`ss -ltnp` shows by what",
    )


def _is_free(port: int) -> bool:
    """Whether a server can listen to it on all addresses, as TensorFlow's do."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        with contextlib.suppress(OSError), socket.socket(family) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True
