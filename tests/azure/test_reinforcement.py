"""``ReinforcementLearningEstimator``: what it accepts, and the job it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.azure.errors import TrainingException, UserErrorException
from simgrid_ml.azure.reinforcement import (
    Ray,
    ReinforcementLearningEstimator,
    WorkerConfiguration,
)
from simgrid_ml.azure.submission import plan
from simgrid_ml.spec.job import RayCluster


class AmlCompute:
    name = "cluster"


CLUSTER = AmlCompute()


def estimator(folder: Path, **more: Any) -> ReinforcementLearningEstimator:
    (folder / "train.py").write_text("")
    return ReinforcementLearningEstimator(
        str(folder), entry_script="train.py", compute_target=CLUSTER, **more
    )


def test_the_head_and_its_workers_are_nodes_of_one_job(tmp_path: Path) -> None:
    submission = plan(
        estimator(
            tmp_path,
            script_params={"--iterations": 3},
            rl_framework=Ray("0.8.3", ["--log-color", "false"]),
            cluster_coordination_timeout_seconds=60,
            max_run_duration_seconds=600,
            environment_variables={"A": "b"},
            pip_packages=["gymnasium"],
            worker_configuration=WorkerConfiguration(2, pip_packages=["tabulate"]),
        )
    )
    job = submission.job
    assert job.distribution == RayCluster(
        nodes=3, head_arguments=("--log-color", "false"), join_timeout_s=60
    )
    assert job.arguments == ("--iterations", "3")
    assert job.environment.pip == ("gymnasium", "tabulate", "ray")
    assert job.variables["A"] == "b"
    assert job.max_run_s == 600
    assert any("Ray 0.8.3" in each for each in submission.warnings)


def test_without_workers_the_head_is_alone(tmp_path: Path) -> None:
    assert plan(estimator(tmp_path)).job.distribution == RayCluster(nodes=1)


def test_a_ray_that_the_user_names_is_the_one_installed(tmp_path: Path) -> None:
    packages = plan(estimator(tmp_path, pip_packages=["ray[rllib]==2.60.0"])).job.environment.pip
    assert packages == ("ray[rllib]==2.60.0",)


def test_versions_of_then_are_accepted_and_others_refused() -> None:
    assert Ray().version == "0.8.0"
    assert Ray.supported_versions() == ["0.8.0", "0.8.3"]
    with pytest.raises(UserErrorException, match=r"Version 2\.60 of Framework Ray is not"):
        Ray("2.60")


@pytest.mark.parametrize("count", [0, -1, "2", None])
def test_workers_are_a_positive_number(count: Any) -> None:
    with pytest.raises(UserErrorException, match="at least 1"):
        WorkerConfiguration(count)


def test_no_time_to_join_in_is_the_default_as_in_the_sdk(tmp_path: Path) -> None:
    config = estimator(tmp_path, cluster_coordination_timeout_seconds=0)
    assert plan(config).job.distribution == RayCluster(nodes=1)


@pytest.mark.parametrize("seconds", [-3, "60"])
def test_a_time_to_join_in_is_above_zero(tmp_path: Path, seconds: Any) -> None:
    with pytest.raises(UserErrorException, match="cluster_coordination_timeout_seconds"):
        estimator(tmp_path, cluster_coordination_timeout_seconds=seconds)


def test_what_is_no_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserErrorException, match="worker_configuration is a WorkerConfiguration"):
        estimator(tmp_path, worker_configuration={"node_count": 2})
    with pytest.raises(UserErrorException, match="rl_framework is a RLFramework"):
        estimator(tmp_path, rl_framework="ray")


def test_nothing_can_be_overridden_at_the_submission(tmp_path: Path) -> None:
    with pytest.raises(TrainingException, match="script_params"):
        plan(estimator(tmp_path), script_params={"--x": 1})


def test_what_of_the_workers_is_not_used_is_said(tmp_path: Path) -> None:
    submission = plan(
        estimator(
            tmp_path,
            worker_configuration=WorkerConfiguration(
                1, compute_target="other", conda_dependencies_file="c.yml"
            ),
        )
    )
    assert "conda_dependencies_file, compute_target" in submission.warnings[1]


def test_options_in_one_text_are_refused() -> None:
    with pytest.raises(UserErrorException, match="framework_arguments is a list of options"):
        Ray(framework_arguments="--log-color false")  # type: ignore[arg-type]
