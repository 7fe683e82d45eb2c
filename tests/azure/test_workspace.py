"""``Workspace``: names, configuration files, and what is inside."""

import json

import pytest

from simgrid_ml import wire
from simgrid_ml.azure import ComputeTarget, Experiment, Workspace
from simgrid_ml.azure.compute import AmlCompute
from simgrid_ml.azure.errors import UserErrorException, WorkspaceException
from simgrid_ml.errors import NotEmulated


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "project" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "deep")
    return tmp_path / "project"


def config(name="my-ws"):
    return json.dumps({"subscription_id": "sub", "resource_group": "rg", "workspace_name": name})


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "place", [".azureml/config.json", "aml_config/config.json", "config.json", "deep/config.json"]
)
def test_a_configuration_is_found_here_and_above(here, place):
    write(here / place, config())
    ws = Workspace.from_config()
    assert (ws.subscription_id, ws.resource_group, ws.name) == ("sub", "rg", "my-ws")


def test_the_nearest_configuration_wins_and_dot_azureml_is_first(here):
    write(here / ".azureml" / "config.json", config("above"))
    write(here / "deep" / "config.json", config("beside"))
    write(here / "deep" / ".azureml" / "config.json", config("inside"))
    assert Workspace.from_config().name == "inside"


def test_the_legacy_project_file_names_its_scope(here):
    scope = "/subscriptions/s/resourceGroups/r/providers/x/workspaces/old-ws"
    write(here / "aml_config" / "project.json", json.dumps({"Scope": scope}))
    ws = Workspace.from_config()
    assert (ws.subscription_id, ws.resource_group, ws.name) == ("s", "r", "old-ws")


def test_a_path_may_name_the_file_or_the_folder(here, tmp_path):
    write(tmp_path / "else" / "my.json", config())
    write(tmp_path / "else" / ".azureml" / "other.json", config("other"))
    assert Workspace.from_config(str(tmp_path / "else" / "my.json")).name == "my-ws"
    assert Workspace.from_config(str(tmp_path / "else"), _file_name="other.json").name == "other"
    with pytest.raises(UserErrorException, match=r"could not find config\.json"):
        Workspace.from_config(str(tmp_path / "nowhere"))


def test_without_a_configuration_the_local_workspace_is_meant(caplog):
    assert Workspace.from_config() == Workspace.local()
    assert len(caplog.records) == 1
    assert "using the local workspace" in caplog.text


def test_strictly_a_missing_configuration_is_an_error(monkeypatch):
    monkeypatch.setenv(wire.STRICT_CONFIG_VARIABLE, "1")
    with pytest.raises(UserErrorException, match=r"could not find config\.json"):
        Workspace.from_config()


def test_another_programs_configuration_is_passed_over(here):
    write(here / "deep" / "config.json", '{"model_type": "bert"}')
    assert Workspace.from_config() == Workspace.local()


@pytest.mark.parametrize("text", ["{", "[]", '{"workspace_name": "x"}'])
def test_a_broken_configuration_is_an_error_with_its_path(here, text):
    write(here / ".azureml" / "config.json", text)
    with pytest.raises(UserErrorException, match=r"\.azureml/config\.json must hold"):
        Workspace.from_config()


def test_what_is_written_is_found_again(here):
    Workspace("s", "r", "written").write_config()
    assert json.loads((here / "deep" / ".azureml" / "config.json").read_text()) == {
        "subscription_id": "s",
        "resource_group": "r",
        "workspace_name": "written",
    }
    assert Workspace.from_config().name == "written"
    Workspace("s", "r", "second").write_config(path=str(here), file_name="b.json")
    assert (here / ".azureml" / "b.json").exists()


@pytest.mark.parametrize(
    "name", ["", "ab", "-abc", "a b c", "a/b", "../..", "x" * 34, "żółw", None]
)
def test_a_name_outside_the_rule_is_refused(name):
    with pytest.raises(UserErrorException, match="cannot name a workspace"):
        Workspace("s", "r", name)


def test_a_workspace_is_created_once_and_then_found_with_what_it_was_given():
    Workspace.create("mine", subscription_id="s", resource_group="r", location="x", tags={"a": "1"})
    found = Workspace.get("mine")
    assert (found.subscription_id, found.location, found.tags) == ("s", "x", {"a": "1"})
    with pytest.raises(WorkspaceException, match="already exists"):
        Workspace.create("mine")
    assert Workspace.create("mine", exist_ok=True) == found
    assert list(Workspace.list("s")) == ["mine"]


def test_workspaces_keep_their_things_apart():
    one, two = Workspace.get("one"), Workspace.get("two")
    Experiment(one, "e").start_logging(snapshot_directory=None).complete()
    ComputeTarget.create(one, "gpu", AmlCompute.provisioning_configuration(max_nodes=1))
    assert list(one.experiments) == ["e"]
    assert list(one.compute_targets) == ["gpu"]
    assert (two.experiments, two.compute_targets, two.models) == ({}, {}, {})


def test_a_run_is_found_by_its_id():
    ws = Workspace.local()
    run = Experiment(ws, "e").start_logging(snapshot_directory=None)
    assert ws.get_run(run.id) == run
    run.complete()


def test_the_default_targets_have_fixed_names():
    ws = Workspace.local()
    assert ws.get_default_compute_target("CPU") is None
    config = AmlCompute.provisioning_configuration(max_nodes=1)
    ComputeTarget.create(ws, Workspace.DEFAULT_CPU_CLUSTER_NAME, config)
    assert ws.get_default_compute_target("CPU").name == "cpu-cluster"
    with pytest.raises(UserErrorException):
        ws.get_default_compute_target("TPU")


def test_details_hold_what_the_service_says():
    found = Workspace("s", "r", "my-ws").get_details()
    assert found["id"] == (
        "/subscriptions/s/resourceGroups/r/providers/"
        "Microsoft.MachineLearningServices/workspaces/my-ws"
    )
    assert {"name", "location", "sku", "tags", "type"} <= set(found)


@pytest.mark.parametrize("member", ["datastores", "datasets", "get_default_datastore", "list_keys"])
def test_what_is_missing_says_so(member):
    with pytest.raises(NotEmulated, match=r"docs/coverage\.md"):
        found = getattr(Workspace.local(), member)
        found()
