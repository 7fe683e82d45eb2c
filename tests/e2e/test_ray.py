"""Today's Ray across virtual nodes, through ``ReinforcementLearningEstimator``."""

from __future__ import annotations

from pathlib import Path

import pytest

from simgrid_ml.azure import Experiment, Workspace
from simgrid_ml.azure.compute import AmlCompute, ComputeTarget
from simgrid_ml.azure.reinforcement import ReinforcementLearningEstimator, WorkerConfiguration
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.process import shared_folder
from simgrid_ml.spec.job import EnvironmentSpec, RayCluster
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.runs import Runs, cause, log

RAY = EnvironmentSpec(pip=("ray",))
"""What the estimator asks for when nothing else is named."""

SCRIPT = """
import os, socket, sys
import ray

ray.init(address="auto", log_to_driver=False)
alive = [node for node in ray.nodes() if node["Alive"]]
print("nodes", len(alive), sys.argv[1:])

@ray.remote(num_cpus=1)
class Half:
    def where(self):
        return os.environ["SIMGRID_ML_NODE"], socket.gethostname()

    def sum(self, numbers):
        return sum(numbers)

halves = [Half.options(scheduling_strategy="SPREAD").remote() for _ in alive]
print("where", sorted(ray.get([half.where.remote() for half in halves])))
parts = [half.sum.remote(list(range(n, 1000, len(alive)))) for n, half in enumerate(halves)]
with open("outputs/sum", "w") as stream:
    stream.write(str(sum(ray.get(parts))))
"""


def test_an_estimator_s_script_finds_ray_on_every_node(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.py").write_text(SCRIPT)
    with nothing_left(str(tmp_path)):
        workspace = Workspace.local()
        size = AmlCompute.provisioning_configuration(
            vm_size="STANDARD_D2_V2", max_nodes=2, idle_seconds_before_scaledown=0
        )
        estimator = ReinforcementLearningEstimator(
            str(source),
            entry_script="train.py",
            script_params={"--seed": 1},
            compute_target=ComputeTarget.create(workspace, "cluster", size),
            worker_configuration=WorkerConfiguration(1),
        )
        run = Experiment(workspace, "rl").submit(estimator)
        run.wait_for_completion()
        written = log(run._record, "-head-0")
        run.download_file("outputs/sum", str(tmp_path / "sum"))
    assert (tmp_path / "sum").read_text() == "499500"
    assert "nodes 2 ['--seed', '1']" in written
    assert "where [('node0', 'node0'), ('node1', 'node1')]" in written


def test_an_environment_without_ray_is_told_as_such(workspace: Runs) -> None:
    record = workspace.failed("", distribution=RayCluster(nodes=2))
    assert (record.error() or {})["evidence"] == (
        "the job's environment has no program `ray`: add ray to its packages"
    )


def test_ray_s_sockets_have_names_that_fit_where_nodes_have_no_mounts_of_their_own() -> None:
    longest = "ray/session_2026-11-21_18-14-57_635646_4194304/sockets/plasma_store"
    assert len(f"{shared_folder('/any')}/node999/{longest}") <= 107  # else Ray does not start


def test_containers_serve_as_well_and_the_script_s_failure_is_the_cause(
    tmp_path: Path, docker_engine: Engine
) -> None:
    with nothing_left(str(tmp_path)):
        record = Runs(str(tmp_path), RAY).run(
            SCRIPT + "raise ValueError('after all that')",
            distribution=RayCluster(nodes=2),
            cluster={"backend": "docker"},
        )
    assert "head 0 on node0 exited with code 1" in cause(record)
    written = log(record, "-head-0")
    assert "ValueError: after all that" in written
    assert "where [('node0', 'node0'), ('node1', 'node1')]" in written


@pytest.mark.parametrize(
    ("distribution", "words"),
    [
        (RayCluster(head_arguments=("--no-such-option",)), "No such option"),
        (RayCluster(join_timeout_s=0.01), "did not answer"),
    ],
)
def test_a_ray_that_does_not_come_up_ends_the_run(
    tmp_path: Path, distribution: RayCluster, words: str
) -> None:
    with nothing_left(str(tmp_path)):
        record = Runs(str(tmp_path), RAY).failed("print('never')", distribution=distribution)
    assert "head 0 on node0 exited with code 1" in cause(record)
    assert words in log(record, "-head-0")
