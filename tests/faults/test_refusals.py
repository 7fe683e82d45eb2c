"""What cannot be run is refused in the caller's process, before anything exists."""

from __future__ import annotations

import os

import pytest

from simgrid_ml.errors import PlacementError, SimgridError, SnapshotError, SpecError
from simgrid_ml.spec.job import EnvironmentSpec, ParameterServer, TorchDistributed
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.runs import Runs


@pytest.fixture
def runs(tmp_path, environment: EnvironmentSpec):  # type: ignore[no-untyped-def]
    """A workspace in which no run may come to be."""
    with nothing_left(str(tmp_path)):
        runs = Runs(str(tmp_path), environment)
        yield runs
        assert runs.store.list() == []
        assert not os.path.exists(runs.store.folder("runs")) or not os.listdir(
            runs.store.folder("runs")
        )


def refused(kind: type[SimgridError], runs: Runs, **job: object) -> str:
    with pytest.raises(kind) as caught:
        runs.submit(None, **job)  # type: ignore[arg-type]
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_missing_entry_script(runs: Runs) -> None:
    source = runs.source({"other.py": ""})
    said = refused(SpecError, runs, source=source, entry_script="train.py")
    assert "'train.py' does not exist" in said and source in said


@pytest.mark.parametrize("script", ["../outside.py", "/etc/passwd", "a/../../outside.py"])
def test_a_script_outside_the_folder(runs: Runs, script: str) -> None:
    source = runs.source({"train.py": "", "../outside.py": ""})
    assert "outside the source folder" in refused(
        SpecError, runs, source=source, entry_script=script
    )


def test_a_folder_for_a_script(runs: Runs) -> None:
    source = runs.source({"train/a.py": ""})
    assert "does not exist" in refused(SpecError, runs, source=source, entry_script="train")


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"distribution": TorchDistributed(backend="mpi")}, "job.distribution.backend: Invalid"),
        (
            {"distribution": ParameterServer(server_grace_s=-1)},
            "job.distribution.server_grace_s: Expected `float` >= 0",
        ),
        ({"launch_timeout_s": 0}, "job.launch_timeout_s: Expected `float` > 0"),
    ],
)
def test_a_value_that_is_none_of_those_there_are(
    runs: Runs, job: dict[str, object], said: str
) -> None:
    source = runs.source({"train.py": ""})
    assert said in refused(SpecError, runs, source=source, entry_script="train.py", **job)


def test_a_missing_source_folder(runs: Runs) -> None:
    assert "does not exist" in refused(
        SpecError, runs, source="/no/such/folder", entry_script="t.py"
    )


def test_a_snapshot_over_the_limit(runs: Runs) -> None:
    source = runs.source({"train.py": "", "data.bin": "x" * 5000})
    said = refused(
        SnapshotError, runs, source=source, entry_script="train.py", snapshot_limit_bytes=4096
    )
    assert "exceeds the limit" in said and "data.bin" in said


def test_a_source_folder_over_azure_s_limit(runs: Runs) -> None:
    source = runs.source({"train.py": ""})
    with open(os.path.join(source, "weights.bin"), "wb") as stream:
        stream.truncate(301 * 2**20)
    assert "300.0 MB" in refused(SnapshotError, runs, source=source, entry_script="train.py")


def test_more_nodes_than_the_cluster_has(runs: Runs) -> None:
    with pytest.raises(PlacementError, match="Requested 5 nodes but cluster 'test' only has 4"):
        runs.submit("", mpi=(5, 1), cluster={"max_nodes": 4})


def test_more_nodes_than_an_mpi_run_may_have(runs: Runs) -> None:
    with pytest.raises(PlacementError, match="at most 100 nodes"):
        runs.submit("", mpi=(101, 1), cluster={"max_nodes": 200})


def test_an_unknown_backend(runs: Runs) -> None:
    with pytest.raises(SpecError, match="no backend 'moon'") as caught:
        runs.submit("", cluster={"backend": "moon"})
    assert "process" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "-x", "a b", "ünï", "a/b", "x" * 256])
def test_a_name_that_no_experiment_can_have(runs: Runs, name: str) -> None:
    from simgrid_ml.engine.prepare import submit
    from simgrid_ml.spec.cluster import ClusterSpec
    from simgrid_ml.spec.job import JobSpec

    job = JobSpec(source=runs.source({"t.py": ""}), entry_script="t.py")
    with pytest.raises(SpecError, match="cannot name an experiment"):
        submit(job, ClusterSpec(name="c"), store=runs.store, experiment=name)


@pytest.mark.parametrize(
    ("wish", "named"),
    [
        ({"framework": "pytorch", "framework_version": "99.0"}, "99.0"),
        ({"framework": "caffe"}, "caffe"),
        ({"pip": ("numpy ==== 1",)}, "numpy ==== 1"),
    ],
)
def test_an_environment_that_nobody_can_build(
    runs: Runs, wish: dict[str, object], named: str
) -> None:
    spec = EnvironmentSpec(**wish)  # type: ignore[arg-type]
    source = runs.source({"train.py": ""})
    said = refused(SpecError, runs, source=source, entry_script="train.py", environment=spec)
    assert named in said
