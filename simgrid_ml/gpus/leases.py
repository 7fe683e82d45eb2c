"""Who has which GPU of this host: files that a run holds a lock on as long as it lives.

One folder per device, one file per share, each with the bytes that it may take. The kernel lets go
of a lock when its holder ends, however it does; a file that nobody holds counts for nothing. They
are the user's own: runs of another user of the host are not seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simgrid_ml.record.store import cache_home
from simgrid_ml.spec.gpus import RESERVE_BYTES, GpuPlan, GpuShare

__all__ = ["Lease", "Leases"]

_FOLDER = "gpu-leases"
_TURN = "turn"


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
    def of(self, plan: GpuPlan, run: str) -> Iterator[tuple[Lease, ...]]:
        """Take all devices of ``plan``, or none; yields the leases that are in the way.

        No lease in the way: they are the run's until the block is left.
        """
        wanted = [s for node in plan.nodes for s in node.shares if s.device is not None]
        files: list[tuple[int, str]] = []
        os.makedirs(self._folder, 0o700, exist_ok=True)
        try:
            with self._turn():
                blocking = _in_the_way(wanted, tuple(self._living()))
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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        lease = {"run": run, "memory_bytes": share.memory_bytes, "exclusive": share.exclusive}
        os.write(descriptor, json.dumps(lease).encode())
        return descriptor, path

    def _living(self) -> Iterator[Lease]:
        """Removes what nobody holds; for who has the turn."""
        for device in sorted(os.listdir(self._folder)):
            folder = os.path.join(self._folder, device)
            if not os.path.isdir(folder):
                continue
            for name in sorted(os.listdir(folder)):
                if (lease := _read(device, os.path.join(folder, name))) is not None:
                    yield lease


_EVERYTHING = 2**63


def _give_back(files: Sequence[tuple[int, str]]) -> None:
    for descriptor, path in files:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with contextlib.suppress(OSError):  # others have shares of the device
            os.rmdir(os.path.dirname(path))
        os.close(descriptor)


def _read(device: str, path: str) -> Lease | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # given back just now
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = json.loads(os.read(descriptor, 4096))
        return Lease(device, said["run"], said["memory_bytes"], said["exclusive"])
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return None
    finally:
        os.close(descriptor)


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
