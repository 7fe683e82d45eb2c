"""``Run``: what is logged, kept, printed; from the driver and from the script."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml import wire
from simgrid_ml.azure import Experiment, Run, Workspace
from simgrid_ml.azure.errors import (
    ActivityFailedException,
    AzureMLAggregatedException,
    AzureMLException,
    ExperimentExecutionException,
    ModelPathNotFoundException,
    SnapshotException,
    UserErrorException,
    WebserviceException,
)
from simgrid_ml.azure.metrics import merged, plain_scalar
from simgrid_ml.azure.streaming import is_streamed
from simgrid_ml.errors import NotEmulated
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunLock, RunRecord, RunState

S = RunState


@pytest.fixture
def experiment():
    return Experiment(Workspace.local(), "exp")


@pytest.fixture
def run(experiment):
    """An interactive run."""
    run = experiment.start_logging(snapshot_directory=None)
    yield run
    if not run._record.state.is_terminal:
        run.complete()


@pytest.fixture
def job(experiment):
    """A run with a supervisor: this test."""
    spec = {"job": {"distribution": {"nodes": 1}}, "cluster": {"name": "gpu", "era": "E2"}}
    record = experiment.workspace._store.create("exp", spec)
    lock = RunLock.take(record.path)
    yield record
    lock.close()


def put(record, name, content=b"x"):
    record.put_artifact(name, io.BytesIO(content))


def finish(record, end=S.COMPLETED, **said):
    for state in (S.PREPARING, S.QUEUED, S.RUNNING, S.FINALIZING):
        record.advance(state)
    record.advance(end, **said)


# -- metrics --------------------------------------------------------------------------------
def test_one_value_is_itself_and_more_are_a_list(run):
    run.log("once", 1)
    for step in range(3):
        run.log("often", step / 2, step=step)
    assert run.get_metrics() == {"once": 1, "often": [0.0, 0.5, 1.0]}
    assert run.get_metrics("once") == {"once": 1}
    assert [line.get("step") for line in run._record.metrics()] == [None, 0, 1, 2]


@pytest.mark.parametrize("value", [[1], range(3), (n for n in "ab")])
def test_a_sequence_is_no_scalar(run, value):
    with pytest.raises(UserErrorException, match="log_list"):
        run.log("x", value)


def test_what_is_no_number_is_kept_as_its_repr(run):
    run.log("text", 'a\n"b')
    run.log("none", None)
    run.log("bool", True)
    run.log("object", {1: 2})
    run.log("nan", float("nan"))
    run.log("inf", float("-inf"))
    run.log("ż\n", 2**70)
    found = run.get_metrics()
    assert found.pop("nan") != found.get("nan")
    assert found == {
        "text": 'a\n"b',
        "none": None,
        "bool": True,
        "object": "{1: 2}",
        "inf": float("-inf"),
        "ż\n": 2**70,
    }


def test_numpy_values_become_pythons_without_numpy_being_imported():
    """Classes of numpy's module and of its shape; numpy itself need not be installed."""

    class Scalar:
        shape = ()

        def item(self):
            return 0.25

    class Float64(float):
        def __repr__(self):
            return "np.float64(0.25)"

    Scalar.__module__ = Float64.__module__ = "numpy"
    assert plain_scalar(Scalar()) == 0.25
    assert json.dumps(plain_scalar(Float64(0.25))) == "0.25"


def test_a_subclass_of_float_is_logged_as_a_number(run):
    class Float64(float):
        def __repr__(self):
            return "np.float64(0.25)"

    run.log("x", Float64(0.25))
    assert run.get_metrics() == {"x": 0.25}


def test_lists_rows_and_tables_come_back_as_azure_gives_them(run):
    run.log_list("list", [1, 2])
    run.log_list("list", [3])
    run.log_row("row", x=1, y="a")
    run.log_row("rows", x=1)
    run.log_row("rows", x=2, y=3)
    run.log_table("table", {"a": [1, 2], "b": [3, 4]})
    assert run.get_metrics() == {
        "list": [1, 2, 3],
        "row": {"x": 1, "y": "a"},
        "rows": {"x": [1, 2], "y": [None, 3]},
        "table": {"a": [1, 2], "b": [3, 4]},
    }


@pytest.mark.parametrize("table", [{"a": [1], "b": [1, 2]}, [1, 2], "x"])
def test_a_table_whose_columns_do_not_fit_is_refused(run, table):
    with pytest.raises(UserErrorException, match="log_table"):
        run.log_table("t", table)


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
lines = st.fixed_dictionaries({"name": st.sampled_from("abc")}).flatmap(
    lambda base: st.one_of(
        scalars.map(lambda v: {**base, "kind": "scalar", "value": v}),
        st.lists(scalars, max_size=3).map(lambda v: {**base, "kind": "list", "value": v}),
        st.dictionaries(st.sampled_from("xyz"), scalars, max_size=3).map(
            lambda v: {**base, "kind": "row", "value": v}
        ),
    )
)


@given(st.lists(lines, max_size=12))
def test_columns_of_a_merged_table_are_always_of_one_height(log):
    for value in merged(log).values():
        if isinstance(value, dict):
            heights = {len(c) if isinstance(c, list) else 1 for c in value.values()}
            assert len(heights) <= 1


def test_an_image_is_an_artifact_and_its_address_the_value(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"png")

    class Plot:
        def savefig(self, stream, format):
            stream.write(b"plot as " + format.encode())

    run.log_image("path", path="a.png")
    run.log_image("plot", plot=Plot())
    found = run.get_metrics()
    assert found["path"] == f"aml://artifactId/ExperimentRun/dcid.{run.id}/a.png"
    name = found["plot"].rpartition("/")[2]
    assert name.startswith("plot_")
    assert name.endswith(".png")
    assert name in run.get_file_names()


def test_an_image_is_given_in_exactly_one_way(run):
    for kwargs in ({}, {"path": "x", "plot": object()}, {"path": "gone"}, {"plot": object()}):
        with pytest.raises(AzureMLException):
            run.log_image("i", **kwargs)


def test_a_confusion_matrix_is_a_json_artifact(run):
    run.log_confusion_matrix("matrix", '{"schema_type": "confusion_matrix"}')
    with open(run._record.artifact("matrix").path) as stream:
        assert json.load(stream) == {"schema_type": "confusion_matrix"}
    with pytest.raises(UserErrorException, match="invalid JSON"):
        run.log_confusion_matrix("other", "{")


LOGGER = """
import itertools, os, sys
from simgrid_ml.azure import Run
run = Run.get_context()
print("ready", flush=True)
for n in itertools.count():
    run.log("n", n)
    if n == 5000:
        print("many", flush=True)
"""


def test_nothing_that_was_logged_is_lost_when_the_rank_is_killed(job):
    env = {**os.environ, wire.RUN_DIR_VARIABLE: job.path, wire.TASK_VARIABLE: "rank-3"}
    rank = subprocess.Popen([sys.executable, "-c", LOGGER], env=env, stdout=subprocess.PIPE)
    with rank:
        assert rank.stdout.readline() == b"ready\n"
        assert rank.stdout.readline() == b"many\n"
        rank.send_signal(signal.SIGKILL)
    logged = [line["value"] for line in job.metrics()]
    assert len(logged) > 5000
    assert logged == list(range(len(logged)))
    assert job.metrics()[0]["writer"] == "rank-3"


def test_the_series_of_several_ranks_come_in_order_of_arrival(job, monkeypatch):
    ranks = []
    for rank in range(2):
        monkeypatch.setenv(wire.TASK_VARIABLE, f"rank-{rank}")
        ranks.append(Run._of(job))
    for value in range(3):
        ranks[0].log("loss", value)
        ranks[1].log("loss", value + 10)
    assert ranks[0].get_metrics() == {"loss": [0, 10, 1, 11, 2, 12]}


# -- tags and properties --------------------------------------------------------------------
def test_tags_change_and_properties_do_not(run):
    run.tag("a", 1)
    run.tag("flag")
    run.set_tags({"b": "2", "c": "3"})
    run.remove_tags(["b"])
    run.tag("a", "new")
    assert run.get_tags() == run.tags == {"a": "new", "flag": None, "c": "3"}
    run.add_properties({"p": 1})
    run.add_properties({"p": "1", "q": "x"})
    with pytest.raises(UserErrorException, match="cannot be changed"):
        run.add_properties({"p": "2", "r": "y"})
    assert {k: run.properties.get(k) for k in "pqr"} == {"p": "1", "q": "x", "r": None}


def test_of_two_ranks_that_set_one_property_the_first_is_right(job, monkeypatch):
    for rank in range(2):
        monkeypatch.setenv(wire.TASK_VARIABLE, f"rank-{rank}")
        Run._of(job)._say("property", "p", str(rank))
    assert Run._of(job).properties == {"p": "0"}


def test_names_and_descriptions_can_be_set(run):
    assert run.display_name == run.name == run.id
    assert run.description is None
    run.display_name, run.description = "nice", "long"
    assert (Run.get(run.experiment.workspace, run.id).name, run.description) == ("nice", "long")


# -- files ----------------------------------------------------------------------------------
def test_files_go_up_and_come_down(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "a.txt").write_text("a")
    (tmp_path / "d" / "sub" / "b c.txt").write_text("b")
    run.upload_folder("outputs", "d")
    run.upload_file("s", io.BytesIO(b"stream"))
    run.upload_files(["x/1", "x/2"], ["d/a.txt", "d/a.txt"])
    assert run.get_file_names() == ["outputs/a.txt", "outputs/sub/b c.txt", "s", "x/1", "x/2"]
    run.download_file("outputs/a.txt")
    run.download_file("outputs/a.txt", "other.txt")
    run.download_file(name="outputs/sub/b c.txt", output_file_path="d")
    run.download_file("s", "new/folder/s")
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "other.txt").read_text() == "a"
    assert (tmp_path / "d" / "b c.txt").read_text() == "b"
    assert (tmp_path / "new/folder/s").read_text() == "stream"
    run.download_files("outputs/", "kept")
    run.download_files("outputs/", "cut", append_prefix=False)
    assert (tmp_path / "kept/outputs/sub/b c.txt").exists()
    assert (tmp_path / "cut/sub/b c.txt").exists()
    run.download_files("x/", output_paths=["one", "two"])
    assert (tmp_path / "two").exists()


def test_a_file_that_is_not_there_is_a_users_error(run, tmp_path):
    with pytest.raises(UserErrorException):
        run.download_file("outputs/gone")
    with pytest.raises(UserErrorException):
        run.download_files("gone/")
    with pytest.raises(UserErrorException):
        run.upload_file("x", str(tmp_path / "gone"))
    with pytest.raises(TypeError):
        run.upload_files(["a", "b"], ["c"])


def test_a_taken_name_is_refused_in_azures_words(run):
    run.upload_file("a", io.BytesIO(b"1"))
    with pytest.raises(AzureMLAggregatedException) as caught:
        run.upload_file("a", io.BytesIO(b"2"))
    assert caught.value.message == (
        f"UserError: Resource Conflict: ArtifactId ExperimentRun/dcid.{run.id}/a already exists."
    )


def test_one_clash_leaves_the_rest_of_its_batch_empty_and_earlier_batches_whole(run):
    run.upload_file("n60", io.BytesIO(b"old"))
    run.upload_file("n70", io.BytesIO(b"old"))
    names = [f"n{n}" for n in range(120)]
    with pytest.raises(AzureMLAggregatedException) as caught:
        run.upload_files(names, [io.BytesIO(b"new") for _ in names])
    assert len(caught.value.message.splitlines()) == 2
    sizes = {a.name: a.bytes for a in run._record.artifacts()}
    assert sizes["n49"] == 3
    assert sizes["n50"] == sizes["n99"] == 0
    assert sizes["n60"] == 3
    assert "n100" not in sizes


def test_an_upload_does_not_walk_what_is_there_already(run, monkeypatch):
    monkeypatch.setattr(RunRecord, "artifacts", lambda self: pytest.fail("all were listed"))
    run.upload_files(["a", "./b//c"], [io.BytesIO(b"1"), io.BytesIO(b"2")])
    with pytest.raises(AzureMLAggregatedException, match="b/c already exists"):
        run.upload_file("b/c", io.BytesIO(b"3"))
    monkeypatch.undo()
    assert run.get_file_names() == ["a", "b/c"]


def test_a_name_twice_in_one_call_is_skipped_with_a_warning(run, caplog):
    run.upload_files(["a", "a"], [io.BytesIO(b"1"), io.BytesIO(b"22")])
    assert "a is given twice" in caplog.text
    assert run._record.artifact("a").bytes == 1


def test_all_logs_can_be_fetched(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(job, "azureml-logs/70_driver_log.txt", b"hello")
    put(job, "outputs/x")
    run = Run._of(job)
    assert run.get_all_logs() == [f"assets/{run.id}/azureml-logs/70_driver_log.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserErrorException, match="is not a directory"):
        run.get_all_logs("file")


# -- details and waiting --------------------------------------------------------------------
def test_details_have_the_services_keys(job):
    put(job, "azureml-logs/70_driver_log.txt", b"hello \xff")
    finish(job, S.FAILED, error={"kind": "RunFailed", "cause": "rank 1 failed", "exit_code": 1})
    run = Run._of(job)
    found = run.get_details()
    assert set(found) == {
        "runId",
        "target",
        "status",
        "startTimeUtc",
        "endTimeUtc",
        "properties",
        "inputDatasets",
        "outputDatasets",
        "runDefinition",
        "logFiles",
        "submittedBy",
        "error",
    }
    assert found["target"] == "gpu"
    assert found["startTimeUtc"].endswith("Z")
    assert found["error"]["error"]["code"] == "UserError"
    assert found["error"]["error"]["message"] == "rank 1 failed"
    assert found["logFiles"]["azureml-logs/70_driver_log.txt"].startswith("file:///")
    assert run.get_details_with_logs()["logFiles"] == {
        "azureml-logs/70_driver_log.txt": "hello \ufffd"
    }


def test_a_run_that_is_not_over_has_no_end_and_no_error(job):
    found = Run._of(job).get_details()
    assert not {"endTimeUtc", "startTimeUtc", "error", "warnings"} & set(found)


def test_waiting_prints_one_log_after_the_other_and_a_summary(job, capsys):
    put(job, "azureml-logs/20_image_build_log.txt", b"building\n")
    put(job, "azureml-logs/70_driver_log_0.txt", b"hello\nno newline at the end")
    put(job, "azureml-logs/70_driver_log_1.txt", b"not shown")
    put(job, "azureml-logs/70_mpi_log.txt", b"not shown")
    put(job, "azureml-logs/process_info.json", b"{}")
    put(job, "azureml-logs/75_job_post-tvmps_a_d.txt", b"after \xc5\xbc\xff\n")
    finish(job)
    run = Run._of(job)
    assert run.wait_for_completion(show_output=True)["status"] == "Completed"
    url = run.get_portal_url()
    assert capsys.readouterr().out == (
        f"RunId: {run.id}\nWeb View: {url}\n"
        "\nStreaming azureml-logs/20_image_build_log.txt\n"
        "=============================================\n\nbuilding\n"
        "\nStreaming azureml-logs/70_driver_log_0.txt\n"
        "==========================================\n\nhello\nno newline at the end\n"
        "\nStreaming azureml-logs/75_job_post-tvmps_a_d.txt\n"
        "================================================\n\nafter ż\ufffd\n"
        f"\nExecution Summary\n=================\nRunId: {run.id}\nWeb View: {url}\n\n"
    )


def test_a_failed_run_raises_when_it_was_waited_for(job, capsys):
    finish(job, S.FAILED, error={"kind": "RunFailed", "cause": "rank 1 failed", "exit_code": 1})
    run = Run._of(job)
    for show in (False, True):
        with pytest.raises(ActivityFailedException) as caught:
            run.wait_for_completion(show_output=show)
        assert caught.value.message.startswith('Activity Failed:\n{\n    "error": {\n')
    capsys.readouterr()
    assert run.wait_for_completion(show_output=True, raise_on_error=False)["status"] == "Failed"
    assert "\nError:\n{\n" in capsys.readouterr().out


def test_a_failed_run_without_an_error_says_where_to_look(job):
    finish(job, S.FAILED)
    with pytest.raises(ActivityFailedException, match="Detailed error not set on the Run"):
        Run._of(job).wait_for_completion()


def test_a_canceled_run_returns_its_details(job):
    job.advance(S.CANCELED)
    assert Run._of(job).wait_for_completion()["status"] == "Canceled"


def test_a_run_whose_supervisor_is_gone_is_not_waited_for_for_ever(experiment):
    record = experiment.workspace._store.create("exp", {})
    RunLock.take(record.path).close()
    with open(record.file(wire.SUPERVISOR_LOG), "w") as stream:
        stream.write("Traceback\nMemoryError\n")
    with pytest.raises(ActivityFailedException, match="supervisor is gone") as caught:
        Run._of(record).wait_for_completion()
    assert "MemoryError" in caught.value.message


def test_warnings_are_in_the_details_and_in_the_summary(experiment, capsys):
    record = experiment.workspace._store.create("exp", {"warnings": ["odd input"]})
    lock = RunLock.take(record.path)
    finish(record)
    lock.close()
    found = Run._of(record).wait_for_completion(show_output=True)
    assert found["warnings"] == [{"source": "simgrid-ml", "message": "odd input"}]
    assert "\nWarnings:\nodd input\n" in capsys.readouterr().out


def test_what_the_run_did_not_get_is_a_warning(experiment):
    spec = {"job": {"environment": {"use_gpu": True}}}
    record = experiment.workspace._store.create("exp", spec)
    environment = {
        "image": "mine:1",
        "image_used": False,
        "packages": {"torch": "2.13.0+cpu", "pillow": "9.2.0"},
        "substitutions": [
            {"wanted": "pillow==5.4.1", "got": "pillow==9.2.0", "reason": "no build"},
            {"wanted": "torchvision", "got": "", "reason": "no CPU build"},
        ],
    }
    write_json(record.file(wire.ENVIRONMENT), environment)
    record.advance(S.CANCEL_REQUESTED, warning="max_run_duration_seconds of 3 s exceeded")
    record.advance(S.CANCELED)
    assert [one["message"] for one in Run._of(record).get_details()["warnings"]] == [
        "the image mine:1 was not used: packages are installed on this host",
        "pillow==5.4.1 became pillow==9.2.0: no build",
        "torchvision became nothing: no CPU build",
        "use_gpu was asked for and CPU builds are installed: torch 2.13.0+cpu",
        "max_run_duration_seconds of 3 s exceeded",
    ]


def test_gpus_that_are_virtual_or_not_used_are_a_note(experiment):
    record = experiment.workspace._store.create("exp", {"job": {"environment": {"use_gpu": True}}})
    write_json(record.file(wire.ENVIRONMENT), {"packages": {"torch": "2.13.0+cpu"}})
    write_json(record.file(wire.GPUS), {"backing": "host memory"})
    unused = "no rank used a GPU, though use_gpu was asked for"
    write_json(record.file(wire.VERDICTS), [{"check": "gpus.used", "message": unused}])
    assert [one["message"] for one in Run._of(record).get_details()["warnings"]] == [
        "CPU builds serve the nodes' GPUs, which are virtual: torch 2.13.0+cpu",
        unused,
    ]


def test_an_environment_that_is_as_asked_for_warns_of_nothing(experiment):
    spec = {"job": {"environment": {"use_gpu": False}}}
    record = experiment.workspace._store.create("exp", spec)
    environment = {"packages": {"torch": "2.13.0+cpu"}, "substitutions": []}
    write_json(record.file(wire.ENVIRONMENT), environment)
    assert "warnings" not in Run._of(record).get_details()


def test_an_interrupted_stream_says_that_the_run_goes_on(job, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("simgrid_ml.azure.run.follow", interrupted)
    with pytest.raises(ExperimentExecutionException, match="still executing"):
        Run._of(job).wait_for_completion(show_output=True)


def test_e1_printed_no_web_view(experiment, capsys):
    record = experiment.workspace._store.create("exp", {"cluster": {"era": "E1"}})
    lock = RunLock.take(record.path)
    finish(record)
    lock.close()
    Run._of(record).wait_for_completion(show_output=True)
    assert "Web View" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("azureml-logs/20_image_build_log.txt", True),
        ("azureml-logs/70_driver_log.txt", True),
        ("azureml-logs/70_driver_log_0.txt", True),
        ("azureml-logs/70_driver_log_10.txt", False),
        ("azureml-logs/60_control_log_rank_0.txt", True),
        ("azureml-logs/60_control_log_rank_1.txt", False),
        ("azureml-logs/process_info.json", False),
        ("user_logs/std_log.txt", True),
        ("user_logs/std_log_process_00.txt", True),
        ("user_logs/std_log_process_01.txt", False),
        ("user_logs/mpi_log.txt", False),
        ("logs/train.txt", False),
        ("outputs/70_x.txt", False),
    ],
)
def test_which_logs_are_streamed(name, shown):
    assert is_streamed(name) is shown


def test_a_run_prints_as_azure_prints_it(job):
    assert str(Run._of(job)) == (
        f"Run(Experiment: exp,\nId: {job.id},\nType: azureml.scriptrun,\nStatus: NotStarted)"
    )


def test_the_portal_address_has_azures_form(job):
    assert (
        Run._of(job)
        .get_portal_url()
        .startswith(f"http://localhost:8787/runs/{job.id}?wsid=/subscriptions/")
    )


# -- in the script --------------------------------------------------------------------------
@pytest.fixture
def inside(job, monkeypatch):
    monkeypatch.setenv(wire.RUN_DIR_VARIABLE, job.path)
    monkeypatch.setenv(wire.TASK_VARIABLE, "rank-0")
    monkeypatch.delenv(wire.STATE_HOME_VARIABLE)
    return Run.get_context()


def test_the_context_of_a_script_is_its_run(inside, job):
    assert type(inside).__name__ == "_SubmittedRun"
    assert isinstance(inside, Run)
    assert Run.get_context() is inside
    assert (inside.id, inside.experiment.name) == (job.id, "exp")
    assert inside.experiment.workspace.name == "local"
    assert inside.parent is None


def test_a_script_cannot_end_its_run(inside, job, caplog):
    with inside:
        inside.start()
        inside.log("x", 1)
    inside.fail("why")
    with caplog.at_level(logging.WARNING):
        inside.cancel()
    assert job.state is S.NOT_STARTED
    assert not job.cancel_requested
    assert "cancel is not supported for submitted runs" in caplog.text


def test_a_script_cannot_submit(inside):
    with pytest.raises(NotEmulated, match="inside a run"):
        inside.experiment.submit(object())


def test_secrets_are_not_emulated(inside):
    with pytest.raises(NotEmulated, match="secrets"):
        inside.get_secret("x")


# -- the life of interactive runs -----------------------------------------------------------
def test_an_interactive_run_lives_with_its_process(run):
    assert run.get_status() == "Running"
    assert run.type is None
    run.complete()
    assert run.status == "Completed"
    assert run._record.document(wire.ARTIFACT_INDEX) == []


def test_a_failed_interactive_run_keeps_its_error(run):
    run.fail("out of luck", "MyCode")
    error = run.get_details()["error"]["error"]
    assert (error["code"], error["message"]) == ("MyCode", "out of luck")
    run.complete()
    assert run.status == "Failed"


def test_as_a_context_it_completes_or_fails(experiment):
    with experiment.start_logging(snapshot_directory=None) as good:
        good.log("x", 1)
    with pytest.raises(ZeroDivisionError), experiment.start_logging(snapshot_directory=None) as bad:
        1 / 0  # noqa: B018
    assert (good.status, bad.status) == ("Completed", "Failed")
    assert "ZeroDivisionError" in bad.get_details()["error"]["error"]["message"]


def test_an_interactive_run_can_be_canceled(run):
    run.cancel()
    assert [move["state"] for move in run._record.states()] == [
        "NotStarted",
        "Running",
        "CancelRequested",
        "Canceled",
    ]
    run.cancel()
    assert run.status == "Canceled"


def test_an_interactive_run_that_somebody_else_cancels_ends_canceled(run):
    run._record.request_cancel()
    assert run.status == "Running"
    run.complete()
    assert run.status == "Canceled"
    assert run.get_detailed_status()["details"] == "cancelled by request"


def test_a_run_is_sealed_before_its_final_state_is_written(run, monkeypatch):
    advance = RunRecord.advance

    def watched(record, state, **said):
        sealed = os.path.exists(record.file(wire.ARTIFACT_INDEX))
        assert sealed == state.is_terminal
        advance(record, state, **said)

    monkeypatch.setattr(RunRecord, "advance", watched)
    run.complete()
    assert run.status == "Completed"


def test_outputs_of_an_interactive_run_are_collected_when_it_ends(experiment, tmp_path):
    (tmp_path / "out").mkdir()
    run = experiment.start_logging(outputs=str(tmp_path / "out"), snapshot_directory=None)
    (tmp_path / "out" / "model.txt").write_text("m")
    run.complete()
    assert run.get_file_names() == ["outputs/model.txt"]


def test_the_status_of_a_supervised_run_is_its_supervisors(job, caplog):
    run = Run._of(job)
    run.complete()
    assert job.state is S.NOT_STARTED
    assert "carried by another process" in caplog.text
    run.cancel()
    assert job.cancel_requested


# -- snapshots ------------------------------------------------------------------------------
def test_a_snapshot_is_taken_once_and_comes_back_as_a_zip(run, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("x")
    taken = run.take_snapshot(str(tmp_path / "src"))
    assert run.get_snapshot_id() == taken
    with pytest.raises(SnapshotException):
        run.take_snapshot(str(tmp_path / "src"))
    path = run.restore_snapshot(path=str(tmp_path / "back"))
    assert path == str(tmp_path / "back" / f"{taken}.zip")
    with zipfile.ZipFile(path) as packed:
        assert packed.read("train.py") == b"x"


def test_a_snapshot_of_one_file_holds_that_file(run, tmp_path):
    (tmp_path / "only.py").write_text("x")
    run.take_snapshot(str(tmp_path / "only.py"))
    with zipfile.ZipFile(run.restore_snapshot(path=str(tmp_path))) as packed:
        assert packed.namelist() == ["only.py"]


def test_a_run_without_a_snapshot_says_so(run):
    with pytest.raises(SnapshotException, match="no snapshot"):
        run.restore_snapshot()


# -- children -------------------------------------------------------------------------------
def test_children_are_runs_of_their_own(run):
    child = run.child_run("first")
    assert child.id == f"{run.id}_0"
    assert (child.status, child.name, child.parent) == ("Running", "first", run)
    child.log("x", 1)
    grandchild = child.child_run()
    grandchild.log("x", 2)
    run.log("x", 0)
    assert [c.id for c in run.get_children()] == [child.id]
    assert run.get_metrics(recursive=True) == {
        run.id: {"x": 0},
        child.id: {"x": 1},
        grandchild.id: {"x": 2},
    }
    assert list(run.experiment.get_runs()) == [run]
    assert len(list(run.experiment.get_runs(include_children=True))) == 3
    for each in (grandchild, child):
        each.complete()


def test_children_are_created_by_count_or_by_tag(run):
    assert len(run.create_children(3)) == 3
    tagged = run.create_children(tag_key="lr", tag_values=[0.1, 0.2])
    assert [child.tags for child in tagged] == [{"lr": "0.1"}, {"lr": "0.2"}]
    assert [child.id for child in run.get_children(tags={"lr": "0.2"})] == [tagged[1].id]
    for child in run.get_children():
        child.complete()


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"count": 0},
        {"count": 101},
        {"count": 1, "tag_key": "a", "tag_values": [1]},
        {"tag_key": "a"},
        {"tag_values": [1]},
    ],
)
def test_children_asked_for_in_another_way_are_refused(run, kwargs):
    with pytest.raises(UserErrorException):
        run.create_children(**kwargs)


def test_ranks_that_create_children_at_once_get_different_ones(job):
    ids = []

    def create():
        child = Run._of(job).child_run()
        ids.append(child.id)
        child.complete()

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids) == [f"{job.id}_{n}" for n in range(6)]


# -- finding --------------------------------------------------------------------------------
def test_runs_are_found_by_id_status_tag_and_property(experiment, job):
    run = Run.get(experiment.workspace, job.id)
    run.tag("colour", "red")
    run.add_properties({"p": "1"})
    for found in (
        Run.list(experiment, tags="colour"),
        Run.list(experiment, tags={"colour": "red"}),
        Run.list(experiment, properties={"p": "1"}),
        Run.list(experiment, status="NotStarted", type="azureml.scriptrun"),
    ):
        assert list(found) == [run]
    assert not list(Run.list(experiment, tags={"colour": "blue"}))
    assert not list(Run.list(experiment, status="Failed"))
    assert run.number == 1
    with pytest.raises(UserErrorException):
        Run.get(experiment.workspace, job.id[:-1])


# -- models ---------------------------------------------------------------------------------
def test_a_folder_of_artifacts_becomes_a_model(run):
    for name in ("outputs/model/a.pt", "outputs/model/b.pt", "outputs2/x"):
        run.upload_file(name, io.BytesIO(name.encode()))
    first = run.register_model("pt-dnn", "outputs/")
    second = run.register_model("pt-dnn", "./outputs/model/a.pt", tags={"k": 1})
    assert (first.version, second.version) == (1, 2)
    assert first._asset.about["files"] == ["outputs/model/a.pt", "outputs/model/b.pt"]
    assert second._asset.about["files"] == ["a.pt"]
    assert (second.tags, second.run_id) == ({"k": "1"}, run.id)
    assert second.run == run


def test_without_a_path_the_models_name_is_the_path(run):
    with pytest.raises(ModelPathNotFoundException, match="sklearn-sample"):
        run.register_model(model_name="sklearn-sample", model_path=None)
    run.upload_file("sklearn-sample", io.BytesIO(b"m"))
    assert run.register_model(model_name="sklearn-sample", model_path=None).version == 1


def test_a_model_name_outside_the_rule_is_the_services_error(run):
    with pytest.raises(WebserviceException):
        run.register_model("a b", "outputs")


def test_a_member_of_the_sdk_that_is_missing_is_named(run):
    with pytest.raises(NotEmulated, match=r"Run\.add_type_provider"):
        run.add_type_provider("x", None)
    with pytest.raises(AttributeError):
        run.no_such_thing  # noqa: B018
