"""What a node forgets between two runs, and what it must not touch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simgrid_ml.node import renewal


def test_a_folder_is_emptied_whatever_is_in_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("x")
    (folder / "link").symlink_to(outside)
    (folder / "a" / "up").symlink_to(tmp_path)
    (folder / "a").chmod(0o500)
    renewal.empty(str(folder))
    assert list(folder.iterdir()) == []
    assert outside.read_text() == "kept"


@pytest.mark.parametrize("name", ["runs", "two words\\", "new\nline"])
def test_what_is_mounted_in_a_folder_is_somebody_elses(tmp_path: Path, name: str) -> None:
    """A workspace below /tmp is mounted in the node's own /tmp; its runs once were emptied."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "result").write_text("kept")
    folder = tmp_path / "folder"
    target = folder / "deep" / name
    target.mkdir(parents=True)
    (folder / "rest").write_text("x")
    script = """
import ctypes, os, sys
from simgrid_ml.node import isolation, renewal
libc = ctypes.CDLL(None, use_errno=True)
flags = 0x20000 | (0 if os.geteuid() == 0 else 0x10000000)
assert libc.unshare(flags) == 0, os.strerror(ctypes.get_errno())
source, target, folder = map(os.fsencode, sys.argv[1:4])
assert libc.mount(source, target, None, 0x1000, None) == 0, os.strerror(ctypes.get_errno())
renewal.empty(sys.argv[3])
"""
    subprocess.run(
        [sys.executable, "-c", script, str(shared), str(target), str(folder)], check=True
    )
    assert (shared / "result").read_text() == "kept"
    assert sorted(os.listdir(folder)) == ["deep"]
