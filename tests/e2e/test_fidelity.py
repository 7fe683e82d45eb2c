"""Real runs on a host that is kept busy on purpose, and on nodes that are: both are flagged."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.cli import story
from simgrid_ml.engine import cgroups
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.links import Link, Links
from simgrid_ml.testing.runs import Runs
from simgrid_ml.testing.runs import story as all_of

SLEEPS = "import time; time.sleep(0.5)"
COMPUTES = """
    import time
    end = time.time() + 2
    while time.time() < end:
        pass
"""


@contextlib.contextmanager
def busy_host() -> Iterator[None]:
    """Every core has something else to do."""
    spin = [sys.executable, "-S", "-c", "while True: pass"]
    hogs = [subprocess.Popen(spin) for _ in range(len(os.sched_getaffinity(0)))]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
        for hog in hogs:
            hog.wait()


def stamp(record: RunRecord) -> tuple[str, str]:
    found = story.stamp(record)
    assert found is not None, all_of(record)
    return found


@pytest.mark.parametrize("script", [SLEEPS, COMPUTES])
def test_a_run_on_a_saturated_host_is_flagged_and_still_a_success(
    workspace: Runs, script: str
) -> None:
    with busy_host():
        record = workspace.completed(script, mpi=(2, 1))
    level, why = stamp(record)
    assert level == "invalid", why
    assert "other processes had" in why
    assert story.exit_code(record) == 0
    assert record.document(wire.FIDELITY)["host"]["foreign"]["mean"] > 0.1


def test_the_run_s_own_processes_are_no_strangers(workspace: Runs) -> None:
    """Two ranks that compute for a second each, however long a busy host takes over it."""
    script = "import time\nwhile time.process_time() < 1: pass"
    record = workspace.completed(script, mpi=(2, 1))
    host = record.document(wire.FIDELITY)["host"]
    own_s = (1 - host["foreign"]["mean"]) * host["foreign"]["window_s"] * host["cores"]
    assert own_s > 1.5, host
    assert set(record.document(wire.FIDELITY)["ranks"]) == {"rank-0", "rank-1"}


def test_even_the_shortest_run_gets_a_stamp(workspace: Runs) -> None:
    record = workspace.completed(None, command=("true",), nodes=1)
    level, why = stamp(record)
    assert level in ("valid", "degraded", "invalid") and why
    assert record.document(wire.FIDELITY)["host"]["looks"] >= 2


THROTTLED = """
    import sys
    for file in sys.argv[1:]:
        open(file, "w").write("0")  # the group takes whoever writes
    import time
    end = time.time() + 2
    while time.time() < end:
        pass
"""


@pytest.fixture
def narrow_group(tmp_path: Path) -> Iterator[str]:
    """A control group with so little of a core that even on a busy host it would get more; the file
    that lets processes in."""
    where = cgroups.mounts()
    mount = where.get("cpu") or where[""]
    group = Path(mount.folder) / f"simgrid-ml-test-{os.getpid()}-{tmp_path.name}"
    try:
        group.mkdir()
        if "cpu" in where:
            (group / "cpu.cfs_quota_us").write_text("2000")
        else:
            (group / "cpu.max").write_text("2000 100000")
    except OSError as refused:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"this user may make no control groups with a quota: {refused}")
    try:
        yield str(group / ("tasks" if "cpu" in where else "cgroup.procs"))
    finally:
        group.rmdir()


def test_a_node_whose_quota_stops_it_is_flagged(workspace: Runs, narrow_group: str) -> None:
    record = workspace.completed(THROTTLED, narrow_group, mpi=(1, 1))
    level, why = stamp(record)
    seen = record.document(wire.FIDELITY)["nodes"]["node0"]["throttled"]
    assert level == "invalid", why
    assert "node0 was stopped by its CPU quota" in why, seen
    assert seen["mean"] > 0.1


@pytest.mark.usefixtures("shaped_links")
def test_links_are_measured_before_the_ranks_start(workspace: Runs) -> None:
    links = Links(default=Link(rate_bytes_per_s=12.5e6, delay_s=0.002))
    record = workspace.completed(SLEEPS, mpi=(2, 1), cluster={"links": links})
    seen = record.document(wire.FIDELITY)
    assert [(link["from"], link["to"]) for link in seen["links"]] == [
        ("node0", "node1"),
        ("node1", "node0"),
    ]
    for link in seen["links"]:
        assert link["asked"]["delay_s"] == pytest.approx(0.004)
        assert link["measured"]["delay_s"] >= 0.003, link
        assert link["measured"].get("rate_bytes_per_s", 0.0) < 15e6, link
    events = [event["event"] for event in record.events()]
    assert events.index("links-probed") < events.index("launched")
    assert seen["cables"]
