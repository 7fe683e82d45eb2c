"""Environments and conda specifications."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from simgrid_ml.azure.conda_dependencies import CondaDependencies
from simgrid_ml.azure.environment import Environment
from simgrid_ml.azure.errors import UserErrorException
from simgrid_ml.azure.submission import plan
from simgrid_ml.errors import NotEmulated
from simgrid_ml.record.store import RunStore


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    return SimpleNamespace(_store=RunStore(str(tmp_path / "workspace")))


# -- conda specifications ---------------------------------------------------------------------
def test_a_specification_survives_writing_and_reading(tmp_path: Path) -> None:
    mine = CondaDependencies.create(pip_packages=["a==1"], conda_packages=["numpy"])
    path = mine.save(str(tmp_path / "conda.yml"))
    assert CondaDependencies(path).as_dict() == mine.as_dict()
    assert yaml.safe_load(mine.serialize_to_string()) == mine.as_dict()
    assert mine.save_to_file(str(tmp_path)) == ".azureml/auto_conda_dependencies.yml"
    assert (tmp_path / ".azureml/auto_conda_dependencies.yml").is_file()


@pytest.mark.parametrize(
    ("text", "problem"),
    [("- a\n- b\n", "mapping"), ("packages: []\n", "'packages'"), ("a: [\n", "valid YAML")],
)
def test_a_file_that_is_no_specification_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "conda.yml"
    path.write_text(text)
    with pytest.raises(UserErrorException, match=problem):
        CondaDependencies(str(path))


def test_what_as_dict_gives_is_a_copy() -> None:
    mine = CondaDependencies()
    mine.as_dict()["dependencies"].clear()
    assert list(mine.pip_packages) == ["azureml-defaults"]


# -- environments -----------------------------------------------------------------------------
def test_environments_are_made_from_files(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "conda.yml").write_text("dependencies:\n- numpy\n- pip:\n  - tqdm\n")
    (tmp_path / "pip.txt").write_text("tqdm\nrequests\n")
    conda = Environment.from_conda_specification("c", str(tmp_path / "conda.yml"))
    assert "defaulting" in caplog.text
    assert conda.python.conda_dependencies is not None
    assert list(conda.python.conda_dependencies.pip_packages) == ["tqdm"]
    pip = Environment.from_pip_requirements("p", str(tmp_path / "pip.txt"))
    assert pip.python.conda_dependencies is not None
    assert list(pip.python.conda_dependencies.pip_packages) == ["tqdm", "requests"]


def test_an_image_alone_is_user_managed_and_a_name_must_be_text() -> None:
    environment = Environment.from_docker_image("d", "mine:1")
    assert environment.python.user_managed_dependencies
    assert environment.docker.base_image == "mine:1"
    with pytest.raises(TypeError):
        Environment(3)  # type: ignore[arg-type]


def test_an_image_and_a_dockerfile_exclude_each_other() -> None:
    docker = Environment("e").docker
    docker.base_dockerfile = "FROM scratch"
    assert docker.base_image is None
    docker.base_image = "mine:1"
    assert docker.base_dockerfile is None


def test_a_clone_shares_nothing() -> None:
    mine = Environment("mine")
    twin = mine.clone("twin")
    twin.environment_variables["A"] = "1"
    assert (twin.name, twin.version) == ("twin", None)
    assert "A" not in mine.environment_variables


def test_registering_counts_versions_and_gets_them_back(workspace: Any) -> None:
    mine = Environment("mine")
    mine.docker.base_image = "mine:1"
    mine.environment_variables["A"] = "1"
    assert mine.register(workspace).version == "1"
    mine.docker.base_image = "mine:2"
    assert mine.register(workspace).version == "2"
    assert mine.version is None
    assert Environment.get(workspace, "mine").docker.base_image == "mine:2"
    first = Environment.get(workspace, "mine", "1")
    assert first.docker.base_image == "mine:1" and first.environment_variables["A"] == "1"
    assert json.loads(repr(first))["version"] == "1"
    assert list(Environment.list(workspace)) == ["mine"]


def test_environments_registered_at_once_get_versions_of_their_own(workspace: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: Environment("mine").register(workspace).version, range(16))
    assert sorted(map(int, filter(None, found))) == list(range(1, 17))


@pytest.mark.parametrize("name", ["../mine", "", "a/b", ".hidden"])
def test_a_name_that_is_a_path_is_refused(workspace: Any, name: str) -> None:
    with pytest.raises(UserErrorException):
        Environment(name).register(workspace)


def test_a_missing_environment_is_named(workspace: Any) -> None:
    with pytest.raises(UserErrorException, match="'mine'"):
        Environment.get(workspace, "mine")
    with pytest.raises(NotEmulated):
        Environment.get(object(), "mine")


@pytest.mark.parametrize(
    ("name", "framework", "version"),
    [
        ("AzureML-PyTorch-1.6-GPU", "pytorch", "1.6"),
        ("AzureML-TensorFlow-1.13-GPU", "tensorflow", "1.13"),
        ("AzureML-TensorFlow-2.3-GPU", "tensorflow", "2.3"),
        ("AzureML-Chainer-5.1.0-GPU", "chainer", "5.1.0"),
    ],
)
def test_a_curated_environment_is_the_frameworks(
    workspace: Any, tmp_path: Path, name: str, framework: str, version: str
) -> None:
    from simgrid_ml.azure.script_run_config import ScriptRunConfig

    (tmp_path / "train.py").write_text("")
    curated = Environment.get(workspace, name)
    spec = plan(ScriptRunConfig(str(tmp_path), "train.py", environment=curated)).job.environment
    assert (spec.framework, spec.framework_version, spec.pip) == (framework, version, ())
    assert spec.use_gpu and spec.image is None


def test_saving_to_a_folder_and_loading_gives_the_same(tmp_path: Path) -> None:
    mine = Environment("mine")
    mine.save_to_directory(str(tmp_path / "e"))
    assert repr(Environment.load_from_directory(str(tmp_path / "e"))) == repr(mine)
