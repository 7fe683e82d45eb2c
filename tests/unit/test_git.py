"""What a run records about its source's repository."""

import shutil
import subprocess
from pathlib import Path

import pytest

from simgrid_ml.engine import git

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def run(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@x", *arguments],
            cwd=tmp_path / "repo",
            check=True,
            capture_output=True,
        )

    (tmp_path / "repo" / "src").mkdir(parents=True)
    (tmp_path / "repo" / "src" / "train.py").write_text("x")
    run("init", "-b", "topic")
    run("remote", "add", "origin", "https://me:secret@example.org/team/repo.git")
    run("add", ".")
    run("commit", "-m", "one")
    return tmp_path / "repo"


@needs_git
def test_a_clean_repository_gives_its_address_branch_and_commit(repository):
    found = git.properties(str(repository / "src"), {"PATH": "/usr/bin:/bin:/usr/local/bin"})
    assert found["azureml.git.repository_uri"] == "https://example.org/team/repo.git"
    assert found["mlflow.source.git.repoURL"] == found["azureml.git.repository_uri"]
    assert found["azureml.git.branch"] == found["mlflow.source.git.branch"] == "topic"
    assert len(found["azureml.git.commit"]) == 40
    assert "azureml.git.dirty" not in found
    assert "secret" not in str(found)


@needs_git
def test_a_change_in_the_source_folder_makes_it_dirty_and_one_beside_it_does_not(repository):
    (repository / "other.txt").write_text("x")
    assert "azureml.git.dirty" not in git.properties(str(repository / "src"))
    (repository / "src" / "new.py").write_text("x")
    assert git.properties(str(repository / "src"))["azureml.git.dirty"] == "True"


@needs_git
def test_a_repository_without_a_commit_or_a_remote_gives_what_it_has(tmp_path):
    subprocess.run(["git", "init", "-b", "main", str(tmp_path)], check=True, capture_output=True)
    assert git.properties(str(tmp_path)) == {
        "azureml.git.branch": "main",
        "mlflow.source.git.branch": "main",
    }


@needs_git
def test_variables_of_another_repository_do_not_count(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git.properties(str(repository))["azureml.git.branch"] == "topic"


def test_no_process_is_started_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(git, "_in_repository", lambda folder: False)
    assert git.properties(str(tmp_path)) == {}


def test_variables_override_and_their_credentials_go_too(tmp_path):
    found = git.properties(
        str(tmp_path),
        {
            "AZUREML_GIT_REPOSITORY_URI": "https://token@example.org/x",
            "AZUREML_GIT_BUILD_ID": "7",
            "PATH": "",
        },
    )
    assert found == {
        "azureml.git.repository_uri": "https://example.org/x",
        "mlflow.source.git.repoURL": "https://example.org/x",
        "azureml.git.build_id": "7",
    }


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://u:p@h/x", "https://h/x"),
        ("https://u:p@ss@h/x", "https://h/x"),
        ("https://h/x@y", "https://h/x@y"),
        ("git@h:x", "git@h:x"),
        ("ssh://git@h/x", "ssh://h/x"),
    ],
)
def test_credentials_are_stripped(url, clean):
    assert git.without_credentials(url) == clean
