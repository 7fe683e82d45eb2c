"""What is to be run: source, entry script, how it is distributed, in which environment."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from simgrid_ml.spec.value import Value

__all__ = [
    "Distribution",
    "EnvironmentSpec",
    "ImageSpec",
    "JobSpec",
    "Mpi",
    "ParameterServer",
    "Plain",
    "RayCluster",
    "Registry",
    "TorchDistributed",
]

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


class ParameterServer(Value, frozen=True, kw_only=True, tag_field="kind", tag="parameter_server"):
    """TensorFlow's tasks, which find each other by ``TF_CONFIG``.

    Attributes:
        nodes: at most; those that get no task are not started.
        workers: they decide how the run ends.
        servers: parameter servers, one on a node; 0: workers alone, as for
            ``MultiWorkerMirroredStrategy``.
        coordinator: one more task, ``chief``, as TensorFlow 2's ``ParameterServerStrategy`` has it;
            it decides how the run ends, and workers serve it.
        first_worker: the type of worker 0's own task in ``TF_CONFIG``, where Azure's documents
            disagree; ``cluster`` lists it among the workers in any case.
        server_grace_s: a parameter server that ends well while workers go on fails the run after
            so many seconds: they may be waiting for it.
    """

    nodes: Count = 1
    workers: Count = 1
    servers: Annotated[int, Meta(ge=0)] = 1
    coordinator: bool = False
    first_worker: Literal["worker", "master"] = "worker"
    server_grace_s: Annotated[float, Meta(ge=0)] = 30.0

    def __post_init__(self) -> None:
        _check_counts(nodes=self.nodes, workers=self.workers)
        if self.servers < 0:
            raise ValueError(f"servers must not be negative, as {self.servers} is")
        if self.coordinator and not self.servers:
            raise ValueError("a coordinator needs at least one parameter server")

    @property
    def tasks(self) -> int:
        return self.servers + self.workers + self.coordinator


class TorchDistributed(Value, frozen=True, kw_only=True, tag_field="kind", tag="torch"):
    """``nodes`` x ``processes_per_node`` ranks that meet by ``torch.distributed``.

    Attributes:
        backend: what the job asks for; NCCL where there are no GPUs is served by Gloo.
    """

    nodes: Count = 1
    processes_per_node: Count = 1
    backend: Literal["gloo", "nccl"] = "nccl"

    def __post_init__(self) -> None:
        _check_counts(nodes=self.nodes, processes_per_node=self.processes_per_node)


class RayCluster(Value, frozen=True, kw_only=True, tag_field="kind", tag="ray"):
    """Ray on every node; the script runs on the first, beside Ray's head, and decides the end.

    Attributes:
        head_arguments: more options of ``ray start --head``.
        join_timeout_s: all nodes must have joined so many seconds after the head was started.
    """

    nodes: Count = 1
    head_arguments: tuple[str, ...] = ()
    join_timeout_s: Annotated[float, Meta(gt=0)] = 120.0

    def __post_init__(self) -> None:
        _check_counts(nodes=self.nodes)


Distribution = Plain | Mpi | ParameterServer | TorchDistributed | RayCluster


class Registry(Value, frozen=True, kw_only=True):
    """Where an image comes from, and as whom it is fetched."""

    address: str | None = None
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Registry(address={self.address!r}, username={self.username!r})"


class ImageSpec(Value, frozen=True, kw_only=True):
    """The container image a user asked for.

    Attributes:
        name: as it is pulled: ``registry.example.org/team/image:tag``.
        registry: whom to say who asks; its address is in ``name`` already.
        user_managed: the image's own Python runs the job, and nothing is installed.
        python: that Python; None: the first of ``python3`` and ``python`` on the image's PATH.
    """

    name: str
    registry: Registry | None = None
    user_managed: bool = False
    python: str | None = None


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
        registry: where that image is pulled from.
        image_python: with ``interpreter``: its counterpart inside the image.
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
    registry: Registry | None = None
    image_python: str | None = None

    @property
    def wanted_image(self) -> ImageSpec | None:
        """What a backend that has images starts nodes from; None: nothing in particular.

        >>> spec = EnvironmentSpec(image="lab/torch:1", registry=Registry(address="r.example.org"))
        >>> spec.wanted_image.name
        'r.example.org/lab/torch:1'
        """
        if self.image is None:
            return None
        name, address = self.image, self.registry.address if self.registry else None
        if address:
            host = address.partition("://")[2] or address
            if not name.startswith(host.rstrip("/") + "/"):
                name = f"{host.rstrip('/')}/{name}"
        return ImageSpec(
            name=name,
            registry=self.registry,
            user_managed=self.interpreter is not None,
            python=self.image_python,
        )


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
