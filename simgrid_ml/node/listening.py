"""Who listens on a node's network, as its kernel tells."""

from __future__ import annotations

import os
from typing import List

__all__ = ["listening_ports"]

_LISTENS = b"0A"  # TCP_LISTEN of linux/include/net/tcp_states.h


def listening_ports(tables: str = "/proc/self/net") -> List[int]:
    """The TCP ports that something listens to, on whatever address; those of what cannot be read
    are missing.
    """
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(os.path.join(tables, name), "rb") as lines:
                next(lines, None)
                for line in lines:
                    _, local, _, state = line.split(None, 4)[:4]
                    if state != _LISTENS:
                        break  # those that listen come first, and there may be many others
                    found.add(int(local.rpartition(b":")[2], 16))
        except OSError:
            pass  # a kernel without IPv6, or a host that hides it
    return sorted(found)
