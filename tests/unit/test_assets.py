"""Models: numbered versions that never change."""

import os
import threading
from pathlib import Path

import pytest

from simgrid_ml.errors import NotFoundError, SpecError
from simgrid_ml.record.assets import AssetStore
from simgrid_ml.record.store import RunStore


@pytest.fixture
def models(tmp_path):
    return AssetStore(RunStore(str(tmp_path / "ws")))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("weights")
    return str(path)


def test_versions_count_up_and_the_newest_is_the_default(models, file):
    assert models.put("m", [("model.pt", file)], {"run_id": "r1"}).version == 1
    assert models.put("m", [("a/b.pt", file)], {"run_id": "r2"}).version == 2
    newest = models.get("m")
    assert (newest.version, newest.about["run_id"]) == (2, "r2")
    assert Path(newest.path, "a", "b.pt").read_text() == "weights"
    assert models.get("m", 1).about["files"] == ["model.pt"]


def test_two_who_register_at_once_get_two_versions(models, file):
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(models.put("m", [("x", file)], {}).version))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 9))
    assert models.versions("m") == list(range(1, 9))


@pytest.mark.parametrize("name", ["", "-m", "a/b", "../x", "a b", "x" * 256, "m\n"])
def test_a_name_outside_azures_rule_is_refused(models, file, name):
    with pytest.raises(SpecError, match="cannot name a model"):
        models.put(name, [("x", file)], {})


def test_a_file_that_is_gone_publishes_nothing(models, tmp_path):
    with pytest.raises(FileNotFoundError):
        models.put("m", [("x", str(tmp_path / "gone"))], {})
    assert models.list() == []
    assert os.listdir(os.path.join(models.root, "m")) == []


def test_a_deleted_version_is_gone_and_its_number_is_not_given_again(models, file):
    models.put("m", [("x", file)], {})
    models.amend(models.get("m"), tags={"a": "1"})
    models.delete(models.get("m"))
    with pytest.raises(NotFoundError, match="no model 'm'"):
        models.get("m")
    assert models.put("m", [("x", file)], {}).version == 2


def test_tags_may_change_and_the_rest_stays(models, file):
    asset = models.put("m", [("x", file)], {"tags": {}, "run_id": "r"})
    assert models.amend(asset, tags={"a": "1"}).about["tags"] == {"a": "1"}
    assert models.get("m").about["run_id"] == "r"


def test_every_version_is_listed_by_name(models, file):
    for name in ("b", "a", "b"):
        models.put(name, [("x", file)], {})
    assert [(a.name, a.version) for a in models.list()] == [("a", 1), ("b", 1), ("b", 2)]


@pytest.mark.parametrize("name", ["../..", "nobody"])
def test_an_unknown_model_is_not_found(models, name):
    with pytest.raises(NotFoundError):
        models.get(name)
