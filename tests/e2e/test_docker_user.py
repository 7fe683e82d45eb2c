"""Containers for a user who is not root: everything is, and stays, that user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.native import PACKAGE
from simgrid_ml.testing.leaks import nothing_left

NOBODY = 65534
SYSTEM_PYTHON = "/usr/bin/python3"
SCRIPT = """
import os, socket
name = socket.gethostname()
own = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
print("rank says", os.getuid(), name, int(own[0], 16), socket.gethostbyname("node1"), flush=True)
open(f"outputs/{name}.txt", "w").write("mine")
open("/tmp/mine", "w").write("mine")
"""


def runs(python: str, packages: str) -> bool:
    """Whether the user nobody can run this package with it."""
    asked = [python, "-c", "import sys, msgspec, simgrid_ml; print(*sys.version_info[:2])"]
    variables = {"PYTHONPATH": packages}
    try:
        done = subprocess.run(asked, capture_output=True, text=True, user=NOBODY, env=variables)
    except OSError:
        return False
    return done.stdout.split() == [str(number) for number in sys.version_info[:2]]


@pytest.fixture(scope="module")
def packages() -> Iterator[str]:
    """What is installed here, where everybody can read it; environments of tox are closed."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        unused = shutil.ignore_patterns("uv", "__pycache__", "mypy*", "hypothesis")
        for path in sys.path:
            if path.endswith("site-packages"):
                shutil.copytree(path, folder, ignore=unused, dirs_exist_ok=True)
        shutil.copytree(PACKAGE, f"{folder}/simgrid_ml", ignore=unused, dirs_exist_ok=True)
        yield folder


@pytest.fixture
def python(docker_engine: Engine, packages: str) -> str:
    if os.getuid() != 0:
        pytest.skip("only root can become another user; all other tests run as this one")
    for python in (sys.executable, SYSTEM_PYTHON):
        if runs(python, packages):
            return python
    pytest.skip(
        f"neither {sys.executable} nor {SYSTEM_PYTHON} is one that nobody can run this with"
    )


@pytest.fixture
def home(python: str) -> Iterator[Path]:
    """A folder of nobody's, closed to others, in which nothing becomes another's."""
    with tempfile.TemporaryDirectory() as folder, nothing_left(folder):
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)
        owners = {
            os.lstat(os.path.join(base, name)).st_uid
            for base, folders, files in os.walk(folder)
            for name in (*folders, *files)
        }
        assert owners == {NOBODY}


@pytest.mark.parametrize("network", [(), ("--rate", "100Mbit", "--delay", "5ms")])
def test_a_user_of_the_engines_group_needs_no_more(
    home: Path, python: str, packages: str, docker_engine: Engine, network: tuple[str, ...]
) -> None:
    group = os.stat(docker_engine.address.removeprefix("unix://")).st_gid
    as_nobody = {"user": NOBODY, "group": group, "extra_groups": [NOBODY], "umask": 0o077}
    write = "import os, sys; os.makedirs(os.path.dirname(sys.argv[1])); "
    write += "open(sys.argv[1], 'w').write(sys.argv[2])"
    script = str(home / "source" / "train.py")
    subprocess.run([python, "-I", "-c", write, script, SCRIPT], check=True, **as_nobody)
    words = ["run", "--backend", "docker", "--nodes", "2", "--plain", "--vm-size", "Standard_D1_v2"]
    done = subprocess.run(
        [python, "-m", "simgrid_ml", *words, *network, "--interpreter", python, script],
        **as_nobody,
        env={"PYTHONPATH": packages, "HOME": str(home), "PATH": os.defpath},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert "Completed" in done.stdout, done.stdout + done.stderr
    for node in range(2):
        assert f"[{node}] rank says {NOBODY} node{node} 0 10." in done.stdout, done.stdout
