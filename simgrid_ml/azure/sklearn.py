"""``SKLearn``: scikit-learn on one node, CPU only."""

from __future__ import annotations

import logging
from typing import Any

from simgrid_ml.azure._validation import Request
from simgrid_ml.azure.environment import ContainerRegistry, Environment
from simgrid_ml.azure.framework_estimator import FrameworkEstimator

__all__ = ["SKLearn"]


class SKLearn(FrameworkEstimator):
    """scikit-learn; the parameters are those of ``PyTorch`` that make sense on a single node."""

    FRAMEWORK_NAME = "SKLearn"
    DEFAULT_VERSION = "0.20.3"

    def __init__(
        self,
        source_directory: str | None,
        *,
        compute_target: Any = None,
        vm_size: str | None = None,
        vm_priority: str | None = None,
        entry_script: str | None = None,
        script_params: dict[Any, Any] | None = None,
        use_docker: bool = True,
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
        logging.getLogger("azureml.train.sklearn").warning(
            "'SKLearn' estimator is deprecated. Please use 'ScriptRunConfig' with your own or a "
            "curated environment"
        )
        self._configure_framework(request, framework_version, _enable_optimized_mode)
        self._warn_of_odd_inputs()
