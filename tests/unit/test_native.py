"""Compiling the node programs, and doing without where that is impossible."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simgrid_ml import native
from simgrid_ml.errors import NodeError


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    native.node_program.cache_clear()
    yield
    native.node_program.cache_clear()


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``cc`` that copies /bin/true and counts its calls in the file beside it; an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    cc = folder / "cc"
    cc.write_text(
        '#!/bin/sh\necho "$@" >> "$0.calls"\n'
        'while [ "$1" != -o ]; do shift; done; cp /bin/true "$2"\n'
    )
    cc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("SIMGRID_ML_CACHE", str(tmp_path / "cache"))
    return cc


def calls(compiler: Path) -> list[str]:
    path = compiler.with_name("cc.calls")
    return path.read_text().splitlines() if path.exists() else []


def in_python(name: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", f"{native.PACKAGE}/node/{name}.py")


def test_a_program_is_compiled_once_and_found_afterwards(compiler: Path) -> None:
    first = native.compiled("node/rank.c")
    assert native.compiled("node/rank.c") == first
    assert os.access(first, os.X_OK)
    assert len(calls(compiler)) == 1


def test_other_flags_make_another_product(compiler: Path) -> None:
    assert native.compiled("node/hostname.c", "-shared") != native.compiled("node/hostname.c")


def test_nothing_half_made_is_left_when_the_compiler_fails(compiler: Path, tmp_path: Path) -> None:
    compiler.write_text("#!/bin/sh\necho no headers here >&2\nexit 1\n")
    with pytest.raises(NodeError) as caught:
        native.compiled("node/rank.c")
    assert "no headers here" in caught.value.evidence
    assert list((tmp_path / "cache" / "lib").iterdir()) == []


def test_nodes_do_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SIMGRID_ML_CACHE", str(tmp_path / "cache"))
    assert native.node_program("rank") == in_python("rank")


def test_nodes_do_with_a_cache_that_cannot_be_written(
    compiler: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("SIMGRID_ML_CACHE", str(blocked))
    assert native.node_program("rsh") == in_python("rsh")


def test_the_python_programs_can_be_asked_for(
    compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.PROGRAMS_VARIABLE, "python")
    assert native.node_program("rank") == in_python("rank")
    assert calls(compiler) == []
