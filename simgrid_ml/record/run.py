"""One run: its states, its journals, its artifacts, and the wish to cancel it.

Everything is read from the directory each time it is asked for, so any number of processes may
hold a ``RunRecord`` of the same run. Only the holder of the run's lock moves its state.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from enum import Enum
from typing import Any, BinaryIO, Dict, FrozenSet, Iterator, List, Mapping, Optional, Tuple

from simgrid_ml import wire
from simgrid_ml.errors import ConflictError, IllegalMove, NotFoundError
from simgrid_ml.record.journal import (
    Journal,
    draft_name,
    read_journal,
    read_json,
    scan_journal,
    write_json,
)

__all__ = ["Artifact", "RunLock", "RunRecord", "RunState"]


class RunState(str, Enum):
    """Azure's words for the life of a run."""

    NOT_STARTED = "NotStarted"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    CANCEL_REQUESTED = "CancelRequested"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    NOT_RESPONDING = "NotResponding"  # derived, never written: not ended, and nobody holds the lock

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_DRAFTS = ".drafts"  # artifacts that are being written; a killed writer leaves one behind

_S = RunState
_TERMINAL = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELED})
_ENDS = frozenset({_S.CANCEL_REQUESTED, _S.FAILED, _S.CANCELED})
MOVES: Mapping[RunState, FrozenSet[RunState]] = {
    _S.NOT_STARTED: _ENDS | {_S.PREPARING, _S.RUNNING},  # Running at once: an interactive run
    _S.PREPARING: _ENDS | {_S.QUEUED},
    _S.QUEUED: _ENDS | {_S.RUNNING},
    _S.RUNNING: _ENDS | {_S.FINALIZING, _S.QUEUED},  # Queued again: its nodes were pre-empted
    _S.FINALIZING: _TERMINAL,
    _S.CANCEL_REQUESTED: frozenset({_S.CANCELED, _S.FAILED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELED: frozenset(),
}
"""The legal moves. ``CancelRequested → Failed``: the host broke while cancelling."""


# An open-file-description lock over the whole file; Python names these from 3.9 on only.
_TEST, _TAKE = 36, 37
_FORM = "hhqqi"
_EXCLUSIVE = struct.pack(_FORM, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class RunLock:
    """The lock that says a run's supervisor lives; the kernel frees it, also after SIGKILL.

    It belongs to the open file, so a parent may take it and hand the descriptor to a child:
    at no moment between the two does the run look abandoned. Looking whether it is held does
    not take it, so readers disturb neither each other nor the one who wants it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, run_path: str) -> Optional[RunLock]:
        """The lock, or None while somebody else holds it."""
        path = os.path.join(run_path, wire.LOCK)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.fcntl(fd, _TAKE, _EXCLUSIVE)
        except BlockingIOError:
            os.close(fd)
            return None
        return cls(fd)

    @staticmethod
    def is_held(run_path: str) -> bool:
        """Whether a live process holds the lock."""
        try:
            fd = os.open(os.path.join(run_path, wire.LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # nobody ever took it
            return False
        try:
            found = struct.unpack(_FORM, fcntl.fcntl(fd, _TEST, _EXCLUSIVE))
        finally:
            os.close(fd)
        return bool(found[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        os.close(self.fd)


class Artifact:
    """A file of the run history: its name there, where its bytes are, and how many."""

    __slots__ = ("bytes", "name", "path")

    def __init__(self, name: str, path: str, size_bytes: int) -> None:
        self.name = name
        self.path = path
        self.bytes = size_bytes


class RunRecord:
    """The run whose directory is ``path``.

    Raises:
        NotFoundError: there is no run directory at ``path``.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        if not os.path.exists(self.file(wire.SPEC)):
            raise NotFoundError(
                f"there is no run at {self.path}", remedy="`simgrid-ml runs list` shows the runs"
            )

    @property
    def id(self) -> str:
        return os.path.basename(self.path)

    def file(self, *names: str) -> str:
        """Path of a file inside the run directory."""
        return os.path.join(self.path, *names)

    # -- documents written once ------------------------------------------------------------
    def spec(self) -> Dict[str, Any]:
        """Plain data with the keys ``job``, ``cluster``, ``experiment``, ``workspace`` …"""
        value: Dict[str, Any] = read_json(self.file(wire.SPEC))
        return value

    def document(self, name: str) -> Dict[str, Any]:
        """A sealed document such as ``wire.PLACEMENT``; empty until it is written."""
        value: Dict[str, Any] = read_json(self.file(name), {})
        return value

    # -- states ----------------------------------------------------------------------------
    def states(self) -> List[Dict[str, Any]]:
        """Every move so far: ``state``, ``t`` (Unix seconds), and what was said with it."""
        return read_journal(self.file(wire.STATE))

    @property
    def state(self) -> RunState:
        """The last state written; NotResponding if that is not final and nobody holds the lock."""
        state = self._written_state()
        if state.is_terminal or self.is_supervised():
            return state
        if not os.path.exists(self.file(wire.LOCK)):  # being created: nobody supervised it yet
            return state
        state = self._written_state()  # it may have ended between the two looks
        return state if state.is_terminal else RunState.NOT_RESPONDING

    def _written_state(self) -> RunState:
        states = self.states()
        return RunState(states[-1]["state"]) if states else RunState.NOT_STARTED

    def is_supervised(self) -> bool:
        """Whether a live process holds the run's lock."""
        return RunLock.is_held(self.path)

    def advance(self, state: RunState, **said: Any) -> None:
        """Move to ``state``; only the holder of the lock may.

        Raises:
            IllegalMove: the table of legal moves has no such move.
        """
        current = self._written_state() if os.path.exists(self.file(wire.STATE)) else None
        if current is None:
            if state is not RunState.NOT_STARTED:
                raise IllegalMove(f"run {self.id} must begin as NotStarted, not {state.value}")
        elif state not in MOVES[current]:
            story = " → ".join(str(move["state"]) for move in self.states())
            raise IllegalMove(
                f"run {self.id} cannot go from {current.value} to {state.value}", evidence=story
            )
        journal = Journal(self.file(wire.STATE))
        journal.append({"t": time.time(), "state": state.value, **said})
        journal.close()

    def error(self) -> Optional[Dict[str, Any]]:
        """The first cause of a failure as ``errors.SimgridError.to_json`` gives it, or None."""
        for move in self.states():
            if move.get("error"):
                found: Dict[str, Any] = move["error"]
                return found
        return None

    # -- cancellation ----------------------------------------------------------------------
    def request_cancel(self) -> None:
        """Ask for cancellation; a run without a supervisor is ended, and kept, here and now.

        A run that has ended stays as it is.
        """
        if self._written_state().is_terminal:
            return
        with open(self.file(wire.CANCEL), "a"):
            pass
        lock = RunLock.take(self.path)
        if lock is None:
            return
        try:
            state = self._written_state()
            if not state.is_terminal:
                if (
                    state is not RunState.CANCEL_REQUESTED
                    and RunState.CANCEL_REQUESTED in MOVES[state]
                ):
                    self.advance(RunState.CANCEL_REQUESTED)
                if not os.path.exists(self.file(wire.ARTIFACT_INDEX)):
                    from simgrid_ml.record.collect import collect_files  # it knows this module

                    collect_files(self)
                    self.seal()
                self.tidy()
                self.advance(RunState.CANCELED, note="its supervisor was gone")
        finally:
            lock.close()

    def tidy(self) -> None:
        """Remove what only a living run needs; for the holder of the lock."""
        import shutil  # brings in all of Python's compression; ranks never get here

        for name in (wire.SOCKET, wire.RESERVE):
            try:
                os.unlink(self.file(name))
            except OSError:
                pass
        for name in (wire.TMP, _DRAFTS):
            shutil.rmtree(self.file(name), ignore_errors=True)

    @property
    def cancel_requested(self) -> bool:
        return os.path.exists(self.file(wire.CANCEL))

    # -- journals --------------------------------------------------------------------------
    def events(self) -> List[Dict[str, Any]]:
        """What happened, in order: ``t``, ``event`` and its fields."""
        return read_journal(self.file(wire.EVENTS))

    def task_reports(self) -> Dict[str, List[Dict[str, Any]]]:
        """What each task said of itself, by task name: how it started, how it ended."""
        return {name: read_journal(path) for name, path in self._journals(wire.TASKS)}

    def metrics(self) -> List[Dict[str, Any]]:
        """Every logged value of every writer, in order of time."""
        return self._merged(wire.METRICS)

    def attributes(self) -> List[Dict[str, Any]]:
        """Every change of tags, properties and names, in order of time."""
        return self._merged(wire.ATTRIBUTES)

    def journal(self, folder: str, writer: str) -> Journal:
        """The journal of one writer in ``wire.METRICS``, ``wire.ATTRIBUTES`` or ``wire.TASKS``."""
        return Journal(self.file(folder, writer + ".jsonl"))

    def _journals(self, folder: str) -> Iterator[Tuple[str, str]]:
        try:
            names = sorted(os.listdir(self.file(folder)))
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith(".jsonl"):
                yield name[: -len(".jsonl")], self.file(folder, name)

    def _merged(self, folder: str) -> List[Dict[str, Any]]:
        lines = [
            {**value, "writer": writer}
            for writer, path in self._journals(folder)
            for _, value in scan_journal(path)
        ]
        lines.sort(key=lambda line: line.get("t", 0.0))
        return lines

    # -- artifacts -------------------------------------------------------------------------
    def artifacts(self) -> List[Artifact]:
        """Every artifact by name, as it stands now.

        Until the run is sealed, files in the working directory's ``./logs`` count: they are
        visible while they grow. ``./outputs`` counts once it has been collected.
        """
        found = dict(_walk(self.file(wire.ARTIFACTS)))
        if not os.path.exists(self.file(wire.ARTIFACT_INDEX)):
            for work in self.work_directories():
                for name, path in _walk(os.path.join(work, wire.LOGS)):
                    found.setdefault(f"{wire.LOGS}/{name}", path)
        artifacts = []
        for name in sorted(found):
            try:
                artifacts.append(Artifact(name, found[name], os.path.getsize(found[name])))
            except FileNotFoundError:  # a log that was renamed while we looked
                continue
        return artifacts

    def artifact(self, name: str) -> Artifact:
        """The artifact called ``name``.

        Raises:
            NotFoundError: the run has none of that name.
        """
        name = clean_name(name)
        for path in self._places(name):
            if os.path.isfile(path):
                return Artifact(name, path, os.path.getsize(path))
        raise NotFoundError(
            f"run {self.id} has no artifact {name!r}",
            remedy=f"`simgrid-ml runs files {self.id}` lists them",
        )

    def put_artifact(self, name: str, source: BinaryIO) -> None:
        """Store a copy of ``source`` under a new name.

        Raises:
            ConflictError: the name exists; artifact names are created once.
        """
        drafts = self.file(_DRAFTS)
        os.makedirs(drafts, exist_ok=True)
        draft = os.path.join(drafts, draft_name())
        try:
            with open(draft, "wb") as stream:
                for block in iter(lambda: source.read(2**20), b""):
                    stream.write(block)
            self._publish(draft, name)
        finally:
            if os.path.exists(draft):
                os.unlink(draft)

    def keep_artifact(self, name: str, path: str) -> None:
        """As ``put_artifact`` for a file that nobody will write to again: linked, not copied."""
        if os.path.islink(path):
            with open(path, "rb") as source:
                self.put_artifact(name, source)
        else:
            self._publish(path, name)

    def _publish(self, path: str, name: str) -> None:
        name = clean_name(name)
        target = self.file(wire.ARTIFACTS, *name.split("/"))
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(path, target)  # fails if the name is taken: one winner, whole content
        except (FileExistsError, NotADirectoryError):  # also where a folder of that name is
            raise ConflictError(
                f"Resource Conflict: ArtifactId ExperimentRun/dcid.{self.id}/{name} "
                "already exists.",
                remedy="choose another name; of several ranks, let only rank 0 write shared names",
            ) from None

    def _places(self, name: str) -> Iterator[str]:
        """Where the artifact's bytes may be."""
        yield self.file(wire.ARTIFACTS, *name.split("/"))
        first, _, rest = name.partition("/")
        if first == wire.LOGS and rest and not os.path.exists(self.file(wire.ARTIFACT_INDEX)):
            for work in self.work_directories():
                yield os.path.join(work, *name.split("/"))

    def seal(self) -> None:
        """Write the index of artifacts with their hashes. The run directory changes no more."""
        index = [
            {"name": artifact.name, "bytes": artifact.bytes, "sha256": _sha256(artifact.path)}
            for artifact in self.artifacts()
        ]
        write_json(self.file(wire.ARTIFACT_INDEX), index)

    def work_directories(self) -> List[str]:
        """The working directories: one when shared over the nodes, else one per node."""
        shared = self.file(wire.WORK)
        try:
            names = sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []
        private = [self.file(n) for n in names if n.startswith(wire.WORK + "-")]
        return private or ([shared] if os.path.isdir(shared) else [])


def clean_name(name: str) -> str:
    """An artifact name without ``./``, doubled slashes or backslashes.

    Raises:
        ConflictError: the name is empty or would leave the run.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in name:
        raise ConflictError(f"{name!r} cannot name an artifact", remedy="use a relative path")
    return "/".join(parts)


def _walk(folder: str) -> Iterator[Tuple[str, str]]:
    """Files below ``folder`` as (name with slashes, path); links to folders are not followed."""
    for base, _, files in os.walk(folder):
        for file in files:
            path = os.path.join(base, file)
            if os.path.isfile(path):
                yield os.path.relpath(path, folder).replace(os.sep, "/"), path


def _sha256(path: str) -> str:
    import hashlib  # 7 ms, and only the seal needs it

    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()
