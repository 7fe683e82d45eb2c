"""What a start does not import: each of these once cost every run, rank or command its share."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from simgrid_ml.native import PACKAGE

ROOT = os.path.dirname(PACKAGE)


def imported(statement: str, *flags: str) -> set[str]:
    """Top-level modules and submodules that a fresh interpreter has after ``statement``."""
    code = (
        f"import sys; before = set(sys.modules); sys.path.insert(0, {ROOT!r}); {statement}\n"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("statement", "avoided"),
    [
        ("import simgrid_ml", {"typing", "re", "msgspec", "asyncio"}),
        ("import simgrid_ml.node.script", {"typing", "json", "re"}),
        ("import simgrid_ml.node.agent", {"typing", "shutil", "subprocess", "asyncio"}),
        ("import simgrid_ml.node.rsh", {"typing", "shutil", "subprocess", "asyncio"}),
    ],
)
def test_what_every_node_and_rank_starts_is_light(statement: str, avoided: set[str]) -> None:
    assert imported(statement, "-I", "-S") & avoided == set()


def test_the_supervisor_starts_without_what_only_some_runs_need() -> None:
    found = imported(
        "import simgrid_ml.engine.supervisor; simgrid_ml.engine.plugins.backend('process')"
    )
    heavy = {
        "importlib.metadata",
        "packaging",
        "pathspec",
        "psutil",
        "pynvml",
        "rich",
        "yaml",
        "click",
    }
    assert found & heavy == set()


def test_a_submission_needs_neither_asyncio_nor_installed_metadata() -> None:
    found = imported(
        "import simgrid_ml.engine.prepare as p; p.plugins.backend('process').inventory()"
    )
    assert found & {"asyncio", "ssl", "importlib.metadata", "rich", "click", "pynvml"} == set()


@pytest.mark.parametrize(
    "module", ["engine.supervisor", "engine.execute", "engine.prepare", "cli.run"]
)
def test_what_only_runs_with_gpus_need_is_imported_by_them(module: str) -> None:
    heavy = {
        "difflib",
        "simgrid_ml.checks.gpus",
        "simgrid_ml.gpus.leases",
        "simgrid_ml.node.gpu_ledger",
        "simgrid_ml.spec.gpu_plan",
    }
    assert imported(f"import simgrid_ml.{module}") & heavy == set()


def test_the_command_line_explains_itself_without_its_commands() -> None:
    found = imported("from simgrid_ml.__main__ import main; main(['--help'])")
    assert found & {"rich", "yaml", "psutil", "asyncio", "msgspec", "ssl"} == set()
