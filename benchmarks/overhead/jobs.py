"""The same program twice: by bare ``mpirun`` on the host, and as a run on virtual nodes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simgrid_ml.engine.prepare import submit
from simgrid_ml.environments.build import BuiltEnvironment, ensure
from simgrid_ml.record.follow import has_ended, wait_state
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import Distribution, EnvironmentSpec, JobSpec, Mpi

__all__ = ["PROGRAMS", "Bench", "Ran", "log_lines", "numbers"]

PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Ran:
    """One execution: when it was asked for (Unix seconds), and what every rank printed."""

    begun: float
    lines: list[str]
    record: RunRecord | None = None


class Bench:
    """Where the measured runs live, and the environment that both ways share."""

    def __init__(self, folder: str, spec: EnvironmentSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.environment: BuiltEnvironment = ensure(spec, report=print)
        self.store = RunStore(os.path.join(folder, "workspace"))

    def submit(
        self,
        program: str | None,
        *arguments: str,
        nodes: int = 1,
        per_node: int = 1,
        distribution: Distribution | None = None,
        source: str = PROGRAMS,
        variables: Mapping[str, str] | None = None,
        command: tuple[str, ...] | None = None,
        cluster: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Start a program, as an MPI job unless another ``distribution`` is given.

        Args:
            source: the folder that has it.
            cluster: fields of the ``ClusterSpec``.
        """
        job = JobSpec(
            source=source,
            entry_script=program,
            arguments=arguments,
            command=command,
            distribution=distribution or Mpi(nodes=nodes, processes_per_node=per_node),
            environment=self.spec,
            variables=dict(variables or {}),
        )
        on = ClusterSpec(**{"name": "bench", "max_nodes": 64, **(cluster or {})})
        return submit(job, on, store=self.store, experiment="benchmark")

    def on_nodes(self, program: str | None, *arguments: str, **how: Any) -> Ran:
        """Run to the end.

        Raises:
            RuntimeError: it did not end well; with the cause.
        """
        begun = time.time()
        record = self.submit(program, *arguments, **how)
        state = wait_state(record, _DEADLINE_S)
        if not has_ended(state):
            record.request_cancel()
        self.wait_until_gone(record)
        if not has_ended(state) or state is not RunState.COMPLETED:
            raise RuntimeError(f"run {record.path} is {state.value}: {record.error()}")
        return Ran(begun, log_lines(record), record)

    @staticmethod
    def wait_until_gone(record: RunRecord) -> None:
        """The nodes vanish after the run has ended; nothing is measured meanwhile."""
        while record.is_supervised():
            time.sleep(0.005)

    def bare(
        self, program: str, *arguments: str, ranks: int, settings: Mapping[str, str] | None = None
    ) -> Ran:
        """The program under ``mpirun`` on the host, no nodes.

        Raises:
            RuntimeError: it failed.
        """
        argv = ["mpirun", "--oversubscribe", "--bind-to", "none"]
        if os.geteuid() == 0:
            argv.append("--allow-run-as-root")
        for name, value in (settings or {}).items():
            argv += ["--mca", name, value]
        script = os.path.join(PROGRAMS, program)
        argv += ["-np", str(ranks), self.environment.python, script, *arguments]
        begun = time.time()
        done = subprocess.run(
            argv,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}")
        return Ran(begun, done.stdout.split("\n"))

    @property
    def variables(self) -> dict[str, str]:
        """What a program finds in its environment when it is started by hand."""
        path = f"{self.environment.bin}:/usr/local/bin:/usr/bin:/bin"
        variables = {"PATH": path, "HOME": os.path.expanduser("~")}
        if os.path.exists(os.path.join(self.environment.bin, "prted")):
            prefix = os.path.dirname(self.environment.bin)
            variables |= dict.fromkeys(("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX"), prefix)
        return variables


def log_lines(record: RunRecord) -> list[str]:
    """What the ranks printed, without what the emulated service adds."""
    lines: list[str] = []
    for artifact in record.artifacts():
        if artifact.name.startswith("azureml-logs/70_driver_log"):
            with open(artifact.path, encoding="utf-8") as stream:
                lines += stream.read().partition("\nThe activity completed")[0].splitlines()
    return lines


def numbers(lines: Sequence[str]) -> list[float]:
    """The lines that are numbers."""
    return [float(line) for line in lines if line.strip()]
