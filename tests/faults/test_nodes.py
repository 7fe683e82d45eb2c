"""Nodes that do not come up."""

from __future__ import annotations

from pathlib import Path

from simgrid_ml.errors import NodeError
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.testing.runs import Runs, cause, story


def kind_and_evidence(record: RunRecord) -> tuple[str, str]:
    error = record.error() or {}
    return error["kind"], error["evidence"]


def test_nodes_that_never_report_are_named_after_the_deadline(
    workspace: Runs, odd_backends: Path
) -> None:
    record = workspace.failed(
        "print(1)", mpi=(2, 1), cluster={"backend": "silent"}, launch_timeout_s=0.3
    )
    assert cause(record) == "node0, node1 did not report within 0.3 s (0 of 2 nodes did)"
    assert kind_and_evidence(record)[0] == NodeError.__name__
    assert record.error()["exit_code"] == 5, story(record)  # type: ignore[index]


def test_agents_that_fail_are_told_with_their_last_words(
    workspace: Runs, odd_backends: Path
) -> None:
    record = workspace.failed("print(1)", mpi=(2, 1), cluster={"backend": "broken"})
    assert cause(record) == "the agents of node0, node1 ended before they had reported"
    kind, evidence = kind_and_evidence(record)
    assert kind == NodeError.__name__
    assert "boom: no agent today" in evidence, story(record)


def test_an_environment_that_is_none_fails_the_run(workspace: Runs, tmp_path: Path) -> None:
    from simgrid_ml.spec.job import EnvironmentSpec

    given = EnvironmentSpec(interpreter="/no/such/python")
    record = workspace.failed("print(1)", mpi=(2, 1), environment=given)
    assert "/no/such/python does not exist" in cause(record)
    assert [move["state"] for move in record.states()] == ["NotStarted", "Preparing", "Failed"]


def test_an_environment_without_mpi_is_told(workspace: Runs, tmp_path: Path) -> None:
    import venv

    venv.create(tmp_path / "bare", symlinks=True)
    from simgrid_ml.spec.job import EnvironmentSpec

    given = EnvironmentSpec(interpreter=str(tmp_path / "bare" / "bin" / "python"))
    record = workspace.run("print(1)", mpi=(2, 1), environment=given)
    assert record.state is RunState.FAILED, story(record)
    assert "mpirun" in str(record.error()), story(record)


def test_ranks_that_do_not_start_in_time_are_named(workspace: Runs, tmp_path: Path) -> None:
    # An mpirun that never gets anywhere, in an environment that is otherwise the real one.
    from simgrid_ml.spec.job import EnvironmentSpec

    folder = tmp_path / "odd" / "bin"
    folder.mkdir(parents=True)
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho '[[3, 11, 0], \"{python}\", {{}}]'\n")
    (folder / "mpirun").write_text("#!/bin/sh\nexec sleep 600\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    record = workspace.failed(
        "print(1)",
        mpi=(2, 1),
        environment=EnvironmentSpec(interpreter=str(python)),
        launch_timeout_s=0.5,
    )
    assert cause(record) == "2 of 2 tasks did not start within 0.5 s: rank-0, rank-1"
