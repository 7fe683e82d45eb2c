"""``Model``."""

import os
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.azure import Experiment, Model, Workspace
from simgrid_ml.azure.errors import (
    ModelNotFoundException,
    UserErrorException,
    WebserviceException,
)
from simgrid_ml.errors import NotEmulated


@pytest.fixture
def ws():
    return Workspace.local()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "model.pt").write_text("weights")
    return str(tmp_path / "model.pt")


def test_a_file_and_a_folder_can_be_registered(ws, file, tmp_path):
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    (tmp_path / "dir" / "sub" / "a.txt").write_text("a")
    assert Model.register(ws, file, "one").version == 1
    folder = Model.register(model_path=str(tmp_path / "dir"), model_name="many", workspace=ws)
    target = folder.download(str(tmp_path / "down"))
    assert target == str(tmp_path / "down" / "dir")
    assert (tmp_path / "down" / "dir" / "sub" / "a.txt").read_text() == "a"


def test_only_the_children_asked_for_are_registered(ws, tmp_path):
    (tmp_path / "dir").mkdir()
    for name in "ab":
        (tmp_path / "dir" / name).write_text(name)
    model = Model.register(ws, str(tmp_path / "dir"), "some", child_paths=["a"])
    assert model._asset.about["files"] == ["dir/a"]


def test_a_model_is_found_by_name_version_and_id(ws, file):
    for n in range(2):
        Model.register(ws, file, "m", tags={"n": n}, model_framework=Model.Framework.PYTORCH)
    assert Model(ws, "m").version == 2
    assert Model(ws, "m", version=1).tags == {"n": "0"}
    assert Model(ws, id="m:1").version == 1
    assert Model(ws, "m", tags=[["n", "0"]]).version == 1
    assert Model(ws, "m").model_framework == "PyTorch"
    for missing in ({"name": "other"}, {"name": "m", "version": 9}, {"id": "m:7"}):
        with pytest.raises(WebserviceException, match="ModelNotFound"):
            Model(ws, **missing)
    for wrong in ({}, {"id": "m"}):
        with pytest.raises(UserErrorException):
            Model(ws, **wrong)


def test_models_are_listed_newest_first(ws, file):
    for name in ("a", "b", "a"):
        Model.register(ws, file, name, properties={"p": name})
    assert [m.id for m in Model.list(ws)] == ["a:2", "a:1", "b:1"]
    assert [m.id for m in Model.list(ws, latest=True)] == ["a:2", "b:1"]
    assert [m.id for m in Model.list(ws, properties=[["p", "b"]])] == ["b:1"]
    assert [m.id for m in Model.list(ws, tags=["none"])] == []
    assert {name: m.version for name, m in ws.models.items()} == {"a": 2, "b": 1}


def test_a_download_does_not_overwrite_unless_it_may(ws, file, tmp_path):
    model = Model.register(ws, file, "m")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "model.pt").write_text("old")
    with pytest.raises(WebserviceException, match="already exists"):
        model.download(str(tmp_path / "down"))
    path = model.download(str(tmp_path / "down"), exist_ok=True)
    assert Path(path).read_text() == "weights"


def test_tags_change_and_properties_only_grow(ws, file):
    model = Model.register(ws, file, "m", tags={"a": 1}, properties={"p": 1})
    model.add_tags({"b": 2})
    model.remove_tags(["a"])
    model.add_properties({"q": 2})
    model.update(description="fine")
    again = Model(ws, "m")
    assert (again.tags, again.properties) == ({"b": "2"}, {"p": "1", "q": "2"})
    assert again.description == "fine"
    with pytest.raises(UserErrorException, match="cannot be changed"):
        model.add_properties({"p": 3})


def test_a_deleted_version_is_gone(ws, file):
    Model.register(ws, file, "m").delete()
    with pytest.raises(WebserviceException):
        Model(ws, "m")


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b"])
def test_a_name_outside_the_rule_is_refused(ws, file, name):
    with pytest.raises(WebserviceException, match="cannot name a model"):
        Model.register(ws, file, name)


def test_a_path_with_nothing_there_is_refused(ws):
    with pytest.raises(WebserviceException, match="not found"):
        Model.register(ws, "gone", "m")


def test_the_path_of_a_model_is_found_in_a_driver_in_a_run_and_beside_a_script(
    ws, file, tmp_path, monkeypatch
):
    Model.register(ws, file, "m")
    assert Path(Model.get_model_path("m", _workspace=ws)).read_text() == "weights"
    run = Experiment(ws, "e").start_logging(snapshot_directory=None)
    monkeypatch.setenv(wire.RUN_DIR_VARIABLE, run._record.path)
    assert Model.get_model_path("m", version=1).endswith("model.pt")
    monkeypatch.delenv(wire.RUN_DIR_VARIABLE)
    run.complete()
    monkeypatch.chdir(tmp_path)
    for version in ("2", "10"):
        os.makedirs(f"azureml-models/served/{version}/files")
    assert Model.get_model_path("served") == "azureml-models/served/10/files"
    with pytest.raises(ModelNotFoundException):
        Model.get_model_path("served", 3)
    with pytest.raises(ModelNotFoundException):
        Model.get_model_path("gone", _workspace=ws)


def test_deployment_is_not_emulated(ws, file):
    with pytest.raises(NotEmulated, match="deployment"):
        Model.deploy(ws, "service", [])
    with pytest.raises(NotEmulated):
        Model.register(ws, file, "m").get_sas_urls()
