"""Run directories written by hand, and the command line as a function."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml import wire
from simgrid_ml.__main__ import main
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunLock, RunRecord, RunState
from simgrid_ml.record.store import RunStore

SPEC: dict[str, Any] = {
    "job": {
        "source": "/somewhere",
        "entry_script": "train.py",
        "arguments": ["--epochs", "2"],
        "distribution": {"kind": "mpi", "nodes": 2, "processes_per_node": 1},
        "environment": {"framework": "pytorch", "framework_version": "1.4"},
    },
    "cluster": {"name": "local", "backend": "process", "era": "E2", "max_nodes": 2},
}


@dataclass
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class CommandLine:
    """``simgrid-ml`` in a home of its own."""

    home: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Said:
        self.capture.readouterr()
        code = main([str(word) for word in arguments])
        caught = self.capture.readouterr()
        return Said(code, caught.out, caught.err)

    @property
    def store(self) -> RunStore:
        return RunStore.of_workspace("local")

    def run(
        self,
        run_id: str,
        *states: RunState,
        error: dict[str, Any] | None = None,
        verdicts: list[dict[str, Any]] | None = None,
        files: dict[str, bytes] | None = None,
        metrics: list[tuple[str, Any]] = (),  # type: ignore[assignment]
        job: dict[str, Any] | None = None,
    ) -> RunRecord:
        """A run of experiment ``digits`` that nobody supervises, in the last of ``states``."""
        record = self.store.create("digits", {**SPEC, "job": job or SPEC["job"]}, run_id)
        for state in states:
            is_last = state is states[-1]
            record.advance(state, **({"error": error} if error and is_last else {}))
        if verdicts is not None:
            write_json(record.file(wire.VERDICTS), verdicts)
        for name, content in (files or {}).items():
            path = Path(record.file(wire.ARTIFACTS, name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        journal = record.journal(wire.METRICS, "rank-0")
        for number, (name, value) in enumerate(metrics):
            kind = "list" if isinstance(value, list) else "scalar"
            journal.append(
                {"t": float(number), "name": name, "kind": kind, "value": value, "step": None}
            )
        journal.close()
        if states and not states[-1].is_terminal:  # a supervisor was there and is gone
            lock = RunLock.take(record.path)
            assert lock is not None
            lock.close()
        return record


RUN_TO_THE_END = (
    RunState.PREPARING,
    RunState.QUEUED,
    RunState.RUNNING,
    RunState.FINALIZING,
)
COMPLETED = (*RUN_TO_THE_END, RunState.COMPLETED)
FAILED = (*RUN_TO_THE_END, RunState.FAILED)
LOGS = {
    "azureml-logs/70_driver_log_0.txt": b"one\ntwo\n",
    "azureml-logs/70_driver_log_1.txt": b"eins\nzwei",
    "azureml-logs/70_mpi_log.txt": b"mpirun says\n",
    "azureml-logs/65_job_prep-tvmps_1_d.txt": b"node things\n",
    "outputs/model.pt": b"x" * 2048,
}


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    home = tmp_path / "home"
    monkeypatch.setenv(wire.STATE_HOME_VARIABLE, str(home))
    monkeypatch.setenv(wire.CACHE_HOME_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert os.getcwd() == str(tmp_path)
    return CommandLine(home, capsys)
