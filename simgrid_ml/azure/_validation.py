"""What an estimator refuses, and which of its parameters it calls deprecated.

One function per rule, in the order in which the service's SDK applies them: with several mistakes
in one call the first decides which exception is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from simgrid_ml.azure.element import is_a
from simgrid_ml.azure.errors import (
    ComputeTargetException,
    TrainingException,
    UserErrorException,
)

__all__ = ["Request", "announce", "check"]

_root = logging.getLogger()
_log = logging.getLogger("azureml.train._estimator_helper")


@dataclass(frozen=True)
class Request:
    """The parameters all estimators share, as they were given."""

    source_directory: Any = None
    compute_target: Any = None
    vm_size: Any = None
    vm_priority: Any = None
    entry_script: Any = None
    script_params: Any = None
    node_count: Any = 1
    process_count_per_node: Any = 1
    distributed_backend: Any = None
    distributed_training: Any = None
    use_gpu: Any = False
    use_docker: Any = True
    custom_docker_base_image: Any = None
    custom_docker_image: Any = None
    image_registry_details: Any = None
    user_managed: Any = False
    conda_packages: Any = None
    pip_packages: Any = None
    conda_dependencies_file_path: Any = None
    pip_requirements_file_path: Any = None
    conda_dependencies_file: Any = None
    pip_requirements_file: Any = None
    environment_variables: Any = None
    environment_definition: Any = None
    inputs: Any = None
    source_directory_data_store: Any = None
    shm_size: Any = None
    resume_from: Any = None
    max_run_duration_seconds: Any = None

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Request:
        """The request in ``locals()`` of a constructor, which holds more than that."""
        return cls(
            **{one.name: parameters[one.name] for one in fields(cls) if one.name in parameters}
        )

    @property
    def conda_file(self) -> Any:
        return self.conda_dependencies_file or self.conda_dependencies_file_path

    @property
    def pip_file(self) -> Any:
        return self.pip_requirements_file or self.pip_requirements_file_path

    @property
    def image(self) -> Any:
        return self.custom_docker_image or self.custom_docker_base_image

    @property
    def is_notebook(self) -> bool:
        return bool(self.entry_script) and self.entry_script.lower().endswith(".ipynb")


def announce(request: Request) -> None:
    """Logs what is deprecated, to the loggers the SDK uses."""
    for old in ("conda_dependencies_file", "pip_requirements_file"):
        if getattr(request, f"{old}_path"):
            chosen = "and ignored" if getattr(request, old) else "for"
            _root.warning("'%s_path' is deprecated %s '%s'", old, chosen, old)
    if request.process_count_per_node != 1:
        _root.warning(
            "'process_count_per_node' will be deprecated; set it in 'distributed_training'"
        )
        if request.distributed_backend is None:
            _root.warning(
                "'process_count_per_node' is used only together with 'distributed_backend'"
            )
    if request.use_docker is False:
        _root.warning("'use_docker' will be deprecated; use 'environment_definition'")
    if request.distributed_backend:
        _root.warning("'distributed_backend' will be deprecated; use 'distributed_training'")
    if request.custom_docker_base_image and not request.custom_docker_image:
        _log.warning("'custom_docker_base_image' will be deprecated; use 'custom_docker_image'")


def check(request: Request, estimator: str, backends: Sequence[str]) -> None:
    """
    Args:
        request: what was given.
        estimator: name of the estimator's class.
        backends: the values of ``distributed_backend`` it takes.

    Raises:
        TrainingException, UserErrorException, ComputeTargetException: the first broken rule.
    """
    for problem in _problems(request, estimator, backends):
        raise problem


def _problems(request: Request, estimator: str, backends: Sequence[str]) -> Iterator[Exception]:
    yield from _images(request)
    yield from _packages(request)
    yield from _counts(request)
    yield from _distribution(request, estimator, backends)
    yield from _user_managed(request)
    yield from _undistributed(request)
    yield from _target(request)
    if request.custom_docker_base_image and request.custom_docker_image:
        yield TrainingException(
            "'custom_docker_base_image' is the older name of 'custom_docker_image': use "
            "'custom_docker_image' only"
        )


def _images(request: Request) -> Iterator[Exception]:
    if request.use_docker is False and request.image:
        yield TrainingException("with use_docker=False a custom_docker_image is not allowed")


def _packages(request: Request) -> Iterator[Exception]:
    lists = {
        "pip_packages": request.pip_packages,
        "pip_requirements_file": request.pip_file,
        "conda_packages": request.conda_packages,
    }
    if request.environment_definition:
        lists |= {
            "conda_dependencies_file": request.conda_file,
            "custom_docker_image": request.custom_docker_image,
            "image_registry_details": request.image_registry_details,
            "use_gpu": request.use_gpu,
            "user_managed": request.user_managed,
            "shm_size": request.shm_size,
            "environment_variables": request.environment_variables,
        }
        given = [name for name, value in lists.items() if value]
        if given:
            yield TrainingException(
                "If environment_definition is given, these cannot be specified: "
                f"{', '.join(lists)}. Found: {', '.join(given)}"
            )
    elif request.conda_file and any(lists.values()):
        yield TrainingException(
            "If a conda dependencies file is given, these cannot be specified: " + ", ".join(lists)
        )


def _counts(request: Request) -> Iterator[Exception]:
    if request.node_count < 1:
        yield TrainingException("Node count should be at least 1.")
    if request.process_count_per_node < 1:
        yield TrainingException("Process count per node should be at least 1.")


def _distribution(request: Request, estimator: str, backends: Sequence[str]) -> Iterator[Exception]:
    backend, training = request.distributed_backend, request.distributed_training
    only_mpi = list(backends) == ["mpi"]
    if backend and (
        backend.lower() not in backends
        or (only_mpi and training and not is_a(training, "MpiConfiguration"))
    ):
        yield TrainingException(
            f"Unsupported distributed backend value: {backend}. "
            f"Supported backend(s): {list(backends)}."
        )
    if is_a(training, "DistributedTraining", "_DistributedTraining"):
        supported = type(training)._supported_frameworks
        if estimator.lower() not in supported:
            yield TrainingException(
                f"Unsupported framework for {type(training).__name__}: {estimator}. "
                f"Supported frameworks: {', '.join(supported)}"
            )


def _user_managed(request: Request) -> Iterator[Exception]:
    packages = (
        request.conda_packages,
        request.pip_packages,
        request.conda_file,
        request.pip_file,
    )
    if request.user_managed and any(packages):
        yield UserErrorException(
            "If user_managed is True, no packages and no file of packages can be specified"
        )


def _undistributed(request: Request) -> Iterator[Exception]:
    several = request.node_count > 1 or request.process_count_per_node > 1
    if several and not request.distributed_backend and not request.distributed_training:
        yield TrainingException(
            "'distributed_backend' or 'distributed_training' must be specified when "
            "node_count or process_count_per_node is above 1"
        )


def _target(request: Request) -> Iterator[Exception]:
    target = request.compute_target
    if target and is_a(target, "HDInsightCompute"):
        yield ComputeTargetException(f"Unsupported compute target type: {type(target)}")
    if target is None and request.vm_size is None:
        yield TrainingException("Either compute target or VM size should be specified.")
    if request.node_count > 1 and target and not is_a(target, "AmlCompute", "KubernetesCompute"):
        yield TrainingException(
            "Compute target should be AmlCompute or KubernetesCompute for distributed training "
            "(node_count above 1); give the object, not its name"
        )
