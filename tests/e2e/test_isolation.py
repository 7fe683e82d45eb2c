"""What a node has of its own, what it shares, and that less of it changes no result."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.cli import doctor
from simgrid_ml.environments.build import ensure
from simgrid_ml.testing.runs import Runs, log

SEES = """
    import json, os, socket
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    node = os.environ["SIMGRID_ML_NODE"]
    with open(f"/dev/shm/of-{node}", "w") as stream:
        stream.write("x" * 1000)
    world.Barrier()
    print(json.dumps({
        "host": socket.gethostname(),
        "uname": os.uname().nodename,
        "pid1": open("/proc/1/cmdline").read().split("\\0")[3:4],
        "shm": sorted(name for name in os.listdir("/dev/shm") if name.startswith("of-")),
        "shm_bytes": os.statvfs("/dev/shm").f_frsize * os.statvfs("/dev/shm").f_blocks,
        "tmp": os.environ["TMPDIR"],
        "sum": world.allreduce(world.rank),
        "uid": os.getuid(),
    }))
    world.Barrier()
    os.unlink(f"/dev/shm/of-{node}") if world.rank % 2 == 0 else None
"""


@pytest.fixture(params=["full", "hostname", "none"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", request.param)
    return str(request.param)


def test_ranks_have_their_node_s_name_and_the_same_result_on_every_rung(
    workspace: Runs, isolation: str
) -> None:
    record = workspace.completed(SEES, mpi=(2, 2), shm_size_bytes=64 * 2**20)
    info = record.document(wire.PLACEMENT)["node_info"]["node1"]
    assert (
        info["isolation"]
        == {
            "full": ["hostname", "pid", "mount", "ipc"],
            "hostname": ["hostname"],
            "none": [],
        }[isolation]
    )
    assert list(doctor.isolation_of_nodes()[0]) == info["isolation"]
    for rank in range(4):
        seen = json.loads(log(record, rank))
        node = f"node{rank // 2}"
        assert (seen["host"], seen["uname"], seen["sum"]) == (node, node, 6)
        if isolation == "full":
            assert seen["shm"] == [f"of-{node}"]
            assert seen["shm_bytes"] == 64 * 2**20
            assert seen["pid1"][0].endswith("agent.py")


def test_what_one_run_leaves_in_shared_memory_no_other_run_sees(workspace: Runs) -> None:
    workspace.completed("open('/dev/shm/left-behind', 'w').write('x')")
    record = workspace.completed(
        "import os; print(os.path.exists('/dev/shm/left-behind'))", mpi=(1, 1)
    )
    assert log(record) == "False\n"
    assert not os.path.exists("/dev/shm/left-behind")


NOBODY = """
import json, os, sys
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.runs import Runs, log, story
folder, interpreter, script = sys.argv[1:]
assert os.getuid() == 65534
with nothing_left(folder):
    record = Runs(folder, EnvironmentSpec(interpreter=interpreter)).completed(script, mpi=(2, 2))
placed = record.document("placement.json")
print(json.dumps([placed["node_info"]["node1"], log(record, 3), story(record)]))
"""

REACHABLE = """
set -e
umask 022
[ -z "$HIDE" ] || mount -t tmpfs none "$HIDE"
hold=$(mktemp -d)
trap 'rmdir "$hold" 2>/dev/null || true' EXIT
top=
while [ "$1" != -- ]; do  # pairs: a closed folder, something in it that is needed
    if [ "$1" != "$top" ]; then
        [ -z "$top" ] || umount -l "$hold"
        top=$1
        mount --bind "$top" "$hold"
        mount -t tmpfs -o mode=755 none "$top"
    fi
    mkdir -p "$2"
    mount --bind "$hold${2#"$top"}" "$2"
    shift 2
done
[ -z "$top" ] || umount -l "$hold"
shift
setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("isolation", ["full", "hostname", "none"])
def test_a_user_without_privileges_gets_the_same(
    tmp_path: Path,
    workspace: Runs,
    isolation: str,
) -> None:
    interpreter = ensure(workspace.environment).python
    folder = _public_folder()
    try:
        argv = [sys.executable, "-c", NOBODY, str(folder), interpreter, SEES]
        answer = _as_nobody(argv, folder, isolation, interpreter)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        info, said, story_ = json.loads(answer.stdout)
        seen = json.loads(said)
        assert (seen["uid"], seen["host"], seen["sum"]) == (65534, "node1", 6), story_
        if not info["limits"]:
            assert ("mount" in info["isolation"]) == (isolation == "full"), story_
        if isolation == "full" and not info["limits"]:
            assert seen["shm"] == ["of-node1"]
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to hide a part of /proc")
def test_a_host_that_refuses_mounts_gives_host_names_at_least(
    tmp_path: Path, workspace: Runs
) -> None:
    # As in most containers: a part of /proc is hidden, so the kernel lets nobody mount another.
    interpreter = ensure(workspace.environment).python
    folder = _public_folder()
    try:
        argv = [sys.executable, "-c", NOBODY, str(folder), interpreter, SEES]
        answer = _as_nobody(argv, folder, "full", interpreter, hide="/proc/tty")
        assert answer.returncode == 0, answer.stdout + answer.stderr
        info, said, story_ = json.loads(answer.stdout)
        seen = json.loads(said)
        assert (seen["host"], seen["sum"]) == ("node1", 6), story_
        assert info["isolation"] in (["hostname"], []), story_
        assert "no own" in info["limits"][0]
    finally:
        shutil.rmtree(folder)


def _public_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="simgrid-ml-nobody-"))
    os.chown(folder, 65534, 65534)
    return folder


def _as_nobody(
    argv: list[str], folder: Path, isolation: str, interpreter: str, hide: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` as the user nobody, who may look into all that is needed for it.

    A home of root's is closed to others, and so is what tox makes. In a mount namespace of its own
    an open folder takes the place of each, with what is needed from it.
    """
    package = os.path.dirname(os.path.dirname(simgrid_ml.__file__))
    prefix = os.path.dirname(os.path.dirname(interpreter))
    real = [
        os.path.dirname(os.path.dirname(os.path.realpath(p))) for p in (sys.executable, interpreter)
    ]
    needed = dict.fromkeys([package, sys.prefix, prefix, *real])
    closed = {path: top for path in needed if (top := _closed(path)) is not None}
    keep = [path for path in closed if not any(path.startswith(k + "/") for k in closed)]
    pairs = sorted((closed[path], path) for path in keep)
    environment = {
        "HIDE": hide,
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": package,
        "SIMGRID_ML_HOME": str(folder / "home"),
        "SIMGRID_ML_CACHE": str(folder / "cache"),
        "SIMGRID_ML_ISOLATION": isolation,
    }
    script = ["sh", "-c", REACHABLE, "sh", *itertools.chain(*pairs), "--", *argv]
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *script],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


def _closed(path: str) -> str | None:
    """The first folder on the way to ``path`` that others may not enter."""
    for parent in [*reversed(Path(path).parents), Path(path)]:
        if not parent.stat().st_mode & 0o001:
            return str(parent)
    return None
