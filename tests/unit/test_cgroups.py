"""Where the kernel keeps the accounts of a process, in both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simgrid_ml.backends.cgroups import MemoryGroup, group_folder


def test_the_group_of_a_process_that_is_gone_is_none() -> None:
    assert group_folder(2**22 + 1, "memory") is None


def test_the_group_of_this_process_holds_it() -> None:
    folder = group_folder(os.getpid(), "memory")
    if folder is None:  # a machine that shows none: then there is nothing to read
        assert not os.path.exists("/sys/fs/cgroup/memory/cgroup.procs")
        assert not os.path.exists("/sys/fs/cgroup/cgroup.procs")
        return
    assert str(os.getpid()) in (Path(folder) / "cgroup.procs").read_text().split()


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.limit_in_bytes", "536870912\n", 2**29),
        ("memory.limit_in_bytes", "9223372036854771712\n", None),
        ("memory.max", "536870912\n", 2**29),
        ("memory.max", "max\n", None),
    ],
)
def test_limits_of_both_versions(tmp_path: Path, name: str, text: str, limit: int | None) -> None:
    assert MemoryGroup(str(tmp_path)).limit_bytes is None
    (tmp_path / name).write_text(text)
    assert MemoryGroup(str(tmp_path)).limit_bytes == limit


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n"),
    ],
)
def test_kills_of_both_versions(tmp_path: Path, name: str, text: str) -> None:
    assert MemoryGroup(str(tmp_path)).oom_kills() == 0
    (tmp_path / name).write_text(text)
    assert MemoryGroup(str(tmp_path)).oom_kills() == 3
