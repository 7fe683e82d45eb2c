"""What is to be run: source, entry script, how it is distributed, in which environment."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from simgrid_ml.spec.value import Value

__all__ = ["Distribution", "EnvironmentSpec", "JobSpec", "Mpi", "Plain"]

Count = Annotated[int, Meta(ge=1)]


class Plain(Value, frozen=True, kw_only=True, tag_field="kind", tag="plain"):
    """The same script once on every node, no rendezvous."""

    nodes: Count = 1

    def __post_init__(self) -> None:
        _check_counts(nodes=self.nodes)

    @property
    def processes_per_node(self) -> int:
        return 1


class Mpi(Value, frozen=True, kw_only=True, tag_field="kind", tag="mpi"):
    """``nodes`` x ``processes_per_node`` ranks under Open MPI, contiguous per node."""

    nodes: Count = 1
    processes_per_node: Count = 1

    def __post_init__(self) -> None:
        _check_counts(nodes=self.nodes, processes_per_node=self.processes_per_node)


Distribution = Plain | Mpi


class EnvironmentSpec(Value, frozen=True, kw_only=True):
    """With what a job runs; ``environments`` turns it into an interpreter.

    Attributes:
        name: for people; two environments of one content are one.
        framework: ``"pytorch"``, ``"sklearn"``, … or None for a bare environment.
        framework_version: as the estimator was given it, maybe of a release long gone.
        pip: requirement lines as pip reads them.
        conda: requirements by their conda names, mapped to PyPI names.
        python: a version wish such as ``"3.6.2"``; substituted and recorded.
        use_gpu: prefer CUDA builds.
        interpreter: use this Python as it is and install nothing (``user_managed``).
        image: the Docker image asked for; the process backend records that it is not used.
    """

    name: str | None = None
    framework: str | None = None
    framework_version: str | None = None
    pip: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    python: str | None = None
    use_gpu: bool = False
    interpreter: str | None = None
    image: str | None = None


class JobSpec(Value, frozen=True, kw_only=True):
    """One job.

    Attributes:
        source: absolute path of the folder that is snapshotted and given to every node.
        entry_script: path inside ``source``; None only with ``command``.
        arguments: after the script; ``$NAME`` is expanded per process.
        command: argv instead of ``python entry_script arguments``.
        variables: added to the environment of every rank.
        max_run_s: the run is cancelled after this many seconds of Running.
        launch_timeout_s: every rank must have started this many seconds after the launch;
            nodes have as long to come up, and 30 s at most.
        snapshot_limit_bytes: refuse a larger source folder.
        shm_size_bytes: size of ``/dev/shm`` on each node.
    """

    source: str
    entry_script: str | None = None
    arguments: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    distribution: Distribution = field(default_factory=Plain)
    environment: EnvironmentSpec = field(default_factory=EnvironmentSpec)
    variables: dict[str, str] = field(default_factory=dict)
    max_run_s: Annotated[float, Meta(gt=0)] | None = None
    launch_timeout_s: Annotated[float, Meta(gt=0)] = 120.0
    snapshot_limit_bytes: int | None = None
    shm_size_bytes: Annotated[int, Meta(gt=0)] = 2 * 2**30

    def __post_init__(self) -> None:
        if (self.entry_script is None) == (self.command is None):
            raise ValueError("give either entry_script or command")


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, not {count}")
