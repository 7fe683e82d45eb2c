"""``Experiment``: from an estimator to a run that goes on by itself."""

import sys
import uuid
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.azure import (
    AmlCompute,
    ComputeTarget,
    Environment,
    Estimator,
    Experiment,
    MpiConfiguration,
    Run,
    ScriptRunConfig,
    Workspace,
)
from simgrid_ml.azure.errors import (
    ComputeTargetException,
    ExperimentExecutionException,
    SnapshotException,
    TrainingException,
    UserErrorException,
)
from simgrid_ml.azure.experiment import ViewType
from simgrid_ml.engine import prepare
from simgrid_ml.errors import NotEmulated
from simgrid_ml.record.run import RunLock, RunState
from simgrid_ml.spec.job import Mpi
from simgrid_ml.testing.leaks import nothing_left


@pytest.fixture
def ws():
    return Workspace.local()


@pytest.fixture
def experiment(ws):
    return Experiment(ws, "exp")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "train.py").write_text("print('hello')\n")
    return folder


@pytest.fixture
def gpu(ws):
    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=2)
    return ComputeTarget.create(ws, "gpucluster", config)


def as_is() -> Environment:
    environment = Environment("as-is")
    environment.python.user_managed_dependencies = True
    environment.python.interpreter_path = sys.executable
    return environment


@pytest.fixture
def asked(monkeypatch):
    """What the engine is asked for, without it being done."""
    calls = []

    def submit(job, cluster, *, store, experiment, run_id=None, tags, properties, extra):
        calls.append({"job": job, "cluster": cluster, "tags": tags, "properties": properties})
        calls[-1].update(extra)
        spec = {"job": None, "cluster": {"name": cluster.name}, **extra}
        record = store.create(experiment, spec, run_id)
        lock = RunLock.take(record.path)
        record.advance(RunState.FAILED)
        lock.close()
        return record

    monkeypatch.setattr(prepare, "submit", submit)
    return calls


# -- submitting, for real -------------------------------------------------------------------
SCRIPT = """
import os, sys
from azureml.core import Run
from azureml.core.run import Run as Same

run = Run.get_context()
assert Same is Run
for step in range(3):
    run.log("loss", 1 / (step + 1), step=step)
run.tag("said", run.experiment.name)
with open("outputs/model.txt", "w") as stream:
    stream.write(" ".join(sys.argv[1:]))
print("hello from", run.id, run.experiment.workspace.name)
run.upload_file("extra/model.txt", "outputs/model.txt")
child = run.child_run("child")
child.log("x", 1)
child.complete()
run.complete()
"""


def test_a_script_run_leaves_what_azure_would_show(experiment, source, tmp_path, capsys):
    (source / "train.py").write_text(SCRIPT)
    config = ScriptRunConfig(str(source), "train.py", ["--a", 1], environment=as_is())
    with nothing_left(str(tmp_path)):
        run = experiment.submit(config, tags={"colour": "red"})
        assert run.get_status() in ("NotStarted", "Preparing", "Queued", "Running")
        details = run.wait_for_completion(show_output=True)
    out = capsys.readouterr().out
    assert f"hello from {run.id} local\n" in out
    assert "Streaming azureml-logs/70_driver_log.txt\n" in out
    assert details["status"] == "Completed"
    assert details["runDefinition"]["script"] == "train.py"
    assert details["properties"]["_azureml.ComputeTargetType"] == "local"
    assert len(details["properties"]["ContentSnapshotId"]) == 32
    assert run.get_metrics() == {"loss": [1.0, 0.5, 1 / 3]}
    assert run.get_tags() == {"colour": "red", "said": "exp"}
    assert {"outputs/model.txt", "extra/model.txt"} <= set(run.get_file_names())
    run.download_file("outputs/model.txt", str(tmp_path / "got"))
    assert (tmp_path / "got").read_text() == "--a 1"
    assert run.register_model("m", "outputs/").version == 1
    assert run.get_environment().name == "as-is"
    assert [child.get_metrics() for child in run.get_children()] == [{"x": 1}]
    assert list(experiment.get_runs()) == [run]


def test_a_failing_script_is_a_failed_run_with_its_last_words(experiment, source, tmp_path):
    (source / "train.py").write_text("raise ValueError('out of luck')")
    config = ScriptRunConfig(str(source), "train.py", environment=as_is())
    with nothing_left(str(tmp_path)):
        run = experiment.submit(config)
        details = run.wait_for_completion(raise_on_error=False)
    assert details["status"] == "Failed"
    assert details["error"]["error"]["code"] == "UserError"
    assert "out of luck" in details["error"]["error"]["message"]


# -- submitting, as far as the engine -------------------------------------------------------
def test_an_estimator_on_a_cluster_asks_for_that_cluster(experiment, source, gpu, asked):
    estimator = Estimator(
        str(source),
        compute_target=gpu,
        entry_script="train.py",
        node_count=2,
        script_params={"--lr": 0.1},
        distributed_training=MpiConfiguration(),
    )
    run = experiment.submit(estimator, {"a": 1}, script_params={"--lr": 0.2})
    (call,) = asked
    assert call["job"].distribution == Mpi(nodes=2, processes_per_node=1)
    assert call["job"].arguments == ("--lr", "0.2")
    assert (call["cluster"].name, call["cluster"].max_nodes) == ("gpucluster", 2)
    assert call["tags"] == {"a": "1"}
    assert call["properties"]["_azureml.ComputeTargetType"] == "batchai"
    assert call["properties"]["ProcessInfoFile"] == "azureml-logs/process_info.json"
    assert call["workspace"]["name"] == "local"
    assert (run.type, run.experiment) == ("azureml.scriptrun", experiment)


def test_process_files_are_a_property_of_era_e2_only(experiment, source, asked):
    tags = {"simgrid-ml.era": "E3"}
    config = AmlCompute.provisioning_configuration(max_nodes=1, tags=tags)
    ComputeTarget.create(experiment.workspace, "late", config)
    experiment.submit(Estimator(str(source), compute_target="late", entry_script="train.py"))
    assert not {"ProcessInfoFile", "ProcessStatusFile"} & set(asked[0]["properties"])


def test_a_size_alone_asks_for_a_cluster_of_its_own(experiment, source, asked, capsys):
    experiment.submit(Estimator(str(source), vm_size="Standard_NC6", entry_script="train.py"))
    assert (asked[0]["cluster"].vm_size, asked[0]["cluster"].max_nodes) == ("Standard_NC6", 1)


def test_gpus_that_the_size_of_the_nodes_has_not_are_a_warning(experiment, source, asked):
    for size in ("Standard_D2_v2", "Standard_NC6"):
        what = {"vm_size": size, "entry_script": "train.py", "use_gpu": True}
        experiment.submit(Estimator(str(source), **what))
    without, with_gpu = (call["warnings"] for call in asked)
    assert with_gpu == []
    assert len(without) == 1
    assert "nodes of Standard_D2_v2 have no GPU" in without[0]


def test_the_source_of_a_repository_is_named(experiment, source, asked, monkeypatch):
    monkeypatch.setenv("AZUREML_GIT_COMMIT", "abc")
    experiment.submit(ScriptRunConfig(str(source), "train.py", environment=as_is()))
    assert asked[0]["properties"]["azureml.git.commit"] == "abc"


def test_a_target_that_is_not_there_is_azures_exception(experiment, source):
    config = ScriptRunConfig(str(source), "train.py", compute_target="nowhere")
    with pytest.raises(ComputeTargetException, match="ComputeTargetNotFound"):
        experiment.submit(config)


def test_a_missing_script_is_found_at_the_submission(experiment, source):
    config = ScriptRunConfig(str(source), "gone.py", environment=as_is())
    with pytest.raises(ExperimentExecutionException, match=r"gone\.py"):
        experiment.submit(config)
    assert list(experiment.get_runs()) == []


def test_a_missing_source_folder_is_found_at_the_submission_too(experiment, tmp_path):
    gone = str(tmp_path / "gone")
    config = ScriptRunConfig(gone, command=["true"], environment=as_is())
    with pytest.raises(ExperimentExecutionException, match="does not exist"):
        experiment.submit(config)


def test_more_nodes_than_the_cluster_has_are_refused(experiment, source, gpu):
    estimator = Estimator(
        str(source),
        compute_target=gpu,
        entry_script="train.py",
        node_count=3,
        distributed_training=MpiConfiguration(),
    )
    with pytest.raises(ExperimentExecutionException, match="3 nodes"):
        experiment.submit(estimator)
    assert list(experiment.get_runs()) == []


def test_a_source_over_the_limit_is_refused(experiment, source):
    with open(source / "big", "wb") as stream:
        stream.truncate(wire.SNAPSHOT_MAX_BYTES + 1)
    with pytest.raises(SnapshotException, match="exceeds the limit"):
        experiment.submit(ScriptRunConfig(str(source), "train.py", environment=as_is()))
    assert list(experiment.get_runs()) == []


def test_only_arguments_of_an_estimator_can_be_overridden(experiment, source, gpu):
    estimator = Estimator(str(source), compute_target=gpu, entry_script="train.py")
    with pytest.raises(TrainingException, match="overridden"):
        experiment.submit(estimator, node_count=2)


def test_what_is_no_configuration_cannot_be_submitted(experiment):
    with pytest.raises(UserErrorException, match="cannot be submitted"):
        experiment.submit(object())


def test_a_child_can_be_submitted(experiment, source, asked):
    parent = experiment.start_logging(snapshot_directory=None)
    child = parent.submit_child(ScriptRunConfig(str(source), "train.py", environment=as_is()))
    assert child.parent == parent
    parent.complete()


# -- interactive runs -----------------------------------------------------------------------
def test_an_interactive_run_keeps_its_folder(experiment, source, monkeypatch):
    monkeypatch.chdir(source)
    run = experiment.start_logging(display_name="mine")
    assert uuid.UUID(run.id)
    assert run.name == "mine"
    assert run.get_snapshot_id()
    assert run.properties["azureml.runsource"] == "experiment"
    run.complete()
    assert Run.get(experiment.workspace, run.id).status == "Completed"


def test_an_interactive_run_that_cannot_be_set_up_has_failed(experiment, tmp_path):
    with pytest.raises(SnapshotException):
        experiment.start_logging(snapshot_directory=str(tmp_path / "gone"))
    assert [run.status for run in experiment.get_runs()] == ["Failed"]
    with pytest.raises(TypeError, match="colour"):
        experiment.start_logging(colour="red")


# -- the experiment itself ------------------------------------------------------------------
@pytest.mark.parametrize("name", ["", "-x", "a b", "x" * 256, "ż", None])
def test_a_name_outside_the_rule_is_refused(ws, name):
    with pytest.raises(UserErrorException, match="cannot name an experiment"):
        Experiment(ws, name)


def test_experiments_have_tags_and_can_be_put_away(ws, experiment):
    experiment.set_tags({"a": 1, "b": None})
    experiment.tag("c")
    experiment.remove_tags(["b"])
    assert experiment.tags == {"a": "1", "c": None}
    Experiment(ws, "other").start_logging(snapshot_directory=None).complete()
    assert [e.name for e in Experiment.list(ws)] == ["exp", "other"]
    assert [e.name for e in Experiment.list(ws, tags={"a": "1"})] == ["exp"]
    experiment.archive()
    assert experiment.archived_time
    assert [e.name for e in Experiment.list(ws)] == ["other"]
    assert [e.name for e in Experiment.list(ws, view_type=ViewType.ArchivedOnly)] == ["exp"]
    assert len(Experiment.list(ws, view_type=ViewType.All)) == 2
    experiment.reactivate()
    assert len(Experiment.list(ws)) == 2


def test_only_an_experiment_without_runs_can_be_deleted(ws, experiment):
    experiment.tag("a")
    other = Experiment(ws, "other")
    other.start_logging(snapshot_directory=None).complete()
    Experiment.delete(ws, experiment.id)
    assert [e.name for e in Experiment.list(ws)] == ["other"]
    with pytest.raises(UserErrorException, match="Only empty Experiments"):
        Experiment.delete(ws, other.id)
    with pytest.raises(UserErrorException, match="not found"):
        Experiment.delete(ws, "no such id")


def test_the_identity_of_an_experiment_is_its_name(ws, experiment):
    again = Experiment(workspace=ws, name="exp")
    assert (again, again.id, hash(again)) == (experiment, experiment.id, hash(experiment))
    assert str(experiment) == "Experiment(Name: exp,\nWorkspace: local)"
    assert "/experiments/exp?wsid=" in experiment.get_portal_url()
    with pytest.raises(NotEmulated):
        Experiment.from_directory(str(Path.cwd()))
