"""Proves that nothing is left of the runs below a folder: before = after.

Looks at what the kernel knows rather than at what was started, so that a stray that cut all ties
is found as well: by its environment, its command line, its working directory or an open file.
Only what has to do with the folder counts, so tests may run side by side.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

from simgrid_ml import wire
from simgrid_ml.backends.docker import our_containers
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.process import shared_folder
from simgrid_ml.errors import HostError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.testing.processes import wait_until

__all__ = ["nothing_left", "traces"]

_SHARED = re.compile(r"(ompi|prte|pmix|sm_segment|vader|horovod|gloo|osc|psm).*\bnode\d")
"""What Open MPI calls things of virtual nodes in folders that everybody shares; other jobs of this
host have its own name in theirs."""


@contextlib.contextmanager
def nothing_left(folder: str, deadline_s: float = 10.0) -> Iterator[None]:
    """On leaving, nothing of the runs below ``folder`` is alive or lies about.

    What stored clusters keep warm is ended first, as ``simgrid-ml cluster stop`` does.

    Args:
        folder: a folder of the test's own that holds its workspaces.
        deadline_s: how long the end of things may take.

    Raises:
        AssertionError: naming what is left.
    """
    before = _shared_files()
    engine = _answering_engine()
    yield
    from simgrid_ml.testing.pools import stop_pools  # it knows how runs are submitted

    stop_pools(folder, runs_too=False)
    found: list[str] = []

    def clean() -> bool:
        found[:] = [*traces(folder, engine), *_new_shared_files(before)]
        return not found

    try:
        wait_until(clean, "nothing is left", deadline_s)
    except AssertionError as error:
        raise AssertionError(f"{error}:\n" + "\n".join(found)) from None


def traces(folder: str, engine: str = "") -> list[str]:
    """One line for each thing of ``folder`` that is alive: processes, sockets, locks, mounts,
    containers, and files that an ended run should have taken along.

    Args:
        engine: address of one that has answered; that it does no longer is a line as well.
    """
    inside = re.compile(re.escape(os.fsencode(os.path.realpath(folder))) + rb"(?![\w.-])")
    return [
        *_processes(inside),
        *_lines("/proc/net/unix", "socket", inside),
        *_lines("/proc/self/mountinfo", "mount", inside),
        *_locks(folder),
        *_files(folder),
        *_containers(inside, engine),
    ]


def _processes(inside: re.Pattern[bytes]) -> Iterator[str]:
    own = _ancestors()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in own:
            continue
        for what in ("cmdline", "environ", "cwd", "root", "exe", "fd"):
            seen = _look(f"/proc/{entry}/{what}", inside)
            if seen is not None:
                name = (_read(f"/proc/{entry}/cmdline") or b"?").replace(b"\0", b" ")
                shown = name.decode("utf-8", "replace")[:200]
                yield f"process {entry} ({shown}) by its {what}: {seen}"
                break


def _answering_engine() -> str:
    """Its address; empty: there is none."""
    try:
        engine = Engine()
        engine.version()
    except HostError:
        return ""
    return engine.address


def _containers(inside: re.Pattern[bytes], engine: str) -> Iterator[str]:
    for address in sorted({engine, _answering_engine()} - {""}):
        try:
            found = our_containers(Engine(address))
        except HostError as error:
            yield f"containers were not looked at: {error.cause}"
            continue
        for _, name, run_dir in found:
            if inside.search(os.fsencode(run_dir)):
                yield f"container {name} of {run_dir}"


def _ancestors() -> set[int]:
    found, pid = set(), os.getpid()
    while pid > 0:
        found.add(pid)
        fields = (_read(f"/proc/{pid}/stat") or b") 0 0").rpartition(b")")[2].split()
        pid = int(fields[1])
    return found


def _look(path: str, inside: re.Pattern[bytes]) -> str | None:
    """Where ``inside`` occurs in a file, a link or the links of a folder of ``/proc``."""
    try:
        if os.path.basename(path) in ("cwd", "root", "exe"):
            texts = [os.fsencode(os.readlink(path))]
        elif os.path.basename(path) == "fd":
            texts = [os.fsencode(os.readlink(f"{path}/{fd}")) for fd in os.listdir(path)]
        else:
            texts = (_read(path) or b"").split(b"\0")
    except OSError:
        return None
    return next((text.decode("utf-8", "replace") for text in texts if inside.search(text)), None)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return None


def _lines(path: str, what: str, inside: re.Pattern[bytes]) -> Iterator[str]:
    for line in (_read(path) or b"").splitlines():
        if inside.search(line):
            yield f"{what}: {line.decode('utf-8', 'replace').strip()}"


def _locks(folder: str) -> Iterator[str]:
    held = {
        field.split(b":")[2]
        for line in (_read("/proc/locks") or b"").splitlines()
        for field in line.split()
        if field.count(b":") == 2
    }
    for base, _, files in os.walk(folder):
        for name in files:
            if name == wire.LOCK or name.endswith(".lock"):
                path = os.path.join(base, name)
                with contextlib.suppress(OSError):
                    if str(os.stat(path).st_ino).encode() in held:
                        yield f"lock: {path}"


def _files(folder: str) -> Iterator[str]:
    """What a run takes along when it ends; one whose supervisor was killed cannot."""
    for base, folders, files in os.walk(folder):
        if wire.SPEC not in files:
            continue
        folders.clear()
        if not RunRecord(base).state.is_terminal:
            yield f"run {os.path.basename(base)} has not ended"
            continue
        left = [os.path.join(base, name) for name in (wire.SOCKET, wire.TMP, wire.RESERVE)]
        for path in [*left, shared_folder(base)]:
            if os.path.lexists(path):
                yield f"file: {path}"


def _shared_files() -> set[str]:
    found = set()
    for folder in {"/dev/shm", "/tmp", tempfile.gettempdir()}:
        with contextlib.suppress(OSError):
            found |= {os.path.join(folder, name) for name in os.listdir(folder)}
    return {path for path in found if _SHARED.match(os.path.basename(path))}


def _new_shared_files(before: set[str]) -> Iterator[str]:
    """New files in ``/dev/shm`` and the like that nobody uses (others may, at the same time)."""
    new = _shared_files() - before
    if new:
        used = b"".join(_read(f"/proc/{e}/maps") or b"" for e in os.listdir("/proc") if e.isdigit())
        for path in sorted(new):
            if os.path.lexists(path) and os.fsencode(path) not in used:
                yield f"shared file: {path}"
