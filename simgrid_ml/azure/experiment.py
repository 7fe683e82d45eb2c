"""``Experiment``: the name runs are grouped by, and where they are submitted."""

from __future__ import annotations

import os
import re
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from simgrid_ml import wire
from simgrid_ml.azure import interactive
from simgrid_ml.azure.coverage import Gaps, missing_member
from simgrid_ml.azure.details import Wanted, has_all
from simgrid_ml.azure.errors import (
    ComputeTargetException,
    ExperimentExecutionException,
    UserErrorException,
    not_emulated,
    to_azure,
)
from simgrid_ml.azure.run import Run
from simgrid_ml.errors import NotFoundError, SimgridError, SpecError
from simgrid_ml.record.ids import guid
from simgrid_ml.record.journal import read_json, write_json

__all__ = ["Experiment", "ViewType"]

_FOLDER = "experiments"
_NAME = re.compile(r"[a-zA-Z0-9][\w\-]{0,254}\Z", re.ASCII)
_LOCAL_TARGET = "local"
_AD_HOC_TARGET = "amlcompute"
_PROCESS_FILES = {  # of era E2 only
    "ProcessInfoFile": "azureml-logs/process_info.json",
    "ProcessStatusFile": "azureml-logs/process_status.json",
}
_TARGET_TYPE = {"local": "local"}  # every cluster is "batchai", as in the era


class ViewType:
    """Which experiments ``Experiment.list`` gives."""

    ActiveOnly = "ActiveOnly"
    ArchivedOnly = "ArchivedOnly"
    All = "All"


class Experiment(metaclass=Gaps):
    """The experiment ``name`` of a workspace; it exists once it is named.

    Raises:
        UserErrorException: the name breaks the rule.
    """

    def __init__(
        self,
        workspace: Any,
        name: str,
        _skip_name_validation: bool = False,
        _id: Optional[str] = None,
        _archived_time: Any = None,
        _create_in_cloud: bool = True,
        _experiment_dto: Any = None,
        **kwargs: Any,
    ) -> None:
        if not _skip_name_validation and not (isinstance(name, str) and _NAME.match(name)):
            raise UserErrorException(
                f"{name!r} cannot name an experiment: use up to 255 letters, digits, '-' and "
                "'_', first a letter or digit"
            )
        self._workspace = workspace
        self._name = name

    # -- identity --------------------------------------------------------------------------
    @property
    def workspace(self) -> Any:
        return self._workspace

    @property
    def workspace_object(self) -> Any:
        return self._workspace

    @property
    def name(self) -> str:
        return self._name

    @property
    def id(self) -> str:
        """The same for the same name in the same workspace."""
        return guid(self._workspace.name, self._name)

    @property
    def archived_time(self) -> Optional[str]:
        found: Optional[str] = self._document().get("archived_time")
        return found

    def get_portal_url(self) -> str:
        from simgrid_ml.azure.workspace import PORTAL

        return f"{PORTAL}/experiments/{self._name}?{self._workspace._scope}"

    @property
    def portal_url(self) -> str:
        return self.get_portal_url()

    @classmethod
    def get_docs_url(cls) -> str:
        return (
            "https://docs.microsoft.com/en-us/python/api/azureml-core/"
            "azureml.core.experiment.Experiment"
        )

    def refresh(self) -> None:
        """Nothing to do: everything is read when it is asked for."""

    # -- runs ------------------------------------------------------------------------------
    def submit(self, config: Any, tags: Optional[Mapping[str, Any]] = None, **kwargs: Any) -> Run:
        """Start an estimator or ``ScriptRunConfig``; returns at once.

        The run goes on without this process: ``Run.get`` finds it from another one.

        Args:
            config: what to run, also of the real SDK.
            tags: of the run.
            kwargs: overrides of an estimator, such as ``script_params``.

        Raises:
            ExperimentExecutionException: the script is missing, or the job does not fit.
            SnapshotException: the source folder is too large.
            TrainingException: a keyword that cannot be overridden.
        """
        if os.environ.get(wire.RUN_DIR_VARIABLE):
            raise not_emulated("submitting a run from inside a run")
        return self._submit(config, tags, {}, kwargs)

    def _submit(
        self,
        config: Any,
        tags: Optional[Mapping[str, Any]],
        extra: Mapping[str, Any],
        overrides: Mapping[str, Any],
    ) -> Run:
        from simgrid_ml.azure.lint import odd_for_cluster
        from simgrid_ml.azure.submission import plan
        from simgrid_ml.engine import git, prepare

        submission = plan(config, **overrides)
        try:
            cluster = self._cluster(submission)
            record = prepare.submit(
                submission.job,
                cluster,
                store=self._workspace._store,
                experiment=self._name,
                tags={**submission.tags, **_texts(tags or {})},
                properties={
                    "_azureml.ComputeTargetType": _TARGET_TYPE.get(submission.target, "batchai"),
                    **(_PROCESS_FILES if cluster.era.value == "E2" else {}),
                    **git.properties(submission.job.source),
                },
                extra={
                    "type": "azureml.scriptrun",
                    "definition": submission.definition,
                    "warnings": [
                        *submission.warnings,
                        *odd_for_cluster(submission.job, cluster),
                    ],
                    "workspace": self._workspace._describe(),
                    **extra,
                },
            )
        except SpecError as error:
            if (error.where or "").startswith("job."):
                raise ExperimentExecutionException(str(error), inner_exception=error) from error
            raise to_azure(error) from error
        except SimgridError as error:
            raise to_azure(error) from error
        return Run._of(record, self)

    def _cluster(self, submission: Any) -> Any:
        """The cluster a submission names, or one made for it."""
        from simgrid_ml.azure.compute import stored_spec
        from simgrid_ml.spec.cluster import ClusterSpec

        nodes = submission.job.distribution.nodes
        if submission.target == _LOCAL_TARGET:
            return ClusterSpec(name=_LOCAL_TARGET, max_nodes=1)
        if submission.target == _AD_HOC_TARGET:
            return ClusterSpec(name=_AD_HOC_TARGET, max_nodes=nodes, vm_size=submission.vm_size)
        try:
            return stored_spec(self._workspace, submission.target)
        except NotFoundError as error:
            raise ComputeTargetException(
                f"ComputeTargetNotFound: Compute Target with name {submission.target} not found "
                f"in provided workspace",
                inner_exception=error,
            ) from error

    def start_logging(self, *args: Any, **kwargs: Any) -> Run:
        """A run of this process: log to it, then ``complete()`` it.

        Args:
            outputs: a folder that is collected when the run ends.
            snapshot_directory: a folder that is kept with the run; None: none.
            display_name: of the run.
        """
        return self._start_logging(*args, **kwargs)

    def _start_logging(
        self,
        outputs: Optional[str] = None,
        snapshot_directory: Optional[str] = ".",
        display_name: Optional[str] = None,
        **kwargs: Any,
    ) -> Run:
        unknown = sorted(key for key in kwargs if not key.startswith("_"))
        if unknown:
            raise TypeError(f"start_logging() got an unexpected keyword argument {unknown[0]!r}")
        import uuid

        spec = {
            "type": None,
            "job": None,
            "cluster": None,
            "workspace": self._workspace._describe(),
            "created": time.time(),
            "outputs": os.path.abspath(outputs) if outputs else None,
        }
        record = interactive.create(self._workspace._store, self._name, spec, str(uuid.uuid4()))
        run = Run._of(record, self)
        run.add_properties({"azureml.runsource": "experiment"})
        if display_name:
            run.display_name = display_name
        run.start()
        if snapshot_directory is not None:
            try:
                run.take_snapshot(snapshot_directory)
            except BaseException as error:
                run.fail(error)
                raise
            from simgrid_ml.engine import git

            run.add_properties(git.properties(os.path.abspath(snapshot_directory)))
        return run

    def get_runs(
        self,
        type: Optional[str] = None,
        tags: Wanted = None,
        properties: Wanted = None,
        include_children: bool = False,
    ) -> Iterator[Run]:
        """The runs, newest first."""
        return Run.list(self, type, tags, properties, None, include_children)

    # -- the experiment's own record -------------------------------------------------------
    @staticmethod
    def list(
        workspace: Any,
        experiment_name: Optional[str] = None,
        view_type: str = "ActiveOnly",
        tags: Wanted = None,
    ) -> List[Experiment]:
        """Experiments that have runs or tags, by name.

        Args:
            workspace: of the experiments.
            experiment_name: only this one.
            view_type: ``ActiveOnly``, ``ArchivedOnly`` or ``All``.
            tags: only those that have them.
        """
        store = workspace._store
        names = {record.spec()["experiment"] for record in store.list()}
        try:
            names |= {file[: -len(".json")] for file in os.listdir(store.folder(_FOLDER))}
        except FileNotFoundError:
            pass
        found = []
        for name in sorted(names):
            experiment = Experiment(workspace, name, _skip_name_validation=True)
            archived = experiment.archived_time is not None
            wanted = view_type == "All" or archived == (view_type == "ArchivedOnly")
            if wanted and experiment_name in (None, name) and has_all(experiment.tags, tags or {}):
                found.append(experiment)
        return found

    @staticmethod
    def delete(workspace: Any, experiment_id: str) -> None:
        """Forget an experiment that has no runs.

        Raises:
            UserErrorException: there is none of this id, or it has runs.
        """
        for experiment in Experiment.list(workspace, view_type="All"):
            if experiment.id == experiment_id:
                if workspace._store.list(experiment.name):
                    raise UserErrorException(
                        f"Only empty Experiments can be deleted. Experiment {experiment.name} "
                        "contains run(s)"
                    )
                os.unlink(workspace._store.folder(_FOLDER, experiment.name + ".json"))
                return
        raise UserErrorException(f"Experiment {experiment_id} was not found")

    def archive(self) -> None:
        """Leave the experiment out of lists."""
        self._amend(archived_time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def reactivate(self, new_name: Optional[str] = None) -> None:
        """Undo ``archive``."""
        if new_name is not None and new_name != self._name:
            raise not_emulated("renaming an experiment")
        self._amend(archived_time=None)

    @property
    def tags(self) -> Dict[str, Any]:
        found: Dict[str, Any] = self._document().get("tags", {})
        return found

    def tag(self, key: str, value: Any = None) -> None:
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self._amend(tags={**self.tags, **_texts(tags)})

    def remove_tags(self, tags: Union[str, Sequence[str]]) -> None:
        gone = [tags] if isinstance(tags, str) else tags
        self._amend(tags={key: value for key, value in self.tags.items() if key not in gone})

    def _document(self) -> Dict[str, Any]:
        found: Dict[str, Any] = read_json(
            self._workspace._store.folder(_FOLDER, self._name + ".json"), {}
        )
        return found

    def _amend(self, **changes: Any) -> None:
        path = self._workspace._store.folder(_FOLDER, self._name + ".json")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_json(path, {**self._document(), **changes})

    def __getattr__(self, name: str) -> Any:
        return missing_member(self, name)

    # -- text ------------------------------------------------------------------------------
    def __str__(self) -> str:
        return f"Experiment(Name: {self._name},\nWorkspace: {self._workspace.name})"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Experiment)
            and other._name == self._name
            and other._workspace == self._workspace
        )

    def __hash__(self) -> int:
        return hash((self._name, self._workspace))


def _texts(tags: Mapping[str, Any]) -> Dict[str, Any]:
    return {str(key): None if value is None else str(value) for key, value in tags.items()}
