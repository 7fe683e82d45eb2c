"""The run of a script that nobody submitted."""

import pytest

from simgrid_ml import wire
from simgrid_ml.azure import Run
from simgrid_ml.azure.errors import RunEnvironmentException


@pytest.fixture
def run(monkeypatch):
    monkeypatch.delenv(wire.RUN_DIR_VARIABLE, raising=False)
    return Run.get_context()


def test_outside_a_run_the_context_prints(run, capsys):
    assert type(run).__name__ == "_OfflineRun"
    assert run.id.startswith("OfflineRun_")
    assert len(run.id) == len("OfflineRun_") + 36
    run.log("loss", 0.5)
    run.log_list("l", [1])
    run.log_row("r", a=1)
    run.log_table("t", {"a": [1]})
    run.log_image("i", path="x.png")
    run.log_residuals("s", 1)
    run.log_predictions("p", 1)
    run.log_accuracy_table("a", 1)
    run.log_confusion_matrix("c", 1)
    run.upload_file("f", "path")
    run.upload_files(["f"], ["path"])
    run.upload_folder("d", "path")
    run.tag("k", "v")
    run.set_tags({"k": "v"})
    run.add_properties({"k": "v"})
    run.fail("why", 3)
    run.flush()
    run.complete()
    run.cancel()
    assert capsys.readouterr().out.splitlines() == [
        "Attempted to log scalar metric loss:",
        "0.5",
        "Attempted to log list metric l:",
        "[1]",
        "Attempted to log row metric r:",
        "{'a': 1}",
        "Attempted to log table metric t:",
        "{'a': [1]}",
        "Attempted to log image metric i:",
        "x.png",
        "Attempted to log residual metric s:",
        "1",
        "Attempted to log predictions metric p:",
        "1",
        "Attempted to log accuracy_table metric a:",
        "1",
        "Attempted to log confusion_matrix metric c:",
        "1",
        "Attempted to track file f at path",
        "Attempted to track files ['f'] at ['path'] with timeout Nones",
        "Attempted to track folder d at path",
        "Attempted to add tag k with value v",
        "Attempted to set tags {'k': 'v'}",
        "Attempted to add properties {'k': 'v'}",
        "Run failed with error code 3:",
        "why",
        f"Attempted to flush run with id {run.id}",
    ]


def test_a_step_is_for_submitted_runs_only(run):
    with pytest.raises(TypeError):
        run.log("loss", 0.5, step=1)


@pytest.mark.parametrize(
    "name", ["experiment", "parent", "get_metrics", "input_datasets", "get_file_names"]
)
def test_what_needs_a_record_is_not_there(run, name):
    with pytest.raises(AttributeError):
        getattr(run, name)


def test_children_carry_the_name(run):
    assert run.child_run("a").id == f"{run.id}.a"
    assert run.child_run(run_id="mine").id == "mine"


def test_as_a_context_it_says_where_it_begins_and_stops(run, capsys):
    with run as same:
        assert same is run
    assert capsys.readouterr().out == f"[START] Run {run.id} context\n[STOP] Run {run.id} context\n"


@pytest.mark.usefixtures("run")
def test_who_forbids_it_gets_an_exception():
    with pytest.raises(RunEnvironmentException):
        Run.get_context(allow_offline=False)
