"""``Run``: one class for the driver and for the script, over the run's directory.

The driver has a run from ``Experiment.submit``, the script from ``Run.get_context()``. Both read
and write the same files, so what a rank logs is with the driver at once. Only the standard
library is needed, since this module works inside the user's environment.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from typing import (
    Any,
    ClassVar,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from simgrid_ml import wire
from simgrid_ml.azure import details, files, interactive
from simgrid_ml.azure.coverage import Gaps, missing_member
from simgrid_ml.azure.errors import (
    ActivityFailedException,
    AzureMLException,
    ExperimentExecutionException,
    ModelPathNotFoundException,
    RunEnvironmentException,
    SnapshotException,
    UserErrorException,
    not_emulated,
    to_azure,
)
from simgrid_ml.azure.metrics import MetricLog, merged
from simgrid_ml.azure.offline import _OfflineRun
from simgrid_ml.azure.streaming import LogPrinter, is_streamed
from simgrid_ml.errors import NotFoundError, SimgridError
from simgrid_ml.record.follow import follow, wait_state
from simgrid_ml.record.run import RunRecord, RunState

__all__ = ["Run", "get_run"]

_log = logging.getLogger("azureml.run")
_SNAPSHOT = "ContentSnapshotId"
_MAX_CHILDREN = 100
_UNSET_ERROR = "Detailed error not set on the Run. Please check the logs for details."


class Run(metaclass=Gaps):
    """One run of an experiment.

    Args:
        experiment: the ``Experiment`` it belongs to.
        run_id: its id.
        outputs: ignored for a run that exists.
    """

    def __init__(self, experiment: Any, run_id: str, outputs: Any = None, **kwargs: Any) -> None:
        self._experiment: Any = experiment
        self._record: RunRecord = kwargs.pop("_record", None) or _open(experiment.workspace, run_id)
        self._writer = os.environ.get(wire.TASK_VARIABLE) or "driver"
        self._metrics = MetricLog(self._record.journal(wire.METRICS, self._writer))
        self._attributes = self._record.journal(wire.ATTRIBUTES, self._writer)

    @classmethod
    def _of(cls, record: RunRecord, experiment: Any = None) -> Run:
        return cls(experiment, record.id, _record=record)

    # -- finding runs ----------------------------------------------------------------------
    @classmethod
    def get_context(
        cls, allow_offline: bool = True, used_for_context_manager: bool = False, **kwargs: Any
    ) -> Any:
        """The run this process is part of; outside of any, a run that prints.

        Raises:
            RunEnvironmentException: outside of any run, and ``allow_offline`` is False.
        """
        path = os.environ.get(wire.RUN_DIR_VARIABLE)
        if path:
            return _SubmittedRun._here(path)
        if not allow_offline:
            raise RunEnvironmentException()
        return _OfflineRun()

    @classmethod
    def get_submitted_run(cls, **kwargs: Any) -> Any:
        """Deprecated by the SDK: ``get_context(allow_offline=False)``."""
        return cls.get_context(allow_offline=False)

    @staticmethod
    def get(workspace: Any, run_id: str) -> Run:
        """The run ``run_id`` of the workspace."""
        return Run._of(_open(workspace, run_id))

    @staticmethod
    def list(
        experiment: Any,
        type: Optional[str] = None,
        tags: details.Wanted = None,
        properties: details.Wanted = None,
        status: Optional[str] = None,
        include_children: bool = False,
        _rehydrate_runs: bool = True,
    ) -> Iterator[Run]:
        """The experiment's runs, newest first, that have all that is asked for."""
        for record in experiment.workspace._store.list(experiment.name):
            if not include_children and record.spec().get("parent"):
                continue
            run = Run._of(record, experiment)
            if run._fits(type, tags, properties, status):
                yield run

    @staticmethod
    def list_by_compute(
        compute: Any,
        type: Optional[str] = None,
        tags: details.Wanted = None,
        properties: details.Wanted = None,
        status: Optional[str] = None,
    ) -> Iterator[Run]:
        """Runs on a compute target, newest first."""
        for record in compute.workspace._store.list():
            run = Run._of(record)
            target = (record.spec().get("cluster") or {}).get("name")
            if target == compute.name and run._fits(type, tags, properties, status):
                yield run

    def _fits(
        self,
        type: Optional[str],
        tags: details.Wanted,
        properties: details.Wanted,
        status: Optional[str],
    ) -> bool:
        return (
            (type is None or self.type == type)
            and (status is None or self.get_status() == status)
            and (tags is None or details.has_all(self.get_tags(), tags))
            and (properties is None or details.has_all(self.get_properties(), properties))
        )

    # -- identity --------------------------------------------------------------------------
    @property
    def id(self) -> str:
        return self._record.id

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            from simgrid_ml.azure.experiment import Experiment
            from simgrid_ml.azure.workspace import Workspace

            workspace = Workspace._of_run(self._record)
            self._experiment = Experiment(workspace, self._record.spec()["experiment"])
        return self._experiment

    @property
    def name(self) -> str:
        return self.display_name

    @property
    def display_name(self) -> str:
        return details.last_said(self._record, "display_name") or self.id

    @display_name.setter
    def display_name(self, value: str) -> None:
        self._say("display_name", None, value)

    @property
    def description(self) -> Optional[str]:
        return details.last_said(self._record, "description")

    @description.setter
    def description(self, value: str) -> None:
        self._say("description", None, value)

    @property
    def number(self) -> int:
        """Its place among the experiment's runs, the first being 1."""
        runs = self.experiment.workspace._store.list(self.experiment.name)
        return len(runs) - [record.id for record in runs].index(self.id)

    @property
    def type(self) -> Optional[str]:
        kind: Optional[str] = self._record.spec().get("type", "azureml.scriptrun")
        return kind

    @property
    def parent(self) -> Optional[Run]:
        parent = self._record.spec().get("parent")
        return Run.get(self.experiment.workspace, parent) if parent else None

    @property
    def status(self) -> str:
        return self.get_status()

    def get_portal_url(self) -> str:
        """Where a page of this run would be; syntactically Azure's, on this host."""
        from simgrid_ml.azure.workspace import PORTAL

        return f"{PORTAL}/runs/{self.id}?{self.experiment.workspace._scope}"

    @property
    def portal_url(self) -> str:
        return self.get_portal_url()

    @classmethod
    def get_docs_url(cls) -> str:
        return "https://docs.microsoft.com/en-us/python/api/azureml-core/azureml.core.run.Run"

    # -- status ----------------------------------------------------------------------------
    def get_status(self) -> str:
        """One of Azure's words: ``NotStarted`` … ``Completed``, ``Failed``, ``Canceled``."""
        return self._record.state.value

    def get_detailed_status(self) -> Dict[str, Any]:
        last = (self._record.states() or [{}])[-1]
        return {"status": self.get_status(), "details": last.get("note")}

    def get_details(self) -> Dict[str, Any]:
        """All there is to know, under the keys of the service; logs are addresses."""
        return details.details(self._record, details.address)

    def get_details_with_logs(self) -> Dict[str, Any]:
        """As ``get_details``, with the content of each log in place of its address."""
        return details.details(self._record, details.content)

    def wait_for_completion(
        self,
        show_output: bool = False,
        wait_post_processing: bool = False,
        raise_on_error: bool = True,
    ) -> Dict[str, Any]:
        """Wait until the run has ended, all of it collected; returns its details.

        Args:
            show_output: print the logs as they grow, and a summary.
            wait_post_processing: always so here; the collection of outputs takes no time.
            raise_on_error: raise when the run failed.

        Raises:
            ActivityFailedException: it failed, or nobody is left who could end it.
            ExperimentExecutionException: interrupted while printing; the run goes on.
        """
        try:
            if show_output:
                self._print_logs()
            else:
                wait_state(self._record)
        except KeyboardInterrupt:
            raise ExperimentExecutionException(
                "The output streaming for the run interrupted.\n"
                "But the run is still executing on the compute target. \n"
                f"`simgrid-ml runs cancel {self.id}` or run.cancel() ends it."
            ) from None
        found = self.get_details()
        failed = found["status"] in (RunState.FAILED.value, RunState.NOT_RESPONDING.value)
        error = found.get("error") or _UNSET_ERROR
        if show_output:
            self._print_summary(found, None if raise_on_error or not failed else error)
        if failed and raise_on_error:
            raise ActivityFailedException(error_details=json.dumps(error, indent=4))
        return found

    def _print_logs(self) -> None:
        print(f"RunId: {self.id}")
        self._print_web_view()
        printer = LogPrinter(sys.stdout)
        for name, chunk in follow(self._record, names=is_streamed):
            printer.feed(name, chunk)
        printer.end_log()

    def _print_summary(self, found: Mapping[str, Any], error: Any) -> None:
        print(f"\nExecution Summary\n=================\nRunId: {self.id}")
        self._print_web_view()
        messages = [warning["message"] for warning in found.get("warnings", [])]
        if messages:
            print("\nWarnings:", *messages, "", sep="\n")
        if error is not None:
            print(f"\nError:\n{json.dumps(error, indent=4)}")
        print(flush=True)

    def _print_web_view(self) -> None:
        era = (self._record.spec().get("cluster") or {}).get("era")
        if era != "E1":  # it came later
            print(f"Web View: {self.get_portal_url()}", flush=True)

    # -- life ------------------------------------------------------------------------------
    def start(self) -> None:
        """Say that an interactive or child run has begun."""
        interactive.move(self._record, RunState.RUNNING)

    def complete(self, _set_status: bool = True) -> None:
        """End an interactive or child run well."""
        self.flush()
        if _set_status:
            self._end(RunState.COMPLETED)

    def fail(
        self, error_details: Any = None, error_code: Any = None, _set_status: bool = True
    ) -> None:
        """End an interactive or child run badly.

        Args:
            error_details: a message or an exception.
            error_code: the service's word for the kind of error; ``UserError`` without one.
        """
        self.flush()
        if _set_status:
            cause = str(error_details) if error_details else "the run was marked as failed"
            self._end(
                RunState.FAILED,
                error={
                    "kind": "RunFailed",
                    "cause": cause,
                    "evidence": "",
                    "remedy": "",
                    "exit_code": 1,
                    "code": str(error_code or "UserError"),
                },
            )

    def cancel(self) -> None:
        """Ask for the end of the run; a cluster's nodes stop their processes."""
        if interactive.is_carried_here(self._record):
            interactive.move(self._record, RunState.CANCEL_REQUESTED)
            self._end(RunState.CANCELED)
        else:
            self._record.request_cancel()

    def flush(self, timeout_seconds: int = 300) -> None:
        """Nothing to wait for: whatever was logged is in the record already."""

    def clean(self) -> List[str]:
        """Nothing to remove: no run leaves files on a target."""
        return []

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is None:
            self.complete()
        else:
            self.fail(error_details=f"{kind.__name__}: {value}")

    def _end(self, state: RunState, **said: Any) -> None:
        record = self._record
        if state is RunState.COMPLETED:
            if record.states()[-1]["state"] == RunState.NOT_STARTED.value:
                self.start()
            interactive.move(record, RunState.FINALIZING)
        outputs = record.spec().get("outputs")
        if outputs and os.path.isdir(outputs) and interactive.is_carried_here(record):
            self.upload_folder(wire.OUTPUTS, outputs)
        interactive.end(record, state, **said)

    # -- metrics ---------------------------------------------------------------------------
    def log(self, name: str, value: Any, description: str = "", step: Optional[int] = None) -> None:
        """Log one value of a metric; the same name logged again makes a series.

        Raises:
            UserErrorException: a list, range or generator; use ``log_list``.
        """
        self._metrics.scalar(name, value, step)

    def log_list(self, name: str, value: Any, description: str = "") -> None:
        """Log several values of one metric."""
        self._metrics.sequence(name, value)

    def log_row(self, name: str, description: Optional[str] = None, **kwargs: Any) -> None:
        """Log one row of a table; its columns are keywords."""
        self._metrics.row(name, kwargs)

    def log_table(self, name: str, value: Mapping[str, Any], description: str = "") -> None:
        """Log a table: a dict of columns of equal length."""
        self._metrics.table(name, value)

    def log_image(
        self, name: str, path: Optional[str] = None, plot: Any = None, description: str = ""
    ) -> None:
        """Log an image file, or a matplotlib plot as ``<name>_<unix seconds>.png``.

        Raises:
            AzureMLException: neither or both are given, or one is not what it should be.
        """
        if (path is None) == (plot is None):
            raise AzureMLException("give exactly one of path and plot")
        if path is not None:
            if not os.path.isfile(path):
                raise AzureMLException(f"path {path} is no image file")
            self._log_artifact("image", name, path, path)
        else:
            if not hasattr(plot, "savefig"):
                raise AzureMLException("plot is expected to be matplotlib.pyplot or a figure")
            stream = io.BytesIO()
            plot.savefig(stream, format="png")
            stream.seek(0)
            self._log_artifact("image", name, f"{name}_{int(time.time())}.png", stream)

    def log_accuracy_table(self, name: str, value: Any, description: str = "") -> None:
        self._log_json("accuracy_table", name, value)

    def log_confusion_matrix(self, name: str, value: Any, description: str = "") -> None:
        self._log_json("confusion_matrix", name, value)

    def log_predictions(self, name: str, value: Any, description: str = "") -> None:
        self._log_json("predictions", name, value)

    def log_residuals(self, name: str, value: Any, description: str = "") -> None:
        self._log_json("residuals", name, value)

    def _log_json(self, kind: str, name: str, value: Any) -> None:
        try:
            content = json.dumps(json.loads(value) if isinstance(value, str) else value)
        except ValueError as error:
            raise UserErrorException(f"{name!r}: invalid JSON: {error}") from error
        self._log_artifact(kind, name, name, io.BytesIO(content.encode("utf-8")))

    def _log_artifact(self, kind: str, name: str, artifact: str, source: Any) -> None:
        self.upload_file(artifact, source)
        address = f"aml://artifactId/ExperimentRun/dcid.{self.id}/{artifact}"
        self._metrics.append(kind, name, address)

    def get_metrics(
        self,
        name: Optional[str] = None,
        recursive: bool = False,
        run_type: Optional[str] = None,
        populate: bool = False,
    ) -> Dict[str, Any]:
        """What all ranks logged: one value as itself, several as a list, tables as dicts.

        Args:
            name: only this metric.
            recursive: of the children as well; the result is keyed by run id then.
            run_type: with ``recursive``, only runs of this type.
            populate: accepted; images are not loaded.
        """
        own = merged(self._record.metrics(), name)
        if not recursive:
            return own
        found = {self.id: own} if run_type in (None, self.type) else {}
        for child in self.get_children(recursive=True, type=run_type):
            found[child.id] = child.get_metrics(name)
        return found

    # -- tags and properties ---------------------------------------------------------------
    def tag(self, key: str, value: Any = None) -> None:
        self._say("tag", key, value)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        for key, value in tags.items():
            self._say("tag", key, value)

    def get_tags(self) -> Dict[str, Any]:
        return details.tags(self._record)

    @property
    def tags(self) -> Dict[str, Any]:
        return self.get_tags()

    def remove_tags(self, tags: Union[str, Sequence[str]]) -> None:
        for key in [tags] if isinstance(tags, str) else tags:
            self._say("remove_tag", key, None)

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        """Add properties; unlike tags they are written once.

        Raises:
            UserErrorException: one exists with another value.
        """
        known = self.get_properties()
        new = {key: None if value is None else str(value) for key, value in properties.items()}
        taken = sorted(key for key, value in new.items() if known.get(key, value) != value)
        if taken:
            raise UserErrorException(
                f"properties cannot be changed once they are set: {', '.join(taken)}"
            )
        for key, value in new.items():
            if key not in known:
                self._say("property", key, value)

    def get_properties(self) -> Dict[str, Any]:
        return details.properties(self._record)

    @property
    def properties(self) -> Dict[str, Any]:
        return self.get_properties()

    def _say(self, what: str, key: Optional[str], value: Any) -> None:
        if value is not None and not isinstance(value, str):
            value = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
        self._attributes.append({"t": time.time(), "set": what, "key": key, "value": value})

    # -- files -----------------------------------------------------------------------------
    def get_file_names(self) -> List[str]:
        """Every artifact of the run, logs as well."""
        return [artifact.name for artifact in self._record.artifacts()]

    def upload_file(self, name: str, path_or_stream: Any, datastore_name: Any = None) -> None:
        """Create the artifact ``name``.

        Raises:
            AzureMLAggregatedException: it exists; names are created once.
        """
        _only_default_datastore(datastore_name)
        files.upload(self._record, [name], [path_or_stream])

    def upload_files(
        self,
        names: Sequence[str],
        paths: Sequence[Any],
        return_artifacts: bool = False,
        timeout_seconds: Optional[int] = None,
        datastore_name: Any = None,
    ) -> Any:
        """Create several artifacts.

        Raises:
            TypeError: ``names`` and ``paths`` differ in length.
            AzureMLAggregatedException: names exist; the other new names of the same batch of 50
                are left behind without content, as the service leaves them.
        """
        _only_default_datastore(datastore_name)
        files.upload(self._record, names, paths)
        if not return_artifacts:
            return None
        return {name: f"ExperimentRun/dcid.{self.id}/{name}" for name in names}

    def upload_folder(self, name: str, path: str, datastore_name: Any = None) -> None:
        """Create an artifact ``name/<relative path>`` of every file below ``path``."""
        _only_default_datastore(datastore_name)
        files.upload(self._record, *files.folder_files(name, path))

    def download_file(
        self, name: str, output_file_path: Optional[str] = None, _validate_checksum: bool = False
    ) -> None:
        """Copy an artifact: to the current folder, to a path, or into the folder of that path.

        Raises:
            UserErrorException: the run has no such artifact.
        """
        target = output_file_path if output_file_path is not None else os.path.basename(name)
        try:
            files.download(self._record, name, target)
        except SimgridError as error:
            raise to_azure(error) from error

    def download_files(
        self,
        prefix: Optional[str] = None,
        output_directory: Optional[str] = None,
        output_paths: Optional[Sequence[str]] = None,
        batch_size: int = 100,
        append_prefix: bool = True,
        timeout_seconds: Optional[int] = None,
    ) -> None:
        """Copy all artifacts whose names begin with ``prefix``.

        Args:
            prefix: None: all.
            output_directory: the current one without it.
            output_paths: one path per artifact, in the order of ``get_file_names``.
            append_prefix: keep the prefix as folders below ``output_directory``.
        """
        names = [name for name in self.get_file_names() if name.startswith(prefix or "")]
        if prefix and not names:
            raise UserErrorException(f"no artifact of run {self.id} begins with {prefix!r}")
        if output_paths is not None and len(output_paths) != len(names):
            raise UserErrorException(f"{len(output_paths)} output_paths for {len(names)} files")
        cut = len((prefix or "").rstrip("/")) if not append_prefix else 0
        for place, name in enumerate(names):
            target = output_paths[place] if output_paths else name[cut:].lstrip("/")
            target = target or os.path.basename(name)
            files.download(self._record, name, os.path.join(output_directory or "", target))

    def get_all_logs(self, destination: Optional[str] = None) -> List[str]:
        """Copy every log below ``destination``, or ``assets/<run id>``; returns the paths."""
        if destination and os.path.exists(destination) and not os.path.isdir(destination):
            raise UserErrorException(f"{destination} exists and is not a directory.")
        folder = destination or os.path.join("assets", self.id)
        return [
            files.download(self._record, name, os.path.join(folder, *name.split("/")))
            for name in self.get_file_names()
            if details.is_log(name)
        ]

    # -- children --------------------------------------------------------------------------
    def child_run(
        self, name: Optional[str] = None, run_id: Optional[str] = None, outputs: Any = None
    ) -> Run:
        """A run below this one, carried by this process."""
        child = self._create_child(run_id, outputs)
        if name:
            child.display_name = name
        child.start()
        return child

    def create_children(
        self,
        count: Optional[int] = None,
        tag_key: Optional[str] = None,
        tag_values: Optional[Sequence[Any]] = None,
    ) -> List[Run]:
        """Runs below this one: ``count`` of them, or one per value of a tag.

        Raises:
            UserErrorException: not exactly one of the two is given, or there are too many.
        """
        by_tag = tag_key is not None and tag_values is not None
        if (count is None) != by_tag or (count is not None and (tag_key or tag_values)):
            raise UserErrorException("give either count, or both tag_key and tag_values")
        values: List[Any] = list(tag_values) if tag_values is not None else [None] * (count or 0)
        if not 0 < len(values) <= _MAX_CHILDREN:
            raise UserErrorException(f"between 1 and {_MAX_CHILDREN} children can be created")
        children = []
        for value in values:
            child = self._create_child(None, None)
            if tag_key is not None:
                child.tag(tag_key, value)
            children.append(child)
        return children

    def _create_child(self, run_id: Optional[str], outputs: Any) -> Run:
        spec = self._record.spec()
        about = {
            "parent": self.id,
            "type": "azureml.scriptrun" if self.type else None,
            "workspace": spec.get("workspace"),
            "cluster": spec.get("cluster"),
            "job": None,
            "created": time.time(),
            "outputs": os.path.abspath(outputs) if outputs else None,
        }
        store = self.experiment.workspace._store
        record = interactive.create(store, spec["experiment"], about, run_id, self.id)
        return Run._of(record, self._experiment)

    def get_children(
        self,
        recursive: bool = False,
        tags: details.Wanted = None,
        properties: details.Wanted = None,
        type: Optional[str] = None,
        status: Optional[str] = None,
        _rehydrate_runs: bool = True,
    ) -> Iterator[Run]:
        """Runs below this one, newest first."""
        for record in self.experiment.workspace._store.list(self._record.spec()["experiment"]):
            if record.spec().get("parent") != self.id:
                continue
            child = Run._of(record, self._experiment)
            if child._fits(type, tags, properties, status):
                yield child
            if recursive:
                yield from child.get_children(True, tags, properties, type, status)

    def submit_child(
        self, config: Any, tags: Optional[Mapping[str, Any]] = None, **kwargs: Any
    ) -> Run:
        """Submit a job as a child of this run; from the driver only."""
        if os.environ.get(wire.RUN_DIR_VARIABLE):
            raise not_emulated("submitting a run from inside a run")
        child: Run = self.experiment._submit(config, tags, {"parent": self.id}, kwargs)
        return child

    # -- source and environment ------------------------------------------------------------
    def get_snapshot_id(self) -> Optional[str]:
        return self.get_properties().get(_SNAPSHOT)

    def take_snapshot(self, file_or_folder_path: str) -> str:
        """Keep a copy of the source with an interactive run, once; from the driver only.

        Raises:
            SnapshotException: there is one already, or it cannot be taken.
        """
        if self.get_snapshot_id() is not None:
            raise SnapshotException(f"run {self.id} has a snapshot already")
        taken = files.take_snapshot(self._record, file_or_folder_path)
        self.add_properties({_SNAPSHOT: taken})
        return taken

    def restore_snapshot(
        self, snapshot_id: Optional[str] = None, path: Optional[str] = None
    ) -> str:
        """Write the source of this run, or of the snapshot named, as a zip; returns its path."""
        wanted = snapshot_id or self.get_snapshot_id()
        record = self._record
        if wanted is not None and wanted != self.get_snapshot_id():
            others = (Run._of(r) for r in self.experiment.workspace._store.list())
            record = next((r._record for r in others if r.get_snapshot_id() == wanted), record)
        if wanted is None or not os.path.exists(record.file(wire.CODE)):
            raise SnapshotException(f"run {self.id} has no snapshot")
        folder = path or os.getcwd()
        os.makedirs(folder, exist_ok=True)
        return files.as_zip(record.file(wire.CODE), os.path.join(folder, f"{wanted}.zip"))

    def get_environment(self) -> Any:
        """The ``Environment`` the run was submitted with; from the driver only."""
        from simgrid_ml.azure.environment import _from_plain

        definition = (self._record.spec().get("definition") or {}).get("environment")
        if not definition:
            raise UserErrorException(f"run {self.id} has no environment")
        return _from_plain(definition)

    # -- models ----------------------------------------------------------------------------
    def register_model(
        self,
        model_name: str,
        model_path: Optional[str] = None,
        tags: Optional[Mapping[str, Any]] = None,
        properties: Optional[Mapping[str, Any]] = None,
        model_framework: Optional[str] = None,
        model_framework_version: Optional[str] = None,
        description: Optional[str] = None,
        datasets: Any = None,
        sample_input_dataset: Any = None,
        sample_output_dataset: Any = None,
        resource_configuration: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Make the next version of a model from an artifact, or from all below a folder of them.

        Args:
            model_name: the model's name.
            model_path: the artifact or folder; None: of the same name as the model.

        Raises:
            WebserviceException: the name breaks the rule.
            ModelPathNotFoundException: no artifact lies there.
        """
        from simgrid_ml.azure.model import Model, check_model_name

        check_model_name(model_name)
        wanted = os.path.normpath(model_path or model_name).replace(os.sep, "/").strip("/")
        found = self._under(wanted)
        if not found:
            names = ", ".join(self.get_file_names()[:20]) or "no artifacts"
            raise ModelPathNotFoundException(
                f"Could not locate the provided model_path {wanted} in the set of files uploaded "
                f"to the run: {names}"
            )
        return Model._put(
            self.experiment.workspace,
            model_name,
            found,
            tags=tags,
            properties=properties,
            model_framework=model_framework,
            model_framework_version=model_framework_version,
            description=description,
            run_id=self.id,
            experiment_name=self.experiment.name,
        )

    def _under(self, path: str) -> List[Tuple[str, str]]:
        """(name inside the model, file) of the artifact ``path``, or of all below that folder.

        The last part of the path is kept, as in the service: ``outputs/`` gives ``outputs/a``.
        """
        base = path.rpartition("/")[0]
        cut = len(base) + 1 if base else 0
        return [
            (artifact.name[cut:], artifact.path)
            for artifact in self._record.artifacts()
            if path == "." or artifact.name == path or artifact.name.startswith(path + "/")
        ]

    def __getattr__(self, name: str) -> Any:
        return missing_member(self, name)

    # -- text ------------------------------------------------------------------------------
    def __str__(self) -> str:
        experiment = self._record.spec()["experiment"]
        return (
            f"Run(Experiment: {experiment},\nId: {self.id},\n"
            f"Type: {self.type},\nStatus: {self.get_status()})"
        )

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other._record.path == self._record.path

    def __hash__(self) -> int:
        return hash(self._record.path)


class _SubmittedRun(Run):
    """The run as its own script sees it: its status is the platform's affair."""

    _instances: ClassVar[Dict[str, _SubmittedRun]] = {}

    @classmethod
    def _here(cls, path: str) -> _SubmittedRun:
        run = cls._instances.get(path)
        if run is None:
            run = cls._instances[path] = cls(None, os.path.basename(path), _record=RunRecord(path))
        return run

    @property
    def input_datasets(self) -> Dict[str, Any]:
        return {}

    @property
    def output_datasets(self) -> Dict[str, Any]:
        return {}

    def start(self) -> None:
        """The platform has said so already."""

    def complete(self, _set_status: bool = True) -> None:
        """Only flushes: the run is complete when all ranks have ended well."""
        _log.info("complete does not set the status of a submitted run")
        super().complete(_set_status=False)

    def fail(
        self, error_details: Any = None, error_code: Any = None, _set_status: bool = True
    ) -> None:
        """Only flushes: a run fails when a rank ends badly."""
        _log.info("fail does not set the status of a submitted run")
        super().fail(error_details, error_code, _set_status=False)

    def cancel(self) -> None:
        """Only warns."""
        _log.warning("cancel is not supported for submitted runs.")

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        self.complete()


def get_run(experiment: Any, run_id: str, rehydrate: bool = True, clean_up: bool = True) -> Run:
    """The run ``run_id`` of the experiment."""
    return Run(experiment, run_id)


def _open(workspace: Any, run_id: str) -> RunRecord:
    try:
        record: RunRecord = workspace._store.open(run_id)
    except NotFoundError as error:
        raise to_azure(error) from error
    if record.id != run_id:  # the command line may shorten ids, the API may not
        raise UserErrorException(f"Run {run_id} was not found")
    return record


def _only_default_datastore(name: Any) -> None:
    if name is not None:
        raise not_emulated("uploading to a named datastore")
