"""What makes a warm node as good as new; what it must never touch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simgrid_ml.native import PACKAGE
from simgrid_ml.node import renewal


def test_everything_goes_whatever_it_is_called_and_its_folder_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    folder = tmp_path / "folder"
    (folder / "a b\nc" / "deep").mkdir(parents=True)
    (folder / "a b\nc" / "deep" / "file").touch()
    (folder / "link").symlink_to(outside)
    (folder / "locked").mkdir()
    (folder / "locked" / "file").touch()
    (folder / "locked").chmod(0)
    renewal.empty(str(folder))
    assert list(folder.iterdir()) == []
    assert (outside / "kept").exists()


@pytest.mark.parametrize("name", ["runs", "two words\\"])
def test_what_is_mounted_in_a_folder_is_never_touched(tmp_path: Path, name: str) -> None:
    """A bind mount of the same file system, as Docker makes them of run directories."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    inside = tmp_path / "folder" / "deep" / name
    inside.mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "removed").touch()
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(PACKAGE)!r})\n"
        "from simgrid_ml.node import isolation, renewal\n"
        "have, refused = isolation.enter(isolation.FULL)\n"
        "assert 'mount' in have, refused\n"
        "isolation._mount(b'none', b'/', None, isolation._MS_REC | isolation._MS_PRIVATE, None)\n"
        f"isolation._mount({os.fsencode(outside)!r}, {os.fsencode(inside)!r}, None, "
        "isolation._MS_BIND, None)\n"
        f"renewal.empty({str(tmp_path / 'folder')!r})\n"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    assert (outside / "kept").exists()
    assert inside.exists()
    assert not (tmp_path / "folder" / "deep" / "removed").exists()
