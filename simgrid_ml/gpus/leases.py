"""Who has which GPU of this host: files that a run holds a lock on as long as it lives.

One folder per device, one file per share, each with the bytes that it may take. The kernel lets go
of a lock when its holder ends, however it does; a file that nobody holds counts for nothing. Who
waits holds a place in a line, and nobody overtakes it on the way to a device that it wants: small
shares cannot starve a run that wants a whole GPU. All of it is the user's own: runs of another user
of the host are not seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simgrid_ml.record.store import cache_home
from simgrid_ml.spec.gpus import RESERVE_BYTES, GpuPlan, GpuShare

__all__ = ["Lease", "Leases"]

_FOLDER = "gpu-leases"
_TURN = "turn"
_LINE = "line"


@dataclass(frozen=True)
class Lease:
    """A share of a device that a living run has.

    Attributes:
        device: UUID of the GPU or MIG instance.
        run: its id.
        memory_bytes: what it may take.
        exclusive: nobody else may have any of the device.
    """

    device: str
    run: str
    memory_bytes: int
    exclusive: bool


class Leases:
    """Those of this user on this host.

    Args:
        folder: where they are; None: in the user's cache.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder or os.path.join(cache_home(), _FOLDER)

    def held(self) -> tuple[Lease, ...]:
        """All that living runs have; a folder that nobody has made yet holds none."""
        if not os.path.isdir(self._folder):
            return ()
        with self._turn():
            return tuple(self._living())

    def taken(self) -> dict[str, int]:
        """Bytes of each device that others cannot have; more than any device's: all of it."""
        total: dict[str, int] = {}
        for lease in self.held():
            size = _EVERYTHING if lease.exclusive else lease.memory_bytes
            total[lease.device] = total.get(lease.device, 0) + size
        return total

    @contextlib.contextmanager
    def in_line(self) -> Iterator[str]:
        """A place behind all that wait now, until the block is left; for ``of``."""
        folder = os.path.join(self._folder, _LINE)
        os.makedirs(self._folder, 0o700, exist_ok=True)
        with self._turn():
            os.makedirs(folder, exist_ok=True)
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
            held = _hold(os.path.join(folder, name), {"run": "", "devices": []})
        try:
            yield name
        finally:
            with self._turn():
                _give_back([held])

    @contextlib.contextmanager
    def of(self, plan: GpuPlan, run: str, place: str | None = None) -> Iterator[tuple[Lease, ...]]:
        """Take all devices of ``plan``, or none; yields what is in the way: leases, and shares
        that runs wait for which came before, of no bytes.

        Nothing in the way: they are the run's until the block is left.

        Args:
            place: in the line, as ``in_line`` gave it; None: behind all others.
        """
        wanted = [s for node in plan.nodes for s in node.shares if s.device is not None]
        files: list[tuple[int, str]] = []
        os.makedirs(self._folder, 0o700, exist_ok=True)
        try:
            with self._turn():
                devices = {share.device for share in wanted if share.device is not None}
                before = tuple(one for one in self._waiting(place) if one.device in devices)
                blocking = _in_the_way(wanted, tuple(self._living())) + before
                if blocking and place is not None:
                    waits = {"run": run, "devices": sorted(devices)}
                    _rewrite(os.path.join(self._folder, _LINE, place), waits)
                if not blocking:
                    files.extend(self._take(share, run) for share in wanted)
            yield blocking
        finally:
            if files:
                with self._turn():
                    _give_back(files)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Nobody else looks or takes meanwhile, which is for some milliseconds."""
        path = os.path.join(self._folder, _TURN)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _take(self, share: GpuShare, run: str) -> tuple[int, str]:
        assert share.device is not None
        folder = os.path.join(self._folder, share.device)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, secrets.token_hex(8))
        lease = {"run": run, "memory_bytes": share.memory_bytes, "exclusive": share.exclusive}
        return _hold(path, lease)

    def _living(self) -> Iterator[Lease]:
        """Removes what nobody holds; for who has the turn, as ``_waiting``."""
        for device in sorted(os.listdir(self._folder)):
            folder = os.path.join(self._folder, device)
            if device == _LINE or not os.path.isdir(folder):
                continue
            for said in _held_in(folder).values():
                yield Lease(device, said["run"], said["memory_bytes"], said["exclusive"])

    def _waiting(self, place: str | None) -> Iterator[Lease]:
        """What runs before ``place`` wait for."""
        for name, said in _held_in(os.path.join(self._folder, _LINE)).items():
            if place is None or name < place:
                for device in said["devices"]:
                    yield Lease(device, said["run"], 0, False)


_EVERYTHING = 2**63


def _give_back(files: Sequence[tuple[int, str]]) -> None:
    for descriptor, path in files:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with contextlib.suppress(OSError):  # others have shares of the device
            os.rmdir(os.path.dirname(path))
        os.close(descriptor)


def _hold(path: str, said: Mapping[str, Any]) -> tuple[int, str]:
    """A new file that says so, and the lock on it; none where a full disk does not take it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, json.dumps(said).encode())
    except OSError:
        _give_back([(descriptor, path)])
        raise
    return descriptor, path


def _rewrite(path: str, said: Mapping[str, Any]) -> None:
    """In place: the lock is on the file, not on its name."""
    with open(path, "r+b") as stream:
        stream.write(json.dumps(said).encode())
        stream.truncate()  # last: what is refused by a full disk must not leave it empty


def _held_in(folder: str) -> dict[str, dict[str, Any]]:
    """What files there say that somebody holds, by name in order; the others are removed."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return {}
    found = {}
    for name in names:
        descriptor = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found[name] = json.loads(os.read(descriptor, 2**20))
        else:
            os.unlink(os.path.join(folder, name))
        finally:
            os.close(descriptor)
    if not found:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return found


def _in_the_way(wanted: Sequence[GpuShare], held: Sequence[Lease]) -> tuple[Lease, ...]:
    """Leases without whose end not all of ``wanted`` can be had."""
    blocking: list[Lease] = []
    for device in dict.fromkeys(share.device for share in wanted):
        shares = [share for share in wanted if share.device == device]
        others = [lease for lease in held if lease.device == device]
        if any(lease.exclusive for lease in others) or (
            others and any(share.exclusive for share in shares)
        ):
            blocking += others
            continue
        room = shares[0].device_bytes - RESERVE_BYTES
        total = sum(s.memory_bytes for s in shares) + sum(o.memory_bytes for o in others)
        if others and total > room:
            blocking += others
    return tuple(blocking)
