"""``PyTorch``, ``TensorFlow`` and ``Chainer``: the framework comes with them, Horovod included."""

from __future__ import annotations

import logging
from typing import Any

from simgrid_ml.azure._validation import Request
from simgrid_ml.azure.distributed import Gloo, Mpi, Nccl, ParameterServer
from simgrid_ml.azure.element import is_a
from simgrid_ml.azure.environment import ContainerRegistry, Environment
from simgrid_ml.azure.framework_estimator import FrameworkEstimator

__all__ = ["Chainer", "Gloo", "Mpi", "Nccl", "ParameterServer", "PyTorch", "TensorFlow"]

_root = logging.getLogger()


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


class TensorFlow(FrameworkEstimator):
    """TensorFlow and Horovod; the parameters are those of ``PyTorch``, and two more.

    Args:
        worker_count: workers, with ``distributed_backend="ps"`` only; older than
            ``distributed_training=TensorflowConfiguration(...)``.
        parameter_server_count: likewise.
    """

    FRAMEWORK_NAME = "TensorFlow"
    DEFAULT_VERSION = "1.13"
    _SUPPORTED_BACKENDS = ("mpi", "ps")

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
        worker_count: int = 1,
        parameter_server_count: int = 1,
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
        logging.getLogger("azureml.train.dnn._tensorflow").warning(
            "'TensorFlow' estimator is deprecated. Please use 'ScriptRunConfig' with your own or "
            "a curated TensorFlow environment"
        )
        counts = {"worker_count": worker_count, "parameter_server_count": parameter_server_count}
        self._asked_tasks = {name: count for name, count in counts.items() if count != 1}
        for name in self._asked_tasks:
            _root.warning("%r will be deprecated; set it in 'distributed_training'", name)
        if self._asked_tasks and distributed_backend is None:
            _root.warning(
                "'parameter_server_count' and 'worker_count' are used only together with "
                "'distributed_backend'; set them in 'distributed_training'"
            )
        self._configure_framework(request, framework_version, _enable_optimized_mode)
        config = self.run_config
        if distributed_backend and distributed_backend.lower() == "ps":
            config.framework, config.communicator = "TensorFlow", "ParameterServer"
            config.tensorflow.worker_count = worker_count
            config.tensorflow.parameter_server_count = parameter_server_count
        if is_a(distributed_training, "TensorflowConfiguration"):
            config.framework, config.communicator = "TensorFlow", "ParameterServer"
            config.tensorflow = distributed_training
        self._warn_of_odd_inputs()


class Chainer(FrameworkEstimator):
    """Chainer with ChainerMN over MPI; the parameters are those of ``PyTorch``."""

    FRAMEWORK_NAME = "Chainer"
    DEFAULT_VERSION = "5.1.0"

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
        logging.getLogger("azureml.train.dnn._chainer").warning(
            "'Chainer' estimator is deprecated. Please use 'ScriptRunConfig' with your own or a "
            "curated Chainer environment"
        )
        self._configure_framework(request, framework_version, _enable_optimized_mode)
        self._warn_of_odd_inputs()
