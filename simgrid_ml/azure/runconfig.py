"""``RunConfiguration``: everything about a run but its source folder, in Azure ML's terms.

Plain mutable data, since user code edits it between the estimator and the submission.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from simgrid_ml.azure.conda_dependencies import CondaDependencies
from simgrid_ml.azure.element import Element, camel, is_a
from simgrid_ml.azure.environment import (
    DEFAULT_CPU_IMAGE,
    DEFAULT_GPU_IMAGE,
    ContainerRegistry,
    Environment,
)
from simgrid_ml.azure.errors import RunConfigurationException, not_emulated

__all__ = [
    "DEFAULT_CPU_IMAGE",
    "DEFAULT_GPU_IMAGE",
    "LOCAL_RUNCONFIG_NAME",
    "MPI_CPU_IMAGE",
    "MPI_GPU_IMAGE",
    "AmlComputeConfiguration",
    "ContainerRegistry",
    "DataReferenceConfiguration",
    "DockerConfiguration",
    "EnvironmentDefinition",
    "HistoryConfiguration",
    "MpiConfiguration",
    "ParallelTaskConfiguration",
    "PyTorchConfiguration",
    "RunConfiguration",
    "SparkConfiguration",
    "TensorflowConfiguration",
    "definition",
    "environment_definition",
]

MPI_CPU_IMAGE = DEFAULT_CPU_IMAGE
MPI_GPU_IMAGE = DEFAULT_GPU_IMAGE
LOCAL_RUNCONFIG_NAME = "local"
_TORCH_BACKENDS = ("nccl", "gloo")
_log = logging.getLogger("azureml.core.runconfig")


class MpiConfiguration(Element):
    """MPI: ``node_count`` counts only in a ``ScriptRunConfig``; an estimator has its own."""

    def __init__(self, process_count_per_node: int = 1, node_count: int = 1) -> None:
        self.process_count_per_node = process_count_per_node
        self.node_count = node_count
        self._close()


class TensorflowConfiguration(Element):
    """TensorFlow's parameter servers and workers."""

    def __init__(self, worker_count: int = 1, parameter_server_count: int = 1) -> None:
        self.worker_count = worker_count
        self.parameter_server_count = parameter_server_count
        self._close()


class PyTorchConfiguration(Element):
    """torch.distributed; ``process_count`` is the total, None stands for one per node."""

    def __init__(
        self,
        communication_backend: str = "Nccl",
        process_count: int | None = None,
        node_count: int = 1,
    ) -> None:
        backend = communication_backend.lower()
        if backend not in _TORCH_BACKENDS:
            raise RunConfigurationException(
                f"communication_backend is 'Nccl' or 'Gloo', not {communication_backend!r}"
            )
        self.communication_backend = backend
        self.process_count = process_count
        self.node_count = node_count
        self._close()


class ParallelTaskConfiguration(Element):
    """Independent workers, started again when they end with certain codes."""

    def __init__(self) -> None:
        self.max_retries_per_worker = 0
        self.worker_count_per_node = 1
        self.terminal_exit_codes: list[int] | None = None


class DockerConfiguration(Element):
    """How the container is started; it wins over the environment's Docker section."""

    def __init__(
        self,
        use_docker: bool = False,
        shared_volumes: bool = True,
        arguments: list[str] = [],  # noqa: B006  # the SDK's signature; never kept
        shm_size: str | None = "2g",
    ) -> None:
        self.use_docker = use_docker
        self.shared_volumes = shared_volumes
        self.arguments = arguments if arguments else []
        self.shm_size = shm_size
        self._close()


class HistoryConfiguration(Element):
    """What the run history keeps."""

    def __init__(self) -> None:
        self.output_collection = True
        self.snapshot_project = True
        self.directories_to_watch = ["logs"]
        self._close()


class SparkConfiguration(Element):
    """Kept in the definition of a run; nothing here runs Spark."""

    def __init__(self) -> None:
        self.configuration = {
            "spark.app.name": "Azure ML Experiment",
            "spark.yarn.maxAppAttempts": 1,
        }
        self._close()


class AmlComputeConfiguration(Element):
    """A cluster made for one run."""

    def __init__(self) -> None:
        self.vm_size: str | None = None
        self.vm_priority: str | None = None
        self._retain_cluster = False
        self._name: str | None = None
        self._cluster_max_node_count: int | None = None
        self._close()


class DataReferenceConfiguration(Element):
    """A path on a datastore, and how it gets to the node: mount, download or upload."""

    def __init__(
        self,
        datastore_name: str | None = None,
        mode: str = "mount",
        path_on_datastore: str | None = None,
        path_on_compute: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.data_store_name = datastore_name
        self.path_on_data_store = path_on_datastore
        self.path_on_compute = path_on_compute
        self.mode = mode.lower()
        self.overwrite = overwrite
        self._close()


class EnvironmentDefinition(Environment):
    """The older name of ``Environment``."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)


class RunConfiguration(Element):
    """What to run and how; ``framework`` and ``communicator`` say how it is distributed."""

    def __init__(
        self,
        script: str | None = None,
        arguments: list[Any] | None = None,
        framework: str | None = None,
        communicator: str | None = None,
        conda_dependencies: CondaDependencies | None = None,
        _history_enabled: bool | None = None,
        _path: str | None = None,
        _name: str | None = None,
        command: Any = None,
    ) -> None:
        self._name = _name
        self._path = _path
        self.script = script
        self.command: Any = command or ""
        self.arguments: list[Any] = arguments or []
        self._target = LOCAL_RUNCONFIG_NAME
        self.framework = framework or "Python"
        self.communicator = communicator or "None"
        self.max_run_duration_seconds: int | None = None
        self.node_count = 1
        self.priority: int | None = None
        self.environment: Environment = EnvironmentDefinition("default-environment")
        if conda_dependencies is not None:
            self.environment.python.conda_dependencies = conda_dependencies
        self.history = HistoryConfiguration()
        if _history_enabled:
            self.history.output_collection = _history_enabled
        self.spark = SparkConfiguration()
        self.docker = DockerConfiguration()
        self.tensorflow = TensorflowConfiguration()
        self.mpi = MpiConfiguration()
        self.pytorch = PyTorchConfiguration()
        self.paralleltask = ParallelTaskConfiguration()
        self.data_references: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.output_data: dict[str, Any] = {}
        self.environment_variables: dict[str, str] | None = {}
        self.amlcompute = AmlComputeConfiguration()
        self.services: dict[str, Any] = {}
        self.source_directory_data_store: str | None = None
        self.credential_passthrough = False
        self._close()

    @property
    def target(self) -> str:
        return self._target

    @target.setter
    def target(self, target: Any) -> None:
        """A compute target or its name; anything else leaves the target as it is, as in the SDK."""
        if is_a(target, "ComputeTarget", "AbstractComputeTarget", "AmlCompute"):
            self._target = target.name
        elif isinstance(target, str):
            if target == "amlcompute":
                print(
                    "DEPRECATED: a cluster made for one run will go away.\n"
                    "Create an AmlCompute cluster and give its name as the compute target."
                )
            self._target = target

    @property
    def auto_prepare_environment(self) -> bool:
        _log.warning("'auto_prepare_environment' is deprecated and has no effect")
        return True

    @auto_prepare_environment.setter
    def auto_prepare_environment(self, value: bool) -> None:
        _log.warning("'auto_prepare_environment' is deprecated and has no effect")

    def _plain(self) -> dict[str, Any]:
        return definition(self)

    def __repr__(self) -> str:
        return json.dumps(definition(self), indent=4, default=str)

    def save(
        self,
        path: str | None = None,
        name: str | None = None,
        separate_environment_yaml: bool = False,
    ) -> None:
        raise not_emulated("files of run configurations", later=True)

    @staticmethod
    def load(path: str, name: str | None = None) -> RunConfiguration:
        raise not_emulated("files of run configurations", later=True)

    @staticmethod
    def delete(path: str, name: str) -> None:
        raise not_emulated("files of run configurations", later=True)


# -- the service's JSON of ours and of the real SDK's objects alike ---------------------------
_PLAIN_FIELDS = (
    "script",
    "command",
    "arguments",
    "target",
    "framework",
    "communicator",
    "max_run_duration_seconds",
    "node_count",
    "source_directory_data_store",
    "environment_variables",
)
_SECTIONS = {
    "history": ("output_collection", "snapshot_project", "directories_to_watch"),
    "docker": ("use_docker", "shared_volumes", "arguments", "shm_size"),
    "tensorflow": ("worker_count", "parameter_server_count"),
    "mpi": ("process_count_per_node", "node_count"),
    "pytorch": ("communication_backend", "process_count", "node_count"),
    "paralleltask": ("max_retries_per_worker", "worker_count_per_node", "terminal_exit_codes"),
    "spark": ("configuration",),
}
_DATA_REFERENCE = (
    "data_store_name",
    "path_on_data_store",
    "mode",
    "overwrite",
    "path_on_compute",
)
_AML_COMPUTE = ("vm_size", "vm_priority", "_retain_cluster", "_name", "_cluster_max_node_count")


def definition(run_config: Any) -> dict[str, Any]:
    """The ``runDefinition`` of a run, as ``get_details()`` shows it; camelCase since 2019."""
    plain = {camel(name): getattr(run_config, name, None) for name in _PLAIN_FIELDS}
    for section, names in _SECTIONS.items():
        part = getattr(run_config, section, None)
        plain[section] = part and _fields(part, names)
    plain["amlcompute"] = _fields(run_config.amlcompute, _AML_COMPUTE)
    plain["dataReferences"] = {
        name: _fields(reference, _DATA_REFERENCE)
        for name, reference in (run_config.data_references or {}).items()
    }
    plain["data"] = {name: str(value) for name, value in (run_config.data or {}).items()}
    plain["outputData"] = {
        name: str(value) for name, value in (run_config.output_data or {}).items()
    }
    plain["environment"] = environment_definition(run_config.environment)
    return plain


def environment_definition(environment: Any) -> dict[str, Any]:
    """The JSON of an environment; the password of its registry is left out."""
    python, docker, spark = environment.python, environment.docker, environment.spark
    registry = docker.base_image_registry
    conda = python.conda_dependencies
    return {
        "name": environment.name,
        "version": environment.version,
        "environmentVariables": dict(environment.environment_variables or {}),
        "python": {
            "userManagedDependencies": python.user_managed_dependencies,
            "interpreterPath": python.interpreter_path,
            "condaDependenciesFile": python._conda_dependencies_file,
            "baseCondaEnvironment": python._base_conda_environment,
            "condaDependencies": conda and conda.as_dict(),
        },
        "docker": {
            "enabled": docker.enabled,
            "baseImage": docker.base_image,
            "baseDockerfile": docker.base_dockerfile,
            "sharedVolumes": docker.shared_volumes,
            "shmSize": docker.shm_size,
            "arguments": list(docker.arguments or ()),
            "baseImageRegistry": {
                "address": registry and registry.address,
                "username": registry and registry.username,
                "password": None,
            },
        },
        "spark": spark
        and {
            "repositories": list(spark.repositories),
            "packages": list(spark.packages),
            "precachePackages": spark.precache_packages,
        },
        "inferencingStackVersion": environment.inferencing_stack_version,
    }


def _fields(part: Any, names: Any) -> dict[str, Any]:
    return {camel(name.lstrip("_")): getattr(part, name) for name in names}
