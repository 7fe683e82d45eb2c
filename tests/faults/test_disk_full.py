"""A disk that fills up while a run writes to it: the run ends, and says why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from simgrid_ml.record.run import RunState
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.runs import Runs, cause, log, story


@pytest.fixture(params=["process", "docker"])
def small_disk(
    request: pytest.FixtureRequest, tmp_path: Path, environment: EnvironmentSpec
) -> Iterator[Runs]:
    """A workspace on a file system of 4 MiB, whose runs are on either backend."""
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    if os.getuid() != 0:
        pytest.skip("needs root to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"tmpfs cannot be mounted: {mounted.stderr.decode()}")
    try:
        with nothing_left(str(tmp_path / "disk" / "runs")):
            (disk / "runs").mkdir()
            yield Runs(str(disk / "runs"), environment, {"backend": request.param})
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_rank_that_fills_the_disk_with_its_log_fails_with_that_cause(small_disk: Runs) -> None:
    record = small_disk.failed(
        """
        from mpi4py import MPI
        world = MPI.COMM_WORLD
        print("hello from", world.rank, flush=True)
        world.Barrier()
        if world.rank == 1:
            while True:
                print("x" * 1000, flush=True)
        world.Barrier()
        """,
        mpi=(2, 1),
    )
    assert "the disk that holds the run is full" in cause(record), story(record)
    assert cause(record).startswith("rank 1 on node1"), story(record)
    assert "simgrid-ml runs delete" in str(record.error())
    assert log(record, 0).startswith("hello from 0\n")
    assert log(record, 1).startswith("hello from 1\nxxx")


def test_a_rank_that_fills_the_disk_with_outputs_fails_with_that_cause(small_disk: Runs) -> None:
    record = small_disk.failed(
        """
        with open("outputs/model.bin", "wb") as stream:
            while True:
                stream.write(b"x" * 65536)
        """,
        mpi=(1, 1),
    )
    assert "the disk that holds the run is full" in cause(record), story(record)


def test_a_rank_that_survives_a_full_disk_completes_and_keeps_what_fitted(small_disk: Runs) -> None:
    record = small_disk.run(
        """
        import os
        try:
            with open("outputs/model.bin", "wb", buffering=0) as stream:
                while True:
                    stream.write(b"x" * 65536)
        except OSError:
            os.unlink("outputs/model.bin")
        print("survived", flush=True)
        """,
        mpi=(1, 1),
    )
    assert record.state is RunState.COMPLETED, story(record)
    assert log(record) == "survived\n"


def test_a_disk_that_is_full_from_the_beginning_refuses_the_submission(small_disk: Runs) -> None:
    from simgrid_ml.errors import SimgridError

    with open(os.path.join(small_disk.folder, "filler"), "wb") as stream:
        try:
            while True:
                stream.write(b"x" * 65536)
                stream.flush()
        except OSError:
            pass
        source = "/usr/lib"
    try:
        with pytest.raises((SimgridError, OSError)):
            small_disk.submit(None, source=source, entry_script="os-release")
        assert small_disk.store.list() == []
    finally:
        os.unlink(os.path.join(small_disk.folder, "filler"))
