"""``simgrid-ml clean``: what dead runs and dead pools left behind. Normally there is nothing.

Agents end with their connection and the kernel frees every lock, so leftovers need an accident:
a host that refuses process namespaces *and* a killed node, or a supervisor killed on a full disk.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from simgrid_ml import wire
from simgrid_ml.backends.docker import our_containers
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.process import shared_folder
from simgrid_ml.cli.console import json_option, print_json, print_table
from simgrid_ml.engine.pools import all_pools
from simgrid_ml.errors import HostError
from simgrid_ml.record.run import RunLock, RunRecord, RunState
from simgrid_ml.record.store import RunStore, state_home

__all__ = ["Leftover", "clean", "find_leftovers", "unseen_containers"]

GRACE_S = 3.0
_TRIAL = f"{wire.LABEL}=trial"  # containers in which images are tried out
_TRIAL_S = 300.0


@dataclass(frozen=True)
class Leftover:
    """What nobody looks after: a ``process``, a ``container``, a ``run``, a ``file`` or shared
    ``memory`` of one."""

    kind: str
    name: str
    why: str
    path: str = ""
    pid: int = 0

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value}


def find_leftovers() -> list[Leftover]:
    """What is left of dead runs of this user, in all workspaces."""
    home = state_home()
    records = list(_records(home))
    dead = {record.path for record in records if not record.is_supervised()}
    alive = {record.path for record in records} - dead
    found = [
        Leftover("process", name, f"belongs to {os.path.basename(run_dir)}, which is over", pid=pid)
        for pid, name, run_dir in _labelled_processes(home)
        if run_dir not in alive and not _is_of_living_pool(run_dir)
    ]
    found += [
        Leftover("memory", os.path.basename(path), f"left by {os.path.basename(run_dir)}", path)
        for path, run_dir in _shared_memory(home)
        if run_dir not in alive and not _is_of_living_pool(run_dir)
    ]
    found += [
        Leftover("container", name, f"left by {os.path.basename(run_dir)}", path=container)
        for container, name, run_dir in _containers(home)
        if run_dir not in alive and not _is_of_living_pool(run_dir)
    ]
    for record in records:
        if record.path in alive:
            continue
        state = record.state
        if state is RunState.NOT_RESPONDING:
            found.append(Leftover("run", record.id, "its supervisor is gone", path=record.path))
        if state.is_terminal or state is RunState.NOT_RESPONDING:
            for name in (wire.SOCKET, wire.TMP):
                path = record.file(name)
                if os.path.lexists(path):
                    why = f"left by {record.id}"
                    found.append(Leftover("file", os.path.basename(path), why, path=path))
    return [*found, *_of_dead_pools()]


def _is_of_living_pool(folder: str) -> bool:
    """Whether nodes with this folder belong to a cluster whose pool looks after them."""
    pool = os.path.dirname(folder)
    return os.path.basename(os.path.dirname(pool)) == wire.POOLS and RunLock.is_held(pool)


def _of_dead_pools() -> Iterator[Leftover]:
    """Sockets and folders of nodes whose pool was killed; the next pool removes them as well."""
    for pool in all_pools():
        if not RunLock.is_held(pool):
            for name in sorted(os.listdir(pool)):
                if name == wire.SOCKET or name.isdigit():
                    why = f"left by the nodes of cluster {os.path.basename(pool)}"
                    yield Leftover("file", name, why, path=os.path.join(pool, name))


def _records(home: str) -> Iterator[RunRecord]:
    try:
        workspaces = sorted(os.listdir(os.path.join(home, "workspaces")))
    except FileNotFoundError:
        return
    for workspace in workspaces:
        yield from RunStore(os.path.join(home, "workspaces", workspace)).list()


def _labelled_processes(home: str) -> Iterator[tuple[int, str, str]]:
    """(pid, name, run directory) of our user's processes that carry a run of ``home``.

    The variable is our label: every process of a run inherits it, whatever it calls itself.
    """
    label = wire.RUN_DIR_VARIABLE.encode() + b"="
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as stream:
                environ = stream.read()
            with open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as stream:
                name = stream.read().strip()
        except OSError:  # another user's, or gone
            continue
        for variable in environ.split(b"\0"):
            if variable.startswith(label):
                run_dir = os.fsdecode(variable[len(label) :])
                if run_dir.startswith(home + os.sep):
                    yield int(entry), name, run_dir


def _shared_memory(home: str) -> Iterator[tuple[str, str]]:
    """(path, run directory) of our user's folders in ``/dev/shm`` that are of a run of ``home``.

    They hold links into the run directory, and are named after it.
    """
    for path in glob.glob(f"/dev/shm/{wire.LABEL}-*"):
        try:
            links = [entry for entry in os.scandir(path) if entry.is_symlink()]
            owner = os.stat(path).st_uid
        except OSError:  # another user's, or gone
            continue
        if not links or owner != os.getuid():
            continue
        run_dir = os.path.dirname(os.path.dirname(os.readlink(links[0].path)))
        if shared_folder(run_dir) == path and run_dir.startswith(home + os.sep):
            yield path, run_dir


def _engine() -> Engine | None:
    """None: this host has none, and so no containers."""
    try:
        return Engine()
    except HostError:
        return None


def unseen_containers() -> HostError | None:
    """Why nobody can know whether containers are left: an engine is there and does not answer."""
    engine = _engine()
    try:
        if engine is not None:
            engine.version()
    except HostError as error:
        return HostError(
            f"containers were not looked at: {error.cause}",
            evidence=error.evidence,
            remedy=error.remedy,
        )
    return None


def _containers(home: str) -> Iterator[tuple[str, str, str]]:
    """(id, name, run directory) of containers that are of a run of ``home``."""
    engine = _engine()
    try:
        if engine is None:
            return
        found, trials = our_containers(engine), engine.containers(_TRIAL)
    except HostError:  # see unseen_containers
        return
    yield from (one for one in found if one[2].startswith(home + os.sep))
    for each in trials:
        if each["Created"] < time.time() - _TRIAL_S:
            yield each["Id"], each["Names"][0].lstrip("/"), "trying out an image"


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Remove what was found.")
@json_option
def clean(yes: bool, as_json: bool) -> None:
    """Find what dead runs left behind: processes, containers, shared memory, sockets,
    temporary files; --yes removes it.

    Runs themselves, with their logs and files, are kept; `runs delete` removes those.
    Environments are kept, too; `env prune` removes those that were not used lately.
    """
    found = find_leftovers()
    if yes:
        _remove(found)
        left = find_leftovers()
    unseen = unseen_containers()
    if as_json:
        told = {"found": [one.to_json() for one in found], "removed": yes}
        if unseen is not None:
            told["unseen"] = unseen.cause
        print_json({**told, "left": [one.to_json() for one in left]} if yes else told)
    elif not found:
        if unseen is None:
            click.echo("Nothing is left behind.")
    else:
        print_table(
            ("what", "which", "why"),
            [(one.kind, f"{one.name} {one.pid or one.path}".strip(), one.why) for one in found],
        )
        click.echo()
        click.echo("Removed." if yes else "`simgrid-ml clean --yes` removes this.")
    if yes and left:
        raise HostError(
            f"{len(left)} of {len(found)} leftovers could not be removed",
            evidence="\n".join(f"{one.kind} {one.name} {one.pid or one.path}" for one in left),
            remedy="they may belong to another user",
        )
    if unseen is not None:
        raise unseen


def _remove(found: list[Leftover]) -> None:
    """Processes first: TERM, a moment, KILL; then containers; then the runs are ended and their
    files removed."""
    pids = [one.pid for one in found if one.pid]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue
        deadline = time.monotonic() + GRACE_S
        while any(_is_running(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        pids = [pid for pid in pids if _is_running(pid)]
    for one in found:
        if one.kind == "container":
            with contextlib.suppress(HostError):  # it is looked for again
                Engine().remove(one.path)
    for one in found:
        if one.kind == "run":
            RunRecord(one.path).request_cancel()
    for one in found:
        if one.kind in ("file", "memory"):
            if os.path.isdir(one.path) and not os.path.islink(one.path):
                shutil.rmtree(one.path, ignore_errors=True)
            else:
                try:
                    os.unlink(one.path)
                except FileNotFoundError:
                    pass


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
