"""What a run records about the git repository its source comes from.

Git is asked only where a repository is found upwards, and all its answers at the same time:
together they cost what the slowest costs, a few milliseconds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

__all__ = ["properties", "without_credentials"]

_NAMES = {
    "REPOSITORY_URI": ("azureml.git.repository_uri", "mlflow.source.git.repoURL"),
    "BRANCH": ("azureml.git.branch", "mlflow.source.git.branch"),
    "COMMIT": ("azureml.git.commit", "mlflow.source.git.commit"),
    "DIRTY": ("azureml.git.dirty",),
    "BUILD_ID": ("azureml.git.build_id",),
    "BUILD_URI": ("azureml.git.build_uri",),
}
_DEADLINE_S = 5.0  # a repository on a slow disk must not hold up a submission
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")


def properties(folder: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The git properties of a run whose source is ``folder``; empty outside a work tree.

    ``AZUREML_GIT_BRANCH`` and its kin in ``environ`` win over what the repository says.
    """
    environ = os.environ if environ is None else environ
    found = _ask(os.path.abspath(folder), environ)
    for name in _NAMES:
        given = environ.get(f"AZUREML_GIT_{name}")
        if given:
            found[name] = given
    if "REPOSITORY_URI" in found:
        found["REPOSITORY_URI"] = without_credentials(found["REPOSITORY_URI"])
    return {key: value for name, value in found.items() for key in _NAMES[name]}


def without_credentials(url: str) -> str:
    """The URL without the user and password in it.

    >>> without_credentials("https://me:token@example.org/a.git")
    'https://example.org/a.git'
    >>> without_credentials("git@example.org:a.git")
    'git@example.org:a.git'
    """
    return _CREDENTIALS.sub("", url)


def _ask(folder: str, environ: Mapping[str, str]) -> dict[str, str]:
    git = shutil.which("git", path=environ.get("PATH"))
    if git is None or not _in_repository(folder):
        return {}
    # A submission from inside a git hook must not see the hook's repository instead.
    quiet = {key: value for key, value in environ.items() if not key.startswith("GIT_")}
    quiet.update(GIT_OPTIONAL_LOCKS="0", GIT_TERMINAL_PROMPT="0", LC_ALL="C")

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [git, "-C", folder, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=quiet,
        )

    asked = {
        "COMMIT": start("rev-parse", "--verify", "HEAD"),
        "BRANCH": start("symbolic-ref", "--short", "HEAD"),
        "REPOSITORY_URI": start("ls-remote", "--get-url"),
        "DIRTY": start("status", "--porcelain", "."),
    }
    found = {}
    for name, process in asked.items():
        try:
            output, _ = process.communicate(timeout=_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            continue
        text = output.decode("utf-8", "replace").strip()
        if process.returncode == 0 and text:
            found[name] = "True" if name == "DIRTY" else text
    return found


def _in_repository(folder: str) -> bool:
    while True:
        if os.path.exists(os.path.join(folder, ".git")):
            return True
        parent = os.path.dirname(folder)
        if parent == folder:
            return False
        folder = parent
