"""``ReinforcementLearningEstimator``: a script beside Ray's head, and Ray on every other node.

Azure ML promised Ray 0.8 with its RLlib, which have no build for a Python that is still
maintained. Today's Ray is installed instead; RLlib only if the packages name it.
"""

from __future__ import annotations

import logging
from typing import Any

from simgrid_ml.azure._validation import Request
from simgrid_ml.azure.conda_dependencies import package_name
from simgrid_ml.azure.environment import Environment
from simgrid_ml.azure.errors import TrainingException, UserErrorException
from simgrid_ml.azure.estimator import MMLBaseEstimator
from simgrid_ml.azure.runconfig import HistoryConfiguration
from simgrid_ml.spec.job import RayCluster

__all__ = ["RLFramework", "Ray", "ReinforcementLearningEstimator", "WorkerConfiguration"]

_log = logging.getLogger("simgrid_ml.azure")


class RLFramework:
    """Base of the frameworks: there is one.

    Args:
        version: one of ``supported_versions()``.
        framework_arguments: more options of ``ray start`` on the head.
        args, kwargs: ignored, as by the SDK.

    Raises:
        UserErrorException: the version is not one of them, or the options are no list.
    """

    _name = ""
    _versions: tuple[str, ...] = ("",)

    def __init__(
        self,
        version: str | None = None,
        framework_arguments: list[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.version = version or self.default_framework_version()
        if isinstance(framework_arguments, str):
            raise UserErrorException(
                f"framework_arguments is a list of options, not the text {framework_arguments!r}"
            )
        self.framework_arguments = framework_arguments
        if self.version not in self._versions:
            raise UserErrorException(
                f"Version {version} of Framework {self._name} is not currently supported, "
                f"supported versions are: {list(self._versions)}"
            )

    @classmethod
    def default_framework_version(cls) -> str:
        return cls._versions[0]

    @classmethod
    def supported_versions(cls) -> list[str]:
        return list(cls._versions)

    @property
    def name(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"{self.name}-{self.version}".lower()


class Ray(RLFramework):
    """Ray, in a version of then; the run says which it got."""

    _name = "Ray"
    _versions = ("0.8.0", "0.8.3")


class WorkerConfiguration:
    """The nodes that are not the head.

    Args:
        node_count: how many.
        compute_target: here always that of the estimator, of whose cluster all nodes are.
        environment, shm_size, history, use_gpu: taken from the estimator.
        pip_packages, conda_packages: installed in the one environment that all nodes share.

    Raises:
        UserErrorException: ``node_count`` is not a positive number.
    """

    def __init__(
        self,
        node_count: int,
        compute_target: Any = None,
        environment: Environment | None = None,
        shm_size: str | None = "2g",
        history: HistoryConfiguration | None = None,
        use_gpu: bool = False,
        pip_packages: list[str] | None = None,
        conda_packages: list[str] | None = None,
        conda_dependencies_file: str | None = None,
        pip_requirements_file: str | None = None,
    ) -> None:
        if not isinstance(node_count, int) or node_count < 1:
            raise UserErrorException(f"node_count should be at least 1, not {node_count!r}")
        self.node_count = node_count
        self.target = getattr(compute_target, "name", compute_target)
        self.environment = environment
        self.shm_size = shm_size
        self.history = history or HistoryConfiguration()
        self._packages = {"pip": pip_packages or [], "conda": conda_packages or []}
        self._ignored = [
            name
            for name, value in (
                ("environment", environment),
                ("conda_dependencies_file", conda_dependencies_file),
                ("pip_requirements_file", pip_requirements_file),
            )
            if value
        ]


class ReinforcementLearningEstimator(MMLBaseEstimator):
    """Runs ``entry_script`` on the head node; it finds the others by ``ray.init("auto")``.

    The run ends when the script does. There are no child runs: the tasks ``head-0``, ``worker-0``
    … have a log each. The parameters are those of ``Estimator``, and:

    Args:
        environment: instead of the packages; it has to contain ray.
        rl_framework: a ``Ray``.
        cluster_coordination_timeout_seconds: all nodes must have joined by then; None or 0: 120.
        worker_configuration: the nodes beside the head; None: there are none.

    Raises:
        UserErrorException: ``rl_framework`` or ``worker_configuration`` is something else, or a
            time is negative or no number.
    """

    def __init__(
        self,
        source_directory: str | None,
        *,
        environment: Environment | None = None,
        entry_script: str | None = None,
        script_params: dict[Any, Any] | None = None,
        compute_target: Any = None,
        use_gpu: bool | None = None,
        pip_packages: list[str] | None = None,
        conda_packages: list[str] | None = None,
        environment_variables: dict[str, str] | None = None,
        rl_framework: RLFramework | None = None,
        cluster_coordination_timeout_seconds: int | None = None,
        max_run_duration_seconds: int | None = None,
        worker_configuration: WorkerConfiguration | None = None,
        conda_dependencies_file: str | None = None,
        pip_requirements_file: str | None = None,
        shm_size: str | None = None,
        inputs: list[Any] | None = None,
    ) -> None:
        self.framework = rl_framework or Ray()
        self.worker_configuration = worker_configuration
        for what, value, kind in (
            ("rl_framework", self.framework, RLFramework),
            ("worker_configuration", worker_configuration, WorkerConfiguration),
        ):
            if value is not None and not isinstance(value, kind):
                raise UserErrorException(
                    f"{what} is a {kind.__name__}, not a {type(value).__name__}"
                )
        joined_s = cluster_coordination_timeout_seconds or None  # 0 is the SDK's default, too
        if joined_s is not None and not (isinstance(joined_s, (int, float)) and joined_s > 0):
            raise UserErrorException(
                f"cluster_coordination_timeout_seconds should be above 0, not {joined_s!r}"
            )
        self._asked_environment = environment
        self._configure(
            Request(
                source_directory=source_directory,
                compute_target=compute_target,
                entry_script=entry_script,
                script_params=script_params,
                use_gpu=use_gpu or False,
                pip_packages=pip_packages,
                conda_packages=conda_packages,
                conda_dependencies_file=conda_dependencies_file,
                pip_requirements_file=pip_requirements_file,
                environment_definition=environment,
                inputs=inputs,
                shm_size=shm_size,
                max_run_duration_seconds=max_run_duration_seconds,
            )
        )
        self.run_config.environment_variables = environment_variables or {}
        if environment is None and conda_dependencies_file is None:
            self._add_packages()
        workers = worker_configuration.node_count if worker_configuration else 0
        self._distribution = RayCluster(
            nodes=1 + workers,
            head_arguments=tuple(map(str, self.framework.framework_arguments or ())),
            **({} if joined_s is None else {"join_timeout_s": float(joined_s)}),
        )
        self.run_config.framework = "Ray"
        self._notes = self._what_differs()
        for sentence in self._notes:
            _log.warning(sentence)

    def _add_packages(self) -> None:
        worker = self.worker_configuration
        packages = worker._packages if worker else {"pip": [], "conda": []}
        for line in packages["conda"]:
            self.conda_dependencies.add_conda_package(line)
        named = {package_name(line) for line in self.conda_dependencies.pip_packages}
        for line in packages["pip"]:
            self.conda_dependencies.add_pip_package(line)
        if "ray" not in named | {package_name(line) for line in packages["pip"]}:
            self.conda_dependencies.add_pip_package("ray")

    def _what_differs(self) -> tuple[str, ...]:
        """One sentence for each thing that is not as Azure ML would have it."""
        notes = []
        if self._asked_environment is None:
            notes.append(
                f"Ray {self.framework.version} and its RLlib have no build for this Python: the "
                "newest Ray is installed, and RLlib only if pip_packages name ray[rllib]"
            )
        worker = self.worker_configuration
        if worker is not None:
            ignored = list(worker._ignored)
            if worker.target not in (None, getattr(self._compute_target, "name", None)):
                ignored.append("compute_target")
            if ignored:
                notes.append(
                    f"{', '.join(ignored)} of the WorkerConfiguration: not used; the workers are "
                    "nodes of the estimator's cluster, in its environment"
                )
        return tuple(notes)

    def _refuse_overrides(self, names: list[str]) -> None:
        """
        Raises:
            TrainingException: there are any; this estimator takes none at the submission.
        """
        if names:
            raise TrainingException(
                f"{names} parameters cannot be overridden. Currently there are no parameters that "
                "can be overridden for this estimator."
            )
