"""The control groups of a process, v1 and v2, and what they say was taken from it.

A limit bites wherever it is set: at the container of a node, or above it, as where all of this
runs in a container itself. So every group from a process up to the root that can be seen counts.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = ["Bandwidth", "Mount", "bandwidth", "folders", "limit_hits", "memory_stall_s", "mounts"]

_V2 = ""


class Mount(NamedTuple):
    """Where a hierarchy can be seen: ``folder`` shows its group ``root`` and what is below."""

    root: str
    folder: str


class Bandwidth(NamedTuple):
    """How often and how long a group was stopped since it exists; seconds add up over cores."""

    times: int
    stopped_s: float


def mounts(proc: str = "/proc") -> dict[str, Mount]:
    """The hierarchies by controller; that of v2 by ``""``."""
    found: dict[str, Mount] = {}
    for line in _lines(os.path.join(proc, "self", "mountinfo")):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        mount = Mount(_unescaped(fields[3]), _unescaped(fields[4]))
        if kind[0] == "cgroup2":
            found.setdefault(_V2, mount)
        elif kind[0] == "cgroup":
            for controller in kind[2].split(","):
                found.setdefault(controller, mount)
    return found


def folders(
    controller: str, pid: int, where: Mapping[str, Mount], proc: str = "/proc"
) -> tuple[str, ...]:
    """The groups of a process that limit ``controller``, from its own upwards; () if none is seen.

    Args:
        controller: ``cpu`` or ``memory``.
        where: what ``mounts`` found.
    """
    key = controller if controller in where else _V2
    if key not in where:
        return ()
    for line in _lines(os.path.join(proc, str(pid), "cgroup")):
        number, names, path = line.split(":", 2)
        if key in names.split(",") if key != _V2 else number == "0":
            return tuple(_upwards(path, where[key]))
    return ()


def _upwards(path: str, mount: Mount) -> Iterator[str]:
    inside = posixpath.relpath(path, mount.root)
    if inside.startswith(".."):
        # Outside of what is mounted, as seen from a container: it says of its own root the rest.
        yield mount.folder
        return
    folder = posixpath.normpath(posixpath.join(mount.folder, inside))
    while len(folder) > len(mount.folder):
        yield folder
        folder = posixpath.dirname(folder)
    yield mount.folder


def bandwidth(folder: str) -> Bandwidth | None:
    """What a CPU quota did to the group; None: it has none that says so."""
    said = dict(_pairs(os.path.join(folder, "cpu.stat")))
    if "nr_throttled" not in said:
        return None
    stopped_s = said["throttled_usec"] / 1e6 if "throttled_usec" in said else 0.0
    if "throttled_time" in said:
        stopped_s = said["throttled_time"] / 1e9
    return Bandwidth(said["nr_throttled"], stopped_s)


def limit_hits(folder: str) -> int | None:
    """How often the group wanted memory beyond its limit; None: it does not say."""
    said = dict(_pairs(os.path.join(folder, "memory.events")))
    if said:
        return said.get("max", 0) + said.get("high", 0)
    for line in _lines(os.path.join(folder, "memory.failcnt")):
        return int(line)
    return None


def memory_stall_s(path: str) -> float | None:
    """Seconds that something waited for memory, from a file of pressure; None: it is not there."""
    for line in _lines(path):
        if line.startswith("some "):
            return int(line.rpartition("total=")[2]) / 1e6
    return None


def _pairs(path: str) -> Iterator[tuple[str, int]]:
    for line in _lines(path):
        name, _, value = line.partition(" ")
        if value.isdigit():
            yield name, int(value)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().splitlines()
    except OSError:  # not there, not allowed, or its process has ended: not seen
        return []


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)
