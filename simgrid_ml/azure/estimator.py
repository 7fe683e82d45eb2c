"""The estimators' common ground and the generic ``Estimator``: parameters in, ``run_config`` out.

An estimator runs nothing. It checks its parameters, writes them into a ``RunConfiguration`` the
user may still edit, and ``submission`` makes a job of that.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from simgrid_ml.azure import arguments, frameworks
from simgrid_ml.azure._validation import Request, announce, check
from simgrid_ml.azure.conda_dependencies import CondaDependencies
from simgrid_ml.azure.distributed import Gloo, Mpi, Nccl, ParameterServer
from simgrid_ml.azure.element import is_a
from simgrid_ml.azure.environment import ContainerRegistry, Environment
from simgrid_ml.azure.errors import TrainingException, UserErrorException
from simgrid_ml.azure.lint import odd_inputs
from simgrid_ml.azure.runconfig import DockerConfiguration, RunConfiguration

__all__ = ["Estimator", "Gloo", "MMLBaseEstimator", "Mpi", "Nccl", "ParameterServer", "checkpoint"]

_lint_log = logging.getLogger("simgrid_ml.azure")


class MMLBaseEstimator:
    """What every estimator offers once it is built.

    Attributes:
        run_config: everything about the run but its source; may be edited until the submission.
    """

    _SUPPORTED_BACKENDS: tuple[str, ...] = ("mpi",)

    run_config: RunConfiguration

    _asked_tasks: Mapping[str, Any] = MappingProxyType({})  # counts of TensorFlow's

    def _configure(self, request: Request) -> None:
        announce(request)
        check(request, type(self).__name__, self._SUPPORTED_BACKENDS)
        self._source_directory: str = request.source_directory or "."
        self._compute_target = request.compute_target
        self._distributed_backend = request.distributed_training or request.distributed_backend
        self._process_count_per_node = request.process_count_per_node
        self._script_params = dict(request.script_params or {})
        if request.resume_from:
            self._script_params["--resume-from"] = checkpoint(request.resume_from)
        self.run_config = _run_config(request, self._source_directory, self._script_params)
        docker = self.run_config.docker
        if docker.use_docker is False and is_a(request.compute_target, "KubernetesCompute"):
            raise TrainingException("KubernetesCompute runs jobs in Docker only")

    def _warn_of_odd_inputs(self) -> None:
        for sentence in odd_inputs(
            self.run_config,
            script=self.run_config.script,
            source_directory=self._source_directory,
            distributed=self._distributed_backend,
            process_count_per_node=self._process_count_per_node,
            asked_tasks=self._asked_tasks,
        ):
            _lint_log.warning(sentence)

    @property
    def source_directory(self) -> str:
        return self._source_directory

    @property
    def conda_dependencies(self) -> CondaDependencies:
        """The packages, open to changes until the submission."""
        dependencies = self.run_config.environment.python.conda_dependencies
        assert dependencies is not None
        return dependencies


class Estimator(MMLBaseEstimator):
    """An estimator for any framework: packages are what the parameters name, and no more.

    Args:
        source_directory: local folder with all code; the whole of it goes to every node.
        compute_target: a compute target or its name; ``"local"`` runs on this host.
        vm_size: size of the nodes of a cluster made for this run, instead of a target.
        vm_priority: ``"dedicated"`` or ``"lowpriority"``, with ``vm_size``.
        entry_script: path inside ``source_directory``.
        script_params: flags and values for the script, ``""`` as the value of a bare flag.
        node_count: nodes; more than one needs an ``AmlCompute`` object and a distribution.
        process_count_per_node: only with ``distributed_backend="mpi"``.
        distributed_backend: ``"mpi"``; older than ``distributed_training``.
        distributed_training: an ``MpiConfiguration``, or one of the older objects.
        use_gpu: GPU builds of the packages; how many GPUs there are is a matter of the nodes.
        use_docker: kept for scripts of its time.
        custom_docker_base_image: older name of the next.
        custom_docker_image: image of the nodes.
        image_registry_details: where it comes from.
        user_managed: use the Python that is there and install nothing.
        conda_packages: packages by their conda names.
        pip_packages: requirement lines.
        conda_dependencies_file_path: older name of ``conda_dependencies_file``.
        pip_requirements_file_path: older name of ``pip_requirements_file``.
        conda_dependencies_file: a conda specification inside ``source_directory``.
        pip_requirements_file: requirements inside ``source_directory``.
        environment_variables: set for the script.
        environment_definition: an ``Environment``, instead of nearly all of the above.
        inputs: data references and datasets.
        source_directory_data_store: recorded; the project folder is on this host anyway.
        shm_size: size of ``/dev/shm``, ``"2g"``.
        resume_from: a ``DataPath``, given to the script as ``--resume-from``.
        max_run_duration_seconds: cancel the run after that.

    Raises:
        TrainingException, UserErrorException, ComputeTargetException: as the SDK does.
    """

    def __init__(
        self,
        source_directory: str | None,
        *,
        compute_target: Any = None,
        vm_size: str | None = None,
        vm_priority: str | None = None,
        entry_script: str | None = None,
        script_params: dict[Any, Any] | None = None,
        node_count: int = 1,
        process_count_per_node: int = 1,
        distributed_backend: str | None = None,
        distributed_training: Any = None,
        use_gpu: bool = False,
        use_docker: bool = True,
        custom_docker_base_image: str | None = None,
        custom_docker_image: str | None = None,
        image_registry_details: ContainerRegistry | None = None,
        user_managed: bool = False,
        conda_packages: list[str] | None = None,
        pip_packages: list[str] | None = None,
        conda_dependencies_file_path: str | None = None,
        pip_requirements_file_path: str | None = None,
        conda_dependencies_file: str | None = None,
        pip_requirements_file: str | None = None,
        environment_variables: dict[str, str] | None = None,
        environment_definition: Environment | None = None,
        inputs: list[Any] | None = None,
        source_directory_data_store: Any = None,
        shm_size: str | None = None,
        resume_from: Any = None,
        max_run_duration_seconds: int | None = None,
        _disable_validation: bool = True,
        _show_lint_warnings: bool = False,
        _show_package_warnings: bool = False,
    ) -> None:
        request = Request.of(locals())
        logging.getLogger("azureml.train.estimator._estimator").warning(
            "'Estimator' estimator is deprecated. Please use 'ScriptRunConfig' with your own or "
            "a curated environment"
        )
        self._configure(request)
        if request.is_notebook:
            prepare_for_notebook(self.run_config, request)
        self._warn_of_odd_inputs()


def prepare_for_notebook(run_config: RunConfiguration, request: Request) -> None:
    """Notebooks get an image of their own, unless the user chose one."""
    environment = run_config.environment
    if not environment.python.user_managed_dependencies and request.custom_docker_image is None:
        environment.docker.base_image = frameworks.notebook_image(bool(request.use_gpu))


def checkpoint(resume_from: Any) -> Any:
    """The data reference for the folder to resume from.

    Raises:
        UserErrorException: it is no ``DataPath``.
    """
    if not is_a(resume_from, "DataPath"):
        raise UserErrorException(f"resume_from is a DataPath, not a {type(resume_from).__name__}")
    # The real DataPath takes only a binding of its own module's class.
    binding = sys.modules[type(resume_from).__module__].DataPathComputeBinding
    return resume_from.create_data_reference(
        data_reference_name="MODEL_LOCATION", datapath_compute_binding=binding(mode="mount")
    )


def _run_config(
    request: Request, source_directory: str, script_params: dict[Any, Any]
) -> RunConfiguration:
    config = RunConfiguration(
        script=request.entry_script, arguments=arguments.flatten(script_params)
    )
    store = request.source_directory_data_store
    data = arguments.collect(script_params, request.inputs, store)
    config.data_references = data.references
    config.data = data.datasets
    config.output_data = data.outputs
    config.source_directory_data_store = store.name if store else None

    config.node_count = request.node_count
    _distribute(config, request)

    config.amlcompute.vm_size = request.vm_size
    config.amlcompute.vm_priority = request.vm_priority
    config.amlcompute._cluster_max_node_count = request.node_count
    config.target = request.compute_target or "amlcompute"

    _environment(config, request, source_directory)
    config.environment_variables = request.environment_variables
    config.max_run_duration_seconds = request.max_run_duration_seconds
    return config


def _distribute(config: RunConfiguration, request: Request) -> None:
    """Framework and communicator; an object of a class not named here distributes nothing."""
    backend, training = request.distributed_backend, request.distributed_training
    if backend and backend.lower() == "mpi":
        config.communicator = "IntelMpi"
        config.mpi.process_count_per_node = request.process_count_per_node
    if is_a(training, "MpiConfiguration"):
        config.communicator = "IntelMpi"
        config.mpi = training
    elif is_a(training, "ParallelTaskConfiguration"):
        config.communicator = "ParallelTask"
        config.paralleltask = training
    elif is_a(training, "DistributedTraining", "_DistributedTraining"):
        config.communicator = type(training).__name__
        config.framework = training._get_framework()
        if is_a(training, "Mpi"):
            config.mpi = training._get_configuration()
        if is_a(training, "ParameterServer"):
            config.tensorflow = training._get_configuration()


def _environment(config: RunConfiguration, request: Request, source_directory: str) -> None:
    given = request.environment_definition
    if given:
        # The object itself and no copy: what the user changes in it afterwards still counts.
        config.environment = given
        if given.docker:
            config.docker = DockerConfiguration(
                use_docker=given.docker.enabled,
                shared_volumes=given.docker.shared_volumes,
                arguments=given.docker.arguments,
                shm_size=given.docker.shm_size,
            )
        return
    config.docker = DockerConfiguration(use_docker=request.use_docker, shm_size=request.shm_size)
    environment = config.environment
    environment.python.conda_dependencies = _packages(request, source_directory)
    environment.python.user_managed_dependencies = request.user_managed
    environment.spark.precache_packages = False
    default = frameworks.DEFAULT_GPU_IMAGE if request.use_gpu else frameworks.DEFAULT_CPU_IMAGE
    environment.docker.base_image = request.image or default
    if request.image_registry_details:
        environment.docker.base_image_registry = request.image_registry_details


def _packages(request: Request, source_directory: str) -> CondaDependencies:
    """
    Raises:
        UserErrorException: a file of packages is not inside the source folder.
    """
    pip = list(request.pip_packages or ())
    if request.pip_file:
        with open(_inside(source_directory, request.pip_file), encoding="utf-8") as stream:
            lines = stream.read().splitlines()
        pip = CondaDependencies.merge_requirements(_union(lines, pip))
    if request.conda_file:
        return CondaDependencies(_inside(source_directory, request.conda_file))
    dependencies = CondaDependencies()
    if pip:
        dependencies.set_pip_requirements(["azureml-defaults", *pip])
    for package in request.conda_packages or ():
        dependencies.add_conda_package(package)
    return dependencies


def _inside(source_directory: str, name: str) -> str:
    path = os.path.normpath(os.path.join(source_directory, name))
    if not os.path.isfile(path):
        raise UserErrorException(
            f"{path} path doesn't exist. The file of packages should be inside the project folder"
        )
    return path


def _union(first: list[str], second: Iterable[str]) -> list[str]:
    return [*first, *(item for item in second if item not in first)]
