"""What the estimators that bring a framework add to the generic one: its packages and its image.

Which of both the service's SDK writes down depends on much else that was asked for; the rules here
are its own, in its order.
"""

from __future__ import annotations

import logging

from simgrid_ml.azure import frameworks
from simgrid_ml.azure._validation import Request
from simgrid_ml.azure.conda_dependencies import CondaDependencies, package_name
from simgrid_ml.azure.element import is_a
from simgrid_ml.azure.errors import TrainingException
from simgrid_ml.azure.estimator import MMLBaseEstimator, prepare_for_notebook

__all__ = ["FrameworkEstimator"]

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
        if optimized:
            _log.warning("optimized mode: packages are added to the ready-made framework image")
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
            brought = frameworks.dependencies(name, version, self._framework_processor)
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
