"""The kernel's accounts of a group of processes, of either version of control groups.

A container's limits are those of a group, and what exceeded them is counted there and nowhere else.
Only reads; whoever starts the processes makes the group.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["MemoryGroup", "group_folder"]

_UNLIMITED = 2**60
"""The kernel's own value for no limit is somewhat above, and depends on the page size."""


def group_folder(pid: int, controller: str) -> str | None:
    """Folder of the group by which ``controller`` sees the process; None if there is none to see.

    Args:
        pid: a living process, as this one sees it.
        controller: ``memory``, ``cpu`` …; in version 2 one folder serves all.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
            lines = [line.rstrip("\n").split(":", 2) for line in stream]
    except OSError:
        return None
    mounts = list(_mounts())
    for version, wanted in ((1, controller), (2, "")):
        for _, controllers, path in lines:
            if wanted not in controllers.split(","):
                continue
            for kind, options, root, mount in mounts:
                if kind == version and (version == 2 or controller in options):
                    folder = os.path.normpath(os.path.join(mount, os.path.relpath(path, root)))
                    if os.path.isdir(folder):
                        return folder
    return None


def _mounts() -> Iterator[tuple[int, list[str], str, str]]:
    """(version, options, root, mount point) of every hierarchy that is mounted here."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8") as stream:
            for line in stream:
                before, _, after = line.partition(" - ")
                kind, _, options = after.rstrip("\n").split(" ", 2)
                if kind in ("cgroup", "cgroup2"):
                    fields = before.split(" ")
                    version = 1 if kind == "cgroup" else 2
                    yield version, options.split(" ")[-1].split(","), fields[3], fields[4]
    except OSError:
        return


class MemoryGroup:
    """Limit and kills of the group in ``folder``, from ``group_folder(pid, "memory")``."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @property
    def limit_bytes(self) -> int | None:
        """None: not limited."""
        for name in ("memory.limit_in_bytes", "memory.max"):
            text = self._read(name).strip()
            if text.isdigit():
                return int(text) if int(text) < _UNLIMITED else None
        return None

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed since they exceeded the limit."""
        for name in ("memory.oom_control", "memory.events"):
            for line in self._read(name).splitlines():
                key, _, count = line.partition(" ")
                if key == "oom_kill":
                    return int(count)
        return 0

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self._folder, name), encoding="utf-8") as stream:
                return stream.read()
        except OSError:
            return ""
