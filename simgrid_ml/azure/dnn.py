"""The framework estimators: a version of the framework comes with them, Horovod included."""

from __future__ import annotations

import logging
from typing import Any

from simgrid_ml.azure import frameworks
from simgrid_ml.azure._validation import Request
from simgrid_ml.azure.conda_dependencies import CondaDependencies, package_name
from simgrid_ml.azure.distributed import Gloo, Mpi, Nccl, ParameterServer
from simgrid_ml.azure.element import is_a
from simgrid_ml.azure.environment import ContainerRegistry, Environment
from simgrid_ml.azure.errors import TrainingException, not_emulated
from simgrid_ml.azure.estimator import MMLBaseEstimator, prepare_for_notebook

__all__ = [
    "Chainer",
    "FrameworkEstimator",
    "Gloo",
    "Mpi",
    "Nccl",
    "ParameterServer",
    "PyTorch",
    "TensorFlow",
]

_log = logging.getLogger("azureml.train.estimator._framework_base_estimator")

# No ready-made framework images there: everything is built in full.
_REGIONS_WITHOUT_IMAGES = (
    "chinaeast2",
    "usgovarizona",
    "usgovvirginia",
    "usnateast",
    "usnatwest",
)


class FrameworkEstimator(MMLBaseEstimator):
    """Base of the estimators that bring a framework along."""

    FRAMEWORK_NAME: str
    DEFAULT_VERSION: str

    @classmethod
    def get_supported_versions(cls) -> list[str]:
        return frameworks.versions(cls.FRAMEWORK_NAME)

    @property
    def framework_version(self) -> str:
        return self._framework_version

    def _configure_framework(
        self, request: Request, framework_version: str | None, optimized: bool
    ) -> None:
        """Everything the generic estimator does, and the framework's packages and image."""
        if request.environment_definition or request.conda_file:
            _log.warning(
                "no framework packages are installed: environment_definition or a conda "
                "dependencies file says what is"
            )
        self._framework_processor = "gpu" if request.use_gpu else "cpu"
        self._configure(request)
        self._framework_version = self._checked(framework_version)
        given = request.environment_definition
        if not (given and given.python and given.python.user_managed_dependencies):
            if self._takes_ready_image(request, optimized):
                self._use_ready_image()
            elif not given:
                self._build_in_full(request)
        if request.is_notebook:
            prepare_for_notebook(self.run_config, request)

    def _checked(self, version: str | None) -> str:
        supported = self.get_supported_versions()
        if version is None:
            python = self.run_config.environment.python
            if not python.user_managed_dependencies and len(supported) > 1:
                _log.warning(
                    "framework_version is not specified, defaulting to version %s",
                    self.DEFAULT_VERSION,
                )
            return self.DEFAULT_VERSION
        if version not in supported:
            name = self.FRAMEWORK_NAME
            raise TrainingException(
                f"{name} {version} is not currently supported by the {name} estimator. "
                f"Supported: {', '.join(supported)}; for others use the generic Estimator"
            )
        return version

    def _has_own_packages(self) -> bool:
        return self.conda_dependencies.as_dict() != CondaDependencies().as_dict()

    def _takes_ready_image(self, request: Request, optimized: bool) -> bool:
        """Whether the service's ready-made image of the framework is used.

        Raises:
            TrainingException: ``optimized`` was asked for where it is not to be had.
        """
        target = request.compute_target
        far = is_a(target, "AmlCompute") and (
            getattr(target, "location", None) in _REGIONS_WITHOUT_IMAGES
        )
        if far and optimized:
            _log.warning("optimized mode is not supported in region %s", target.location)
            optimized = False
        elsewhere = bool(target) and not is_a(target, "AmlCompute")
        own_image = (
            request.environment_definition is not None or request.custom_docker_image is not None
        )
        for obstacle, what in (
            (elsewhere, "non-AmlCompute targets"),
            (own_image, "environment_definition and custom_docker_image"),
            (request.is_notebook, "notebooks"),
        ):
            if obstacle and optimized:
                raise TrainingException(f"Optimized mode is not supported for {what}.")
        if far or elsewhere or own_image or request.is_notebook:
            return False
        return optimized or not self._has_own_packages()

    def _use_ready_image(self) -> None:
        docker, python = self.run_config.environment.docker, self.run_config.environment.python
        framework = self.FRAMEWORK_NAME.lower()
        docker.base_image = f"{framework}:{self._framework_version}-{self._framework_processor}"
        docker.base_image_registry.address = frameworks.FRAMEWORK_REGISTRY
        if self._has_own_packages():
            python._base_conda_environment = "base"
        else:
            python.user_managed_dependencies = True

    def _build_in_full(self, request: Request) -> None:
        name, version = self.FRAMEWORK_NAME, self._framework_version
        if not request.conda_file:
            brought = frameworks.dependencies(name, version)
            mine = {package_name(line) for line in self._named_packages()}
            overridden = [line for line in brought.pip_packages if package_name(line) in mine]
            if overridden:
                _log.warning(
                    "your packages override what Azure ML installs: %s; the build may fail",
                    [package_name(line) for line in overridden],
                )
            for line in overridden:
                brought.remove_pip_package(line)
            self.conda_dependencies._merge(brought)
        if request.custom_docker_image is None:
            self.run_config.environment.docker.base_image = frameworks.base_image(
                name, version, self._framework_processor
            )

    def _named_packages(self) -> list[str]:
        """The user's own packages: all but those every environment has."""
        default = CondaDependencies()
        common = {package_name(line) for line in (*default.pip_packages, *default.conda_packages)}
        named = (*self.conda_dependencies.pip_packages, *self.conda_dependencies.conda_packages)
        return [line for line in named if package_name(line) not in common]


class PyTorch(FrameworkEstimator):
    """PyTorch and Horovod; the parameters are those of ``Estimator``, and two more.

    Args:
        framework_version: one of ``get_supported_versions()``.
        _enable_optimized_mode: build on the ready-made image; changes the record only.
    """

    FRAMEWORK_NAME = "PyTorch"
    DEFAULT_VERSION = "1.4"
    _SUPPORTED_BACKENDS = ("mpi", "gloo", "nccl")

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
        framework_version: str | None = None,
        _enable_optimized_mode: bool = False,
        _disable_validation: bool = True,
        _show_lint_warnings: bool = False,
        _show_package_warnings: bool = False,
    ) -> None:
        request = Request.of(locals())
        logging.getLogger("azureml.train.dnn._pytorch").warning(
            "'PyTorch' estimator is deprecated. Please use 'ScriptRunConfig' with your own or a "
            "curated PyTorch environment"
        )
        self._configure_framework(request, framework_version, _enable_optimized_mode)
        # NCCL 2.4 hangs under Horovod with trees; the service sets this for every PyTorch run.
        self.run_config.environment.environment_variables["NCCL_TREE_THRESHOLD"] = "0"
        if distributed_backend and distributed_backend.lower() in ("gloo", "nccl"):
            self.run_config.framework = "PyTorch"
            self.run_config.communicator = distributed_backend.lower()
        self._warn_of_odd_inputs()


class TensorFlow:
    """Not emulated yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise not_emulated(
            "the TensorFlow estimator",
            remedy="use Estimator with pip_packages=['tensorflow']",
            later=True,
        )


class Chainer:
    """Not emulated yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise not_emulated(
            "the Chainer estimator",
            remedy="use Estimator with pip_packages=['chainer', 'mpi4py']",
            later=True,
        )
