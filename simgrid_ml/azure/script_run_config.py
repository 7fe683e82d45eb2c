"""``ScriptRunConfig``: a script, or a command, with a run configuration."""

from __future__ import annotations

import logging
from typing import Any

from simgrid_ml.azure.element import is_a
from simgrid_ml.azure.environment import Environment
from simgrid_ml.azure.errors import RunConfigurationException
from simgrid_ml.azure.estimator import checkpoint
from simgrid_ml.azure.lint import odd_inputs
from simgrid_ml.azure.runconfig import (
    DockerConfiguration,
    EnvironmentDefinition,
    RunConfiguration,
)

__all__ = ["ScriptRunConfig"]

_root = logging.getLogger()
_lint_log = logging.getLogger("simgrid_ml.azure")
_THIRTY_DAYS = 2592000


class ScriptRunConfig:
    """What replaced the estimators in Azure ML.

    Args:
        source_directory: local folder with all code; the whole of it goes to every node.
        script: path inside it.
        arguments: list of what follows the script.
        run_config: a finished configuration; the parameters after it are then ignored.
        compute_target: a compute target or its name; ``"local"`` by default.
        environment: with what the script runs.
        distributed_job_config: an ``MpiConfiguration``, which says how many nodes as well.
        resume_from: a ``DataPath``, given to the script as ``--resume-from``.
        max_run_duration_seconds: cancel the run after that.
        command: a list or a line, instead of ``script`` and ``arguments``.
        docker_runtime_config: wins over the environment's Docker section.

    Raises:
        RunConfigurationException: an object of the wrong class.
    """

    MAX_DURATION_SECONDS_DEFAULT = _THIRTY_DAYS

    def __init__(
        self,
        source_directory: str | None,
        script: str | None = None,
        arguments: list[Any] | None = None,
        run_config: RunConfiguration | None = None,
        _telemetry_values: Any = None,
        compute_target: Any = None,
        environment: Environment | None = None,
        distributed_job_config: Any = None,
        resume_from: Any = None,
        max_run_duration_seconds: int = MAX_DURATION_SECONDS_DEFAULT,
        command: Any = None,
        docker_runtime_config: DockerConfiguration | None = None,
    ) -> None:
        self.source_directory = source_directory
        self.script = script
        self.command = command
        self.arguments = arguments
        self._compute_target = None
        self._distributed_backend = None
        if run_config:
            others = (compute_target, environment, distributed_job_config, docker_runtime_config)
            if any(others) or max_run_duration_seconds != _THIRTY_DAYS:
                _root.warning(
                    "with 'run_config' given, 'compute_target', 'environment', "
                    "'distributed_job_config', 'max_run_duration_seconds' and "
                    "'docker_runtime_config' are ignored"
                )
            self._take_from(run_config)
            self.run_config = run_config
        else:
            self._compute_target = compute_target
            self._distributed_backend = distributed_job_config
            self.run_config = _built(
                compute_target, environment, distributed_job_config, docker_runtime_config
            )
            self.run_config.max_run_duration_seconds = max_run_duration_seconds
        if resume_from:
            reference = checkpoint(resume_from)
            self.arguments = [*(self.arguments or ()), "--resume-from", str(reference)]
            self.run_config.data_references[reference.data_reference_name] = reference.to_config()
        self._telemetry_values = _telemetry_values
        for sentence in odd_inputs(
            self.run_config,
            script=self.script,
            source_directory=source_directory or ".",
            distributed=self._distributed_backend,
        ):
            _lint_log.warning(sentence)

    def _take_from(self, run_config: RunConfiguration) -> None:
        for name in ("script", "arguments", "command"):
            theirs = getattr(run_config, name)
            if not theirs:
                continue
            if getattr(self, name):
                _root.warning("%r is given here and in 'run_config': the one here is used", name)
            else:
                setattr(self, name, theirs)


def _built(
    compute_target: Any, environment: Any, distribution: Any, docker: Any
) -> RunConfiguration:
    config = RunConfiguration()
    config.target = compute_target or "local"
    config.environment = environment or EnvironmentDefinition("default-environment")
    if distribution:
        _distribute(config, distribution)
    if docker:
        if not is_a(docker, "DockerConfiguration"):
            raise RunConfigurationException(
                f"docker_runtime_config is a DockerConfiguration, not a {type(docker).__name__}"
            )
        config.docker = docker
    elif environment and environment.docker:
        config.docker = DockerConfiguration(
            use_docker=environment.docker.enabled,
            shared_volumes=environment.docker.shared_volumes,
            arguments=environment.docker.arguments,
            shm_size=environment.docker.shm_size,
        )
    return config


def _distribute(config: RunConfiguration, distribution: Any) -> None:
    if is_a(distribution, "TensorflowConfiguration"):
        config.tensorflow = distribution
        config.framework, config.communicator = "TensorFlow", "ParameterServer"
        config.node_count = distribution.worker_count  # parameter servers share their nodes
    elif is_a(distribution, "MpiConfiguration"):
        config.mpi = distribution
        config.framework, config.communicator = "Python", "IntelMpi"
        config.node_count = distribution.node_count
    elif is_a(distribution, "PyTorchConfiguration"):
        config.pytorch = distribution
        config.framework, config.communicator = "PyTorch", distribution.communication_backend
        config.node_count = distribution.node_count
    else:
        raise RunConfigurationException(
            "distributed_job_config is an MpiConfiguration, a TensorflowConfiguration or a "
            f"PyTorchConfiguration, not a {type(distribution).__name__}"
        )
