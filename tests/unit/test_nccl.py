"""Which jobs get Gloo for NCCL, and whether their record says so."""

from __future__ import annotations

import pytest

from simgrid_ml.engine.nccl import served_by_gloo
from simgrid_ml.environments.build import BuiltEnvironment
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import Distribution, JobSpec, Mpi, TorchDistributed

NCCL = TorchDistributed(nodes=2)


def served(
    distribution: Distribution = NCCL,
    backend: str = "process",
    build: str = "2.13.0",
    *,
    has_gpu: bool = True,
) -> tuple[tuple[str, ...], list[str]]:
    """Hooks and what is recorded."""
    built = BuiltEnvironment("python", "bin", "", True, (), {"torch": build}, hooks=("other",))
    job = JobSpec(source="/s", entry_script="t.py", distribution=distribution)
    cluster = ClusterSpec(name="c", max_nodes=2, backend=backend)
    found = served_by_gloo(built, job, cluster, host_has_gpu=has_gpu)
    return found.hooks, [str(one) for one in found.substitutions]


def test_a_job_that_asks_for_nccl_has_the_hook_and_no_gpu_is_recorded() -> None:
    hooks, told = served(has_gpu=False)
    assert hooks == ("other", "torch_gloo")
    assert told == ["NCCL -> Gloo: NCCL needs GPUs and the nodes have none; tensors are the CPU's"]


def test_with_gpus_the_hook_decides_and_nothing_is_recorded() -> None:
    assert served() == (("other", "torch_gloo"), [])


@pytest.mark.parametrize(("backend", "build"), [("docker", "2.13.0"), ("process", "2.13.0+cpu")])
def test_containers_and_builds_for_the_cpu_have_no_gpu_of_the_host(
    backend: str, build: str
) -> None:
    assert len(served(backend=backend, build=build)[1]) == 1


@pytest.mark.parametrize("distribution", [TorchDistributed(backend="gloo"), Mpi()])
def test_a_job_that_asks_for_something_else_is_left_alone(distribution: Distribution) -> None:
    assert served(distribution, has_gpu=False) == (("other",), [])
