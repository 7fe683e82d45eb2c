"""The workspace folder: its runs, clusters and models, found by listing directories."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from typing import Any, Dict, List, Optional, Tuple

from simgrid_ml import wire
from simgrid_ml.errors import ConflictError, NotFoundError, SpecError
from simgrid_ml.record.journal import read_json, write_json
from simgrid_ml.record.run import RunLock, RunRecord, RunState

__all__ = ["WORKSPACE", "RunStore", "cache_home", "state_home"]

WORKSPACE = re.compile(r"[a-zA-Z0-9][\w\-]{2,32}\Z", re.ASCII)
"""What Azure allows as the name of a workspace."""

_EXPERIMENT = re.compile(r"[a-zA-Z0-9][\w\-]{0,254}\Z", re.ASCII)
_FILE_NAME = re.compile(r"[a-zA-Z0-9][\w\-.]{0,249}\Z", re.ASCII)
_EXPERIMENT_IN_RUN_ID = 200  # longer ones are cut there, since a file name has 255 bytes at most


def state_home() -> str:
    """Where workspaces live: ``$SIMGRID_ML_HOME``, else ``~/.local/share/simgrid-ml``."""
    home = os.environ.get(wire.STATE_HOME_VARIABLE)
    if home:
        return os.path.abspath(home)
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(
        os.path.expanduser("~"), ".local", "share"
    )
    return os.path.join(data, "simgrid-ml")


def cache_home() -> str:
    """Where built things live: ``$SIMGRID_ML_CACHE``, else ``~/.cache/simgrid-ml``."""
    home = os.environ.get(wire.CACHE_HOME_VARIABLE)
    if home:
        return os.path.abspath(home)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(os.path.abspath(cache), "simgrid-ml")


class RunStore:
    """The runs, clusters and models of the workspace kept at ``root`` (made when first written)."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    @classmethod
    def of_workspace(cls, workspace: str = "local") -> RunStore:
        """The workspace of that name, which need not exist yet.

        Raises:
            SpecError: nothing can have that name.
        """
        if not WORKSPACE.match(workspace):
            raise SpecError(
                f"{workspace!r} cannot name a workspace",
                remedy="use 3 to 33 letters, digits, '-' and '_', first a letter or digit",
            )
        return cls(os.path.join(state_home(), "workspaces", workspace))

    def folder(self, *names: str) -> str:
        return os.path.join(self.root, *names)

    def _make(self, folder: str) -> None:
        """A folder of the workspace, which is closed to others."""
        os.makedirs(self.root, 0o700, exist_ok=True)
        os.makedirs(self.folder(folder), exist_ok=True)

    # -- runs ------------------------------------------------------------------------------
    def create(
        self, experiment: str, spec: Dict[str, Any], run_id: Optional[str] = None
    ) -> RunRecord:
        """A new run directory in state NotStarted that nobody carries out; see ``create_held``."""
        record, lock = self.create_held(experiment, spec, run_id)
        lock.close()
        os.unlink(record.file(wire.LOCK))
        return record

    def create_held(
        self, experiment: str, spec: Dict[str, Any], run_id: Optional[str] = None
    ) -> Tuple[RunRecord, RunLock]:
        """A new run directory in state NotStarted, and its lock.

        The lock is held before the run can be seen: at no moment does it look abandoned, and if
        the caller dies it does from then on. ``spec`` must not hold ``run_id`` yet.

        Raises:
            SpecError: the experiment's name breaks Azure's rule, or the run id no file may have.
            ConflictError: ``run_id`` was given and exists.
        """
        if not _EXPERIMENT.match(experiment):
            raise SpecError(
                f"{experiment!r} cannot name an experiment",
                remedy="use up to 255 letters, digits, '-' and '_', first a letter or digit",
            )
        wanted = run_id or (
            f"{experiment[:_EXPERIMENT_IN_RUN_ID]}_{int(time.time())}_{secrets.token_hex(4)}"
        )
        _check_name(wanted, "run")
        path = self.folder(wire.RUNS, wanted)
        self._make(wire.RUNS)
        try:
            os.mkdir(path, 0o700)  # it holds the user's environment variables
        except FileExistsError:
            raise ConflictError(f"run {wanted} exists", remedy="choose another run id") from None
        lock = RunLock.take(path)
        assert lock is not None, "nobody else knows of the folder yet"
        try:
            named = {**spec, "experiment": experiment, "run_id": wanted}
            write_json(os.path.join(path, wire.SPEC), named)
            record = RunRecord(path)
            record.advance(RunState.NOT_STARTED)
        except BaseException:  # a full disk
            lock.close()
            shutil.rmtree(path, ignore_errors=True)
            raise
        return record, lock

    def open(self, run_id: str) -> RunRecord:
        """The run called ``run_id``, or the only one whose id begins with or ends in it.

        Raises:
            NotFoundError: none, or more than one, fits.
        """
        ids = self._run_ids()
        fitting = [i for i in ids if i == run_id] or [
            i for i in ids if run_id and (i.startswith(run_id) or i.endswith(run_id))
        ]
        if len(fitting) != 1:
            few = ", ".join(fitting[:5])
            raise NotFoundError(
                f"{len(fitting)} runs fit {run_id!r}: {few}"
                if fitting
                else f"there is no run {run_id!r}",
                remedy="`simgrid-ml runs list` shows the ids",
            )
        return RunRecord(self.folder(wire.RUNS, fitting[0]))

    def list(self, experiment: Optional[str] = None) -> List[RunRecord]:
        """Runs, newest first."""
        records = []
        for run_id in self._run_ids():
            try:
                record = RunRecord(self.folder(wire.RUNS, run_id))
                if experiment is None or record.spec().get("experiment") == experiment:
                    records.append((os.stat(record.file(wire.SPEC)).st_mtime_ns, record))
            except (NotFoundError, OSError, ValueError):  # being created or deleted, or no run
                continue
        return [
            record for _, record in sorted(records, key=lambda r: (r[0], r[1].id), reverse=True)
        ]

    def latest(self) -> RunRecord:
        """The newest run."""
        runs = self.list()
        if not runs:
            raise NotFoundError(
                "there are no runs yet", remedy="`simgrid-ml demo` makes the first one"
            )
        return runs[0]

    def delete(self, record: RunRecord) -> None:
        """Remove a run that has ended.

        Raises:
            ConflictError: it is still going.
        """
        if record.is_supervised():
            raise ConflictError(
                f"run {record.id} is still going",
                remedy=f"`simgrid-ml runs cancel {record.id}` first",
            )
        shutil.rmtree(record.path)

    def _run_ids(self) -> List[str]:
        try:
            return sorted(n for n in os.listdir(self.folder(wire.RUNS)) if not n.startswith("."))
        except FileNotFoundError:
            return []

    # -- clusters: named documents ---------------------------------------------------------
    def clusters(self) -> Dict[str, Dict[str, Any]]:
        """Stored clusters by name."""
        folder = self.folder(wire.CLUSTERS)
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return {}
        return {
            name[: -len(".json")]: read_json(os.path.join(folder, name))
            for name in names
            if name.endswith(".json")
        }

    def put_cluster(self, name: str, value: Dict[str, Any]) -> None:
        """Store a cluster under ``name``, in place of one it had.

        Raises:
            SpecError: ``name`` cannot be that of a file.
        """
        _check_name(name, "cluster")
        self._make(wire.CLUSTERS)
        write_json(self.folder(wire.CLUSTERS, name + ".json"), value)

    def delete_cluster(self, name: str) -> None:
        try:
            os.unlink(self.folder(wire.CLUSTERS, name + ".json"))
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no cluster {name!r}", remedy="`simgrid-ml cluster list` shows them"
            ) from None


def _check_name(name: str, what: str) -> None:
    if not _FILE_NAME.match(name):
        raise SpecError(
            f"{name!r} cannot name a {what}",
            remedy="use up to 250 letters, digits, '-', '_' and '.', first a letter or digit",
        )
