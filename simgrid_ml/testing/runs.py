"""Submits a few lines of script as a real run, waits for its end, and reads what it left."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from simgrid_ml.engine import prepare
from simgrid_ml.errors import NotFoundError
from simgrid_ml.record.follow import has_ended, wait_state
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import Distribution, EnvironmentSpec, JobSpec, Mpi, Plain
from simgrid_ml.testing.processes import wait_until

__all__ = ["Runs", "cause", "evidence", "log", "story", "until_written"]


class Runs:
    """A workspace of its own in ``folder``, whose jobs run in one environment.

    Args:
        folder: an empty folder; sources and runs go there.
        environment: with what the jobs run.
        cluster: on what; ``submit`` can change single fields of it.
        deadline_s: until a run has ended. TensorFlow alone is imported in 20 s where many tests
            share two cores.
    """

    def __init__(
        self,
        folder: str,
        environment: EnvironmentSpec,
        cluster: Mapping[str, Any] | None = None,
        deadline_s: float = 150.0,
    ) -> None:
        self.folder = folder
        self.environment = environment
        self.deadline_s = deadline_s
        self.cluster: dict[str, Any] = {"name": "test", "max_nodes": 64, **(cluster or {})}
        self.store = RunStore(os.path.join(folder, "workspace"))
        self._sources = 0

    def source(self, files: Mapping[str, str]) -> str:
        """A new source folder with these files."""
        self._sources += 1
        folder = os.path.join(self.folder, f"source-{self._sources}")
        for name, text in files.items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(textwrap.dedent(text))
        return folder

    def submit(
        self,
        script: str | None,
        *arguments: str,
        mpi: tuple[int, int] | None = None,
        nodes: int = 1,
        distribution: Distribution | None = None,
        cluster: Mapping[str, Any] | None = None,
        **job: Any,
    ) -> RunRecord:
        """Start ``script`` (its text) as ``train.py``.

        Args:
            script: None with ``command=`` or with ``source=`` and ``entry_script=``.
            mpi: nodes and processes per node; None: the script once on each of ``nodes``.
            distribution: instead of ``mpi`` and ``nodes``.
            cluster: fields of the ``ClusterSpec``.
            job: fields of the ``JobSpec``.
        """
        if script is not None:
            job = {"source": self.source({"train.py": script}), "entry_script": "train.py", **job}
        elif "source" not in job:
            job["source"] = self.source({"README": "no script"})
        if distribution is None:
            distribution = (
                Plain(nodes=nodes) if mpi is None else Mpi(nodes=mpi[0], processes_per_node=mpi[1])
            )
        spec = JobSpec(
            arguments=arguments,
            distribution=distribution,
            **{"environment": self.environment, **job},
        )
        on = ClusterSpec(**{**self.cluster, **(cluster or {})})
        return prepare.submit(spec, on, store=self.store, experiment="test")

    def run(self, script: str | None, *arguments: str, **rest: Any) -> RunRecord:
        """As ``submit``, returning when the run has ended, however it did."""
        return self.ended(self.submit(script, *arguments, **rest))

    def completed(self, script: str | None, *arguments: str, **rest: Any) -> RunRecord:
        """As ``run`` for one that must end well."""
        record = self.run(script, *arguments, **rest)
        assert record.state is RunState.COMPLETED, story(record)
        return record

    def failed(self, script: str | None, *arguments: str, **rest: Any) -> RunRecord:
        """As ``run`` for one that must end Failed, with a cause."""
        record = self.run(script, *arguments, **rest)
        assert record.state is RunState.FAILED, story(record)
        assert record.error() is not None, story(record)
        return record

    def ended(self, record: RunRecord, deadline_s: float | None = None) -> RunRecord:
        """``record``, once nothing happens in it any more.

        Args:
            deadline_s: None: as for all runs.
        """
        state = wait_state(record, self.deadline_s if deadline_s is None else deadline_s)
        assert has_ended(state), story(record)
        return record


def log(record: RunRecord, rank: int | str = 0) -> str:
    """What a rank of an MPI run of era E2 wrote, or a task: ``"-worker-0"``."""
    suffix = rank if isinstance(rank, str) else f"_{rank}"
    path = record.artifact(f"azureml-logs/70_driver_log{suffix}.txt").path
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read().partition("\nThe activity completed successfully.")[0]


def until_written(
    record: RunRecord, text: str, tasks: Iterable[int | str], deadline_s: float = 30.0
) -> None:
    """Wait until each of ``tasks``, named as for ``log``, has written ``text``.

    Raises:
        AssertionError: they have not, or the run has ended before.
    """
    waiting = list(tasks)

    def all_have() -> bool:
        assert not record.state.is_terminal, story(record)
        try:
            return all(text in log(record, task) for task in waiting)
        except NotFoundError:  # there is no such log yet
            return False

    wait_until(all_have, f"every task has written {text!r}", deadline_s)


def cause(record: RunRecord) -> str:
    """The first cause of a failed run, in its own words."""
    return str((record.error() or {}).get("cause", ""))


def evidence(record: RunRecord) -> str:
    """What was seen of the first cause: the last lines of a log, or nothing."""
    return str((record.error() or {}).get("evidence") or "")


def story(record: RunRecord) -> str:
    """All there is to know about a run, for the message of a failed assertion."""
    parts = [f"run {record.path} is {record.state.value}"]
    parts += [str(move) for move in record.states()]
    parts += [str(event) for event in record.events()]
    parts += [f"{name}: {lines}" for name, lines in record.task_reports().items()]
    for artifact in record.artifacts():
        with open(artifact.path, "rb") as stream:
            text = stream.read(20_000)[-4000:].decode("utf-8", "replace")
        parts.append(f"-- {artifact.name} ({artifact.bytes} bytes)\n{text}")
    path = record.file("supervisor.log")
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as stream:
            parts.append("-- supervisor.log\n" + stream.read()[-8000:])
    return "\n".join(parts)
