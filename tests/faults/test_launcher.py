"""An mpirun that misbehaves; prterun 5.0.11 now and then hangs after its ranks have ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from simgrid_ml.environments.build import ensure
from simgrid_ml.record.run import RunState
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.runs import Runs, cause, log, story


@pytest.fixture
def odd_mpirun(tmp_path: Path, environment: EnvironmentSpec) -> EnvironmentSpec:
    """The real environment, but its mpirun sleeps when it should end."""
    real = Path(ensure(environment).bin).parent
    odd = tmp_path / "odd"
    (odd / "bin").mkdir(parents=True)
    for entry in real.iterdir():
        if entry.name != "bin":
            (odd / entry.name).symlink_to(entry)
    for entry in (real / "bin").iterdir():
        if entry.name not in ("mpirun", "python"):
            (odd / "bin" / entry.name).symlink_to(entry)
    python, mpirun = odd / "bin" / "python", odd / "bin" / "mpirun"
    python.write_text(
        f'#!/bin/sh\n[ "$1" != -c ] || {{ echo \'[[3, 11, 0], "{python}", {{}}]\'; exit; }}\n'
        f'exec "{real}/bin/python" "$@"\n'
    )
    mpirun.write_text(f'#!/bin/sh\n"{real}/bin/mpirun" "$@"\nexec sleep 600\n')
    for program in (python, mpirun):
        program.chmod(0o755)
    return EnvironmentSpec(interpreter=str(python))


def test_an_mpirun_that_hangs_after_its_ranks_have_ended_well_is_not_waited_for(
    workspace: Runs, odd_mpirun: EnvironmentSpec
) -> None:
    record = workspace.run(
        "from mpi4py import MPI; print(MPI.COMM_WORLD.allreduce(1))",
        mpi=(2, 1),
        environment=odd_mpirun,
    )
    assert record.state is RunState.COMPLETED, story(record)
    assert [log(record, rank) for rank in (0, 1)] == ["2\n", "2\n"]
    assert "launcher-lingers" in [event["event"] for event in record.events()]


def test_an_mpirun_that_hangs_after_a_rank_failed_does_not_hide_the_cause(
    workspace: Runs, odd_mpirun: EnvironmentSpec
) -> None:
    record = workspace.failed(
        """
        import sys
        from mpi4py import MPI
        if MPI.COMM_WORLD.rank == 1:
            sys.exit(3)
        MPI.COMM_WORLD.Barrier()
        """,
        mpi=(2, 1),
        environment=odd_mpirun,
    )
    assert cause(record) == "rank 1 on node1 exited with code 3", story(record)
