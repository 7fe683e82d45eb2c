"""Ranks that go wrong in every way: the right state, the first cause by name, nothing left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs, cause, evidence, log, story

BEGIN = """
    import os, signal, sys, time
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    culprit = int(sys.argv[1])
    with open(f"outputs/before-{world.rank}.txt", "w") as stream:
        stream.write("written before")
    print("hello from", world.rank, flush=True)
    world.Barrier()
"""


def assert_kept(record: RunRecord, ranks: int = 4) -> None:
    """Nothing that was written before is lost."""
    for rank in range(ranks):
        path = record.artifact(f"outputs/before-{rank}.txt").path
        assert Path(path).read_text() == "written before"
        assert log(record, rank).startswith(f"hello from {rank}\n")


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_a_rank_that_raises_is_named_with_its_traceback(workspace: Runs, rank: int) -> None:
    script = (
        BEGIN
        + "    if world.rank == culprit: raise ValueError('on purpose')\n    world.Barrier()\n"
    )
    record = workspace.failed(script, str(rank), mpi=(2, 2))
    assert cause(record) == f"rank {rank} on node{rank // 2} exited with code 1", story(record)
    assert "Traceback" in evidence(record)
    assert evidence(record).endswith("ValueError: on purpose")
    assert (record.error() or {})["exit_code"] == 1
    failing = [
        name
        for name, lines in record.task_reports().items()
        if any(line["event"] == "failing" for line in lines)
    ]
    assert failing == [f"rank-{rank}"], "it noted its failure before anybody else could see it"
    assert_kept(record)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("sys.exit(3)", "exited with code 3"),
        ("sys.exit('a message')", "exited with code 1"),
        ("os._exit(7)", "exited with code 7"),
        ("world.Abort(5)", "exited with code 5"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os.abort()", "was ended by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
    ],
)
def test_a_rank_that_ends_badly_while_others_wait_is_named(
    workspace: Runs, how: str, said: str
) -> None:
    script = BEGIN + f"    if world.rank == culprit: {how}\n    world.Barrier()\n"
    record = workspace.failed(script, "2", mpi=(2, 2))
    assert cause(record).startswith(f"rank 2 on node1 {said}"), story(record)
    if "message" in how:
        assert evidence(record).endswith("a message")
    assert_kept(record)


def test_a_rank_that_fails_before_it_meets_the_others_is_named(workspace: Runs) -> None:
    record = workspace.failed(
        """
        import os
        if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
            import no_such_module
        from mpi4py import MPI
        MPI.COMM_WORLD.Barrier()
        """,
        mpi=(2, 1),
    )
    assert cause(record) == "rank 1 on node1 exited with code 1", story(record)
    assert "No module named 'no_such_module'" in evidence(record)


def test_a_command_that_does_not_exist_is_told(workspace: Runs) -> None:
    record = workspace.failed(None, command=("no-such-program", "x"), mpi=(2, 1))
    assert "exited with code 127" in cause(record), story(record)
    assert "no-such-program" in evidence(record)


def test_a_plain_process_that_fails_ends_the_others(workspace: Runs) -> None:
    record = workspace.failed(
        """
        import os, sys, time
        if os.environ["SIMGRID_ML_NODE"] == "node1":
            sys.exit(3)
        time.sleep(600)
        """,
        nodes=2,
    )
    assert cause(record) == "rank 1 on node1 exited with code 3", story(record)


@contextlib.contextmanager
def memory_limit(limit_bytes: int) -> Iterator[str]:
    """A cgroup below our own with a limit; gives its ``cgroup.procs``."""
    if os.getuid() != 0:
        pytest.skip("needs root to limit memory")
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    by_controller = {name: path for _, names, path in lines for name in names.split(",")}
    if "memory" in by_controller:
        parent, limit = (
            Path("/sys/fs/cgroup/memory" + by_controller["memory"]),
            "memory.limit_in_bytes",
        )
    else:
        parent, limit = Path("/sys/fs/cgroup"), "memory.max"
    group = parent / f"simgrid-ml-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be written here: {error}")
    try:
        try:
            (group / limit).write_text(str(limit_bytes))
        except OSError as error:
            pytest.skip(f"the memory controller cannot be used here: {error}")
        yield str(group / "cgroup.procs")
    finally:
        wait_until(lambda: _removed(group), "the cgroup is empty")


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def test_a_rank_that_the_kernel_kills_for_memory_is_named_and_told_why(workspace: Runs) -> None:
    with memory_limit(96 * 2**20) as procs:
        script = (
            BEGIN
            + """
    if world.rank == culprit:
        with open(sys.argv[2], "w") as stream:
            stream.write("0")
        hoard = [bytearray(os.urandom(1 << 20)) for _ in range(1000)]
    world.Barrier()
"""
        )
        record = workspace.failed(script, "3", procs, mpi=(2, 2))
    assert cause(record) == (
        "rank 3 on node1 was ended by SIGKILL when the kernel ran out of memory (OOM kill)"
    ), story(record)
    assert "memory" in str((record.error() or {})["remedy"])
    assert_kept(record)


def test_a_rank_that_ignores_sigterm_cannot_keep_a_cancelled_run_alive(workspace: Runs) -> None:
    script = (
        BEGIN
        + """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("deaf", flush=True)
    while True: time.sleep(0.1)
"""
    )
    record = workspace.submit(script, "0", mpi=(2, 1))
    wait_until(lambda: _said(record, "deaf", 2), "both ranks are deaf")
    record.request_cancel()
    assert workspace.ended(record, 15).state is RunState.CANCELED, story(record)
    assert_kept(record, 2)


def test_a_process_may_save_something_when_the_run_is_cancelled(workspace: Runs) -> None:
    # Of MPI's ranks the same cannot be said: prterun gives them 0.25 s between TERM and KILL.
    record = workspace.submit(
        """
        import signal, sys, time
        def save(*_):
            time.sleep(1)
            print("saved", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print("up", flush=True)
        while True: time.sleep(0.1)
        """,
        nodes=2,
    )
    wait_until(lambda: _said(record, "up", 2), "both processes are up")
    record.request_cancel()
    assert workspace.ended(record, 15).state is RunState.CANCELED, story(record)
    assert [log(record, rank) for rank in (0, 1)] == ["up\nsaved\n"] * 2


def _said(record: RunRecord, word: str, ranks: int) -> bool:
    with contextlib.suppress(Exception):
        return all(word in log(record, rank) for rank in range(ranks))
    return False


@pytest.mark.parametrize("isolation", ["full", "none"])
def test_a_stray_child_is_gone_with_the_run(
    workspace: Runs, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", isolation)
    # The fixture finds it by its open file, which is all that ties it to the run.
    record = workspace.completed(
        """
        import os, signal, sys, time
        if os.fork() == 0:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            if os.fork() == 0:
                os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
                os.dup2(1, 2)
                os.set_inheritable(1, True)
                os.chdir("/")
                os.execve("/bin/sleep", ["sleep", "600"], {})
            os._exit(0)
        os.wait()
        print("main ends")
        """,
        "outputs/kept-open",
        mpi=(2, 1),
    )
    assert log(record, 1) == "main ends\n"


def test_two_hundred_megabytes_of_output_arrive_whole(workspace: Runs) -> None:
    record = workspace.completed(
        """
        import sys
        line = b"x" * 999 + b"\\n"
        for _ in range(1000):
            sys.stdout.buffer.write(line * 200)
        """,
        mpi=(1, 1),
    )
    artifact = record.artifact("azureml-logs/70_driver_log_0.txt")
    with open(artifact.path, "rb") as stream:
        head = stream.read(200_000_000)
        closing = stream.read()
    assert head == (b"x" * 999 + b"\n") * 200_000
    assert closing.startswith(b"\nThe activity completed successfully.")


def test_output_that_is_no_utf8_is_kept_byte_by_byte(workspace: Runs) -> None:
    record = workspace.failed(
        """
        import os, sys
        sys.stdout.buffer.write(bytes(range(256)) + b"\\n")
        sys.stdout.flush()
        print("lone surrogate: \\udce9 \\ud800")
        sys.exit(3)
        """,
        mpi=(1, 1),
    )
    raw = Path(record.artifact("azureml-logs/70_driver_log_0.txt").path).read_bytes()
    assert raw.startswith(bytes(range(256)) + b"\n")
    assert b"lone surrogate: \\udce9 \\ud800" in raw
    assert cause(record) == "rank 0 on node0 exited with code 3"
    assert "lone surrogate" in evidence(record)


NO_INIT = """
    import os, sys, time
    if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        {then}
    else:
        from mpi4py import MPI
        MPI.COMM_WORLD.Barrier()
"""


def test_a_rank_that_ends_well_without_init_while_others_wait_is_named(workspace: Runs) -> None:
    record = workspace.failed(NO_INIT.format(then="print('nothing to do')"), mpi=(2, 2))
    assert cause(record).startswith("rank 1 on node0 ended with code 0 while other ranks waited")
    assert "without" in evidence(record) or "init" in evidence(record), story(record)


def test_ranks_that_wait_for_one_that_never_comes_are_ended_by_the_time_limit(
    workspace: Runs,
) -> None:
    record = workspace.run(NO_INIT.format(then="time.sleep(600)"), mpi=(2, 1), max_run_s=1.5)
    assert record.state is RunState.CANCELED, story(record)
    assert "max_run_duration_seconds of 1.5 s exceeded" in str(record.states()[-1])


def test_signals_are_as_a_fresh_process_has_them(workspace: Runs) -> None:
    record = workspace.completed(
        """
        import signal
        print([signal.getsignal(n) is signal.SIG_DFL
               for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)],
              signal.pthread_sigmask(signal.SIG_BLOCK, []))
        """,
        mpi=(1, 1),
    )
    assert log(record) == "[True, True, True] set()\n"
