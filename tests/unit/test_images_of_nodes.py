"""Images without an engine: what stands in for what, what is asked, what errors say."""

from __future__ import annotations

import inspect
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from docker.credentials import errors as credentials

from simgrid_ml.backends import image_map, image_python, image_sdk
from simgrid_ml.backends.base import NodeInfo
from simgrid_ml.backends.image import NodeImage
from simgrid_ml.backends.image_facts import ImageFacts
from simgrid_ml.cli import story
from simgrid_ml.engine import images
from simgrid_ml.environments.build import BuiltEnvironment
from simgrid_ml.errors import NotFoundError, RecordError, SimgridError
from simgrid_ml.native import PROGRAMS_VARIABLE
from simgrid_ml.spec.job import EnvironmentSpec, Registry
from simgrid_ml.spec.value import to_plain


# -- the docker package's errors -------------------------------------------------------------
def errors_of(module: Any) -> list[type[Exception]]:
    classes = [one for _, one in inspect.getmembers(module, inspect.isclass)]
    return [
        one for one in classes if issubclass(one, Exception) and one.__module__ == module.__name__
    ]


def made(kind: type[Exception]) -> Exception:
    """One of the class, however many arguments it asks for."""
    wanted = inspect.signature(kind.__init__).parameters.values()
    texts = [
        "what it said"
        for one in list(wanted)[1:]
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    return kind(*texts) if texts else kind("what it said")


@pytest.mark.parametrize(
    "kind",
    [
        *errors_of(docker.errors),
        *errors_of(credentials),
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_docker_error_is_translated(kind: type[Exception]) -> None:
    ours = image_sdk.as_ours(made(kind), "pulling lab/torch:1")
    assert isinstance(ours, SimgridError)
    assert ours.cause and ours.remedy
    assert "what it said" in ours.evidence


def test_defects_of_our_own_are_not_taken_for_the_engines() -> None:
    assert image_sdk.as_ours(KeyError("a"), "pulling") is None


def test_no_error_shows_the_password_of_a_registry() -> None:
    error = docker.errors.APIError("login as me:hunter2 failed", explanation="hunter2 is wrong")
    ours = image_sdk.as_ours(error, "pulling", secret="hunter2")
    assert ours is not None
    assert "hunter2" not in str(ours)
    assert "*** is wrong" in ours.evidence


def test_the_docker_package_is_not_loaded_by_a_run_that_needs_no_image() -> None:
    code = "import sys, simgrid_ml.backends.docker, simgrid_ml.backends.images; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"docker", "requests"} & set(done.stdout.split())


# -- what stands in for what -----------------------------------------------------------------
def test_a_mapped_name_and_its_latest_are_one_image() -> None:
    image_map.put("registry:5000/lab/torch", "mine:1")
    assert image_map.local_name("registry:5000/lab/torch:latest") == "mine:1"
    assert image_map.local_name("registry:5000/lab/torch") == "mine:1"
    assert image_map.local_name("registry:5000/lab/torch:2") is None
    image_map.remove("registry:5000/lab/torch")
    assert image_map.local_name("registry:5000/lab/torch") is None
    with pytest.raises(NotFoundError, match="stands in"):
        image_map.remove("registry:5000/lab/torch")


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', "{", ""])
def test_a_broken_file_of_mapped_images_is_named(own_home: Path, content: str) -> None:
    own_home.mkdir()
    (own_home / "images.json").write_text(content)
    with pytest.raises(RecordError) as caught:
        image_map.mapped()
    assert "images.json" in caught.value.evidence


# -- values ----------------------------------------------------------------------------------
IMAGE = NodeImage(
    name="sha256:1",
    digest="sha256:1",
    kind="named",
    python=("/opt/conda/bin/python", "-I"),
    binds=(("/a b", "/a b", True),),
    notes=("a note",),
    path="/opt/conda/bin:/usr/bin",
    variables={"TOOL": "hammer", "OPAL_PREFIX": "/opt/mpi"},
    openmpi=(5, 0, 11),
)
NODE = NodeInfo(
    name="node0",
    address="10.0.0.1",
    interface="eth0",
    hostname="node0",
    package="/package",
    rank_command=("/here/rank",),
    rsh_command=("/here/rsh",),
    variables={"HOME": "/tmp"},
)


def test_a_node_image_survives_being_written_down() -> None:
    assert NodeImage.decode(IMAGE.encode()) == IMAGE


@pytest.mark.parametrize(
    ("image", "address", "name"),
    [
        ("lab/torch:1", None, "lab/torch:1"),
        ("lab/torch:1", "mine.azurecr.io", "mine.azurecr.io/lab/torch:1"),
        ("lab/torch:1", "https://mine.azurecr.io/", "mine.azurecr.io/lab/torch:1"),
        ("mine.azurecr.io/lab/torch:1", "mine.azurecr.io", "mine.azurecr.io/lab/torch:1"),
    ],
)
def test_the_name_of_an_image_has_its_registry(image: str, address: str | None, name: str) -> None:
    wanted = EnvironmentSpec(image=image, registry=Registry(address=address)).wanted_image
    assert wanted is not None and wanted.name == name


def test_open_mpi_is_told_from_others_by_what_it_says() -> None:
    assert ImageFacts(fits=True, mpi="mpirun (Open MPI) 4.1.4").openmpi == (4, 1, 4)
    assert ImageFacts(fits=True, mpi="HYDRA build details:").openmpi is None
    assert ImageFacts(fits=True).openmpi is None


def test_runs_show_leaves_out_the_password_of_a_registry() -> None:
    registry = Registry(address="r", username="me", password="hunter2")
    job = {"environment": to_plain(EnvironmentSpec(image="i", registry=registry))}
    shown = story._without_password(job)
    assert "hunter2" not in str(shown)
    assert shown["environment"]["registry"]["username"] == "me"
    assert story._without_password({"environment": {}}) == {"environment": {}}
    assert story._without_password(None) is None


# -- on nodes --------------------------------------------------------------------------------
def test_what_runs_in_an_image_finds_the_images_programs_and_the_runs_own() -> None:
    here = {"PATH": "/run/bin:/env/bin:/usr/bin", "OPAL_PREFIX": "/env", "HOME": "/tmp"}
    there = images.environment_in(IMAGE, here, "/run")
    assert there["PATH"] == "/run/bin:/opt/conda/bin:/opt/conda/bin:/usr/bin"
    assert there["OPAL_PREFIX"] == "/opt/mpi"
    assert images.environment_in(None, here, "/run") == here


def test_programs_of_nodes_need_no_library_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    node = images.node_in(IMAGE, NODE)
    assert node.variables == {**IMAGE.variables, "HOME": "/tmp"}
    assert node.limits == IMAGE.notes
    monkeypatch.setenv(PROGRAMS_VARIABLE, "python")
    node = images.node_in(IMAGE, NODE)
    assert node.rank_command[:2] == IMAGE.python
    assert os.path.basename(node.rank_command[2]) == "rank.py"
    assert images.node_in(None, NODE) is NODE


def test_the_run_records_which_image_it_used() -> None:
    built = BuiltEnvironment("/p", "/b", "", True, (), {})
    unused = images.environment_document(built, "lab/torch:1", None)
    assert (unused["image"], unused["image_used"]) == ("lab/torch:1", False)
    used = images.environment_document(built, "lab/torch:1", IMAGE)
    assert (used["image_digest"], used["image_used"]) == ("sha256:1", True)
    assert "image" not in images.environment_document(built, None, None)


# -- this host's Python in an image ------------------------------------------------------------
def test_a_python_goes_into_an_image_with_its_environment_and_its_base() -> None:
    found = image_python.folders(sys.executable)
    base = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    assert os.path.realpath(sys.executable).startswith(tuple(os.path.realpath(f) for f in found))
    assert base in found or base in ("/usr", "/usr/local")
    assert not {"/", "/usr", "/usr/local"} & set(found)


def test_the_c_library_stays_the_images_own() -> None:
    names = [os.path.basename(path) for path in image_python.libraries(sys.executable)]
    assert not [name for name in names if name.startswith(("libc.so", "libm.so", "ld-linux"))]
    assert "libgcc_s.so.1" in names


def test_the_systems_python_does_not_bring_the_system(tmp_path: Path) -> None:
    for prefix in ("/usr", "/usr/local"):
        found = image_python.folders(f"{prefix}/bin/python3.99")
        assert found == [f"{prefix}/bin/python3.99"]
    here = image_python.folders(f"/usr/bin/python3.{sys.version_info[1]}")
    assert len(here) == len(set(here)), "a path can be mounted once"
    own = tmp_path / "bin" / "python3.99"
    own.parent.mkdir()
    own.touch(stat.S_IRWXU)
    assert image_python.folders(str(own)) == [str(tmp_path)]


def test_links_to_the_systems_python_go_along(tmp_path: Path) -> None:
    environment = tmp_path / "env" / "bin"
    environment.mkdir(parents=True)
    (environment / "python3").symlink_to("/usr/bin/python3.99")
    (environment / "python").symlink_to("python3")
    found = image_python.folders(str(environment / "python"))
    assert found == [str(tmp_path / "env"), "/usr/bin/python3.99"]
    (tmp_path / "link").symlink_to("/usr/bin/python3.99")
    (environment / "python3").unlink()
    (environment / "python3").symlink_to(tmp_path / "link")
    found = image_python.folders(str(environment / "python"))
    assert found == [str(tmp_path / "env"), str(tmp_path / "link"), "/usr/bin/python3.99"]
