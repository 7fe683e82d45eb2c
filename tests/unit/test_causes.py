"""Which of many failures came first, from reports written by hand."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simgrid_ml import wire
from simgrid_ml.engine import causes
from simgrid_ml.engine.agents import Killed
from simgrid_ml.errors import LaunchError, RunFailed, SimgridError
from simgrid_ml.record.read import tail
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import Distribution, JobSpec, Mpi, ParameterServer
from simgrid_ml.spec.placement import HostInventory, Placement, place


class Case:
    """A run of 2 x 2 ranks whose reports a test writes."""

    distribution: Distribution = Mpi(nodes=2, processes_per_node=2)
    launchers: tuple[str, ...] = ("mpirun",)

    def __init__(self, folder: Path) -> None:
        self.record: RunRecord = RunStore(str(folder)).create("test", {"job": {}, "cluster": {}})
        job = JobSpec(
            source="/s",
            entry_script="t.py",
            distribution=self.distribution,
        )
        self.placement: Placement = place(job, ClusterSpec(name="c"), HostInventory(2, 2**30))
        names = [*(task.name for task in self.placement.tasks), *self.launchers]
        self.logs = {name: str(folder / f"{name}.txt") for name in names}
        for name in names:
            self.log(name, f"last words of {name}\n")

    def log(self, name: str, text: str) -> None:
        Path(self.logs[name]).write_text(text)

    def started(self, *ranks: int) -> None:
        for rank in ranks:
            self.say(rank, t=1.0 + rank / 100, event="started")

    def noted(self, rank: int, t: float, code: int = 1) -> None:
        self.say(rank, t=t, event="failing", code=code)

    def ended(
        self, rank: int, t: float, code: int | None = None, signal: int | None = None
    ) -> None:
        self.say(rank, t=t, event="ended", code=code, signal=signal)

    def say(self, rank: int, **line: Any) -> None:
        journal = self.record.journal(wire.TASKS, self.placement.tasks[rank].name)
        journal.append(line)
        journal.close()

    def first(
        self,
        killed: tuple[Killed, ...] = (),
        memory: causes.MemoryKills | None = None,
        **ended: int,
    ) -> SimgridError:
        memory = memory or causes.MemoryKills({})
        return causes.first_cause(self.record, self.placement, self.logs, ended, memory, killed)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_the_rank_that_noted_its_failure_first_is_the_cause(case: Case) -> None:
    case.started(0, 1, 2, 3)
    case.noted(3, t=5.0, code=1)
    case.noted(1, t=5.1, code=1)
    for rank in (0, 2):
        case.ended(rank, t=5.05, signal=15)
    found = case.first(mpirun=1)
    assert isinstance(found, RunFailed)
    assert found.cause == "rank 3 on node1 exited with code 1"
    assert found.evidence == "last words of rank-3"
    assert case.record.id in found.remedy


def test_what_the_message_of_an_error_says_to_do_is_the_remedy(case: Case) -> None:
    case.started(0, 1, 2, 3)
    case.noted(3, t=5.0, code=1)
    advice = "[simgrid-ml] of something else\n"
    case.log("rank-3", advice)  # and then exit(3), say
    assert case.record.id in case.first(mpirun=1).remedy
    error = "Traceback (most recent call last):\n  ...\nRuntimeError: CUDA error: no such\n"
    case.log("rank-3", f"{advice}{error}")
    assert case.record.id in case.first(mpirun=1).remedy
    case.log("rank-3", f"{advice}{error}[rank3]: [simgrid-ml] use the local rank\n")
    assert case.first(mpirun=1).remedy == "use the local rank"
    deep = error.replace("  ...\n", "  ...\n" * 60)
    case.log("rank-3", f"{deep}[simgrid-ml] use the local rank\n")
    assert case.first(mpirun=1).remedy == "use the local rank"
    case.log("rank-3", f"{error}[simgrid-ml] {'it is full. ' * 50}Try: another\n")
    assert case.first(mpirun=1).remedy == "another"


@pytest.mark.parametrize("signal", [9, 11, 7])
def test_a_crash_comes_before_what_its_peers_reported_a_moment_earlier(
    case: Case, signal: int
) -> None:
    case.started(0, 1, 2, 3)
    case.noted(0, t=4.99)
    case.ended(2, t=5.0, signal=signal)
    assert case.first(mpirun=1).cause.startswith("rank 2 on node1 was ended by SIG")


def test_a_real_time_signal_is_told_by_its_number(case: Case) -> None:
    case.started(0, 1, 2, 3)
    case.ended(2, t=5.0, signal=40)
    assert "was ended by signal 40" in case.first(mpirun=1).cause


def test_a_rank_that_mpi_ended_for_a_lost_peer_is_not_the_cause(case: Case) -> None:
    case.started(0, 1, 2, 3)
    case.ended(0, t=4.9, code=14)
    case.ended(3, t=4.95, code=14)
    case.ended(1, t=5.0, code=7)
    assert case.first(mpirun=14).cause == "rank 1 on node0 exited with code 7"


@pytest.mark.parametrize(
    "words",
    [
        "horovod.common.exceptions.HorovodInternalError: ...",
        "tensorflow...UnknownError: {{function_node ...}} Horovod has been shut down. This was ...",
    ],
)
def test_a_rank_that_says_it_lost_a_peer_is_not_the_cause(case: Case, words: str) -> None:
    case.started(0, 1, 2, 3)
    case.log("rank-0", words)
    case.noted(0, t=4.9)
    case.ended(1, t=5.0, code=7)
    assert case.first(mpirun=1).cause == "rank 1 on node0 exited with code 7"


def test_a_rank_that_exits_with_the_same_code_by_itself_is_the_cause(case: Case) -> None:
    case.started(0, 1, 2, 3)
    case.noted(2, t=4.9, code=14)
    case.ended(1, t=5.0, code=7)
    assert case.first(mpirun=14).cause == "rank 2 on node1 exited with code 14"


def test_ranks_that_were_told_to_end_are_consequences(case: Case) -> None:
    case.started(0, 1, 2, 3)
    for rank in (0, 1, 2):
        case.ended(rank, t=4.0 + rank, signal=15)
    case.ended(3, t=9.0, code=3)
    assert case.first(mpirun=3).cause == "rank 3 on node1 exited with code 3"


def test_a_rank_that_fell_silent_is_named_when_no_other_failed(case: Case) -> None:
    case.started(0, 1, 2, 3)
    for rank in (0, 1, 3):
        case.ended(rank, t=5.0, signal=15)
    assert case.first(mpirun=137).cause.startswith("rank 2 on node1 was killed together")


def test_of_several_silent_ranks_the_launcher_s_word_decides(case: Case) -> None:
    case.started(0, 1, 2, 3)
    case.log("mpirun", "prterun noticed that process rank 3 with PID 9 on node node1 exited on")
    assert case.first(mpirun=137).cause.startswith("rank 3 on node1")


def test_a_rank_that_left_the_others_waiting_is_named(case: Case) -> None:
    case.started(0, 1, 2, 3)
    case.ended(1, t=4.0, code=0)
    for rank in (0, 2, 3):
        case.ended(rank, t=5.0, signal=15)
    found = case.first(mpirun=1)
    assert found.cause.startswith("rank 1 on node0 ended with code 0 while other ranks waited")
    assert found.evidence == "last words of mpirun"


def test_a_memory_kill_is_told_as_such_only_if_the_kernel_counted_one(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.started(0, 1, 2, 3)
    case.ended(2, t=5.0, signal=9)
    memory = causes.MemoryKills({})
    monkeypatch.setattr(causes, "oom_kills", lambda: 10**9)
    assert "OOM kill" in case.first(memory=memory, mpirun=137).cause
    assert "somebody killed it" in case.first(mpirun=137).cause


class Shared(Case):
    """A run of a parameter server and two workers, each watched by itself."""

    distribution = ParameterServer(nodes=2, workers=2, servers=1)
    launchers = ()


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    case = Shared(tmp_path)
    case.started(0, 1, 2)
    return case


LOST_IT = [
    "tensorflow.python.framework.errors_impl.UnavailableError: recvmsg:Connection reset by peer",
    "E0000 UNAVAILABLE: Socket closed",
    "failed to connect to all addresses",
    "Additional GRPC error information: Socket closed",
]


@pytest.mark.parametrize("words", LOST_IT)
def test_a_worker_that_says_it_lost_its_server_is_not_the_cause(shared: Shared, words: str) -> None:
    shared.log("worker-0", words)
    shared.noted(1, t=4.0)
    shared.ended(0, t=4.2, code=3)
    found = shared.first(**{"worker-0": 1})
    assert found.cause == "parameter server 0 on node0 exited with code 3"


def test_a_server_that_was_told_to_end_is_the_cause_and_not_who_lost_it(shared: Shared) -> None:
    shared.log("worker-0", LOST_IT[0])
    shared.noted(1, t=4.1)
    shared.ended(0, t=4.0, signal=15)
    found = shared.first(**{"worker-0": 1})
    assert found.cause == "parameter server 0 on node0 was ended by SIGTERM"


def test_a_server_that_ended_well_is_the_cause_if_all_that_failed_lost_somebody(
    shared: Shared,
) -> None:
    for worker in (0, 1):
        shared.log(f"worker-{worker}", LOST_IT[0])
    shared.ended(0, t=4.0, code=0)
    shared.noted(2, t=4.1)
    shared.noted(1, t=4.2)
    found = shared.first(**{"worker-0": 1})
    assert found.cause == (
        "parameter server 0 on node0 ended with code 0, and worker 1 on node1 and 1 more failed "
        "without it"
    )
    assert "UnavailableError" in found.evidence and "server.join()" in found.remedy
    shared.log("worker-1", "ValueError: a mistake of its own")
    assert shared.first(**{"worker-0": 1}).cause == "worker 1 on node1 exited with code 1"


def test_who_still_runs_is_not_taken_for_killed(shared: Shared) -> None:
    shared.ended(1, t=4.0, code=0)
    shared.ended(2, t=5.0, signal=15)
    assert shared.first(**{"worker-1": 143}).cause == "worker 1 on node1 was ended by SIGTERM"


def test_who_is_watched_by_nobody_any_more_is_named(shared: Shared) -> None:
    assert shared.first(**{"ps-0": -9}).cause == (
        "parameter server 0 on node0 was killed together with the process that watched it"
    )


def test_a_port_that_is_in_use_is_told_however_long_the_line(shared: Shared) -> None:
    shared.log("ps-0", f"E1121 server_chttp2.cc:40] {'x' * 1500} Address already in use (98)\nbye")
    shared.noted(0, t=4.0)
    found = shared.first(**{"ps-0": 1})
    assert found.cause.endswith("exited with code 1; a port that it wanted is in use already")


V1 = {"memory.limit_in_bytes": "536870912\n", "memory.oom_control": "under_oom 0\noom_kill 0\n"}
V2 = {"memory.max": "536870912\n", "memory.events": "low 0\noom 0\noom_kill 0\n"}


@pytest.fixture(params=[V1, V2], ids=["v1", "v2"])
def node1_of_512_mib(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Folder of node1's control group, in the form of either version; its agent is process 1."""
    folder = tmp_path / "group"
    folder.mkdir()
    for name, text in request.param.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(
        causes, "group_folder", lambda pid, controller: str(folder) if pid == 1 else None
    )
    return folder


def count_a_kill(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_text(path.read_text().replace("oom_kill 0", "oom_kill 1"))


def test_a_rank_that_exceeded_its_nodes_memory_is_told_with_the_limit(
    case: Case, node1_of_512_mib: Path
) -> None:
    case.started(0, 1, 2, 3)
    case.ended(2, t=5.0, signal=9)
    memory = causes.MemoryKills({"node0": 2, "node1": 1})
    assert "somebody killed it" in case.first(memory=memory, mpirun=137).cause
    count_a_kill(node1_of_512_mib)
    found = case.first(memory=memory, mpirun=137)
    assert found.cause == "rank 2 on node1 was killed: out of memory (limit 512 MiB)"
    assert "larger VM size" in found.remedy


def test_a_kill_on_another_node_or_before_the_start_explains_nothing(
    case: Case, node1_of_512_mib: Path
) -> None:
    case.started(0, 1, 2, 3)
    case.ended(1, t=5.0, signal=9)
    memory = causes.MemoryKills({"node1": 1})
    count_a_kill(node1_of_512_mib)
    assert "out of memory" not in case.first(memory=memory, mpirun=137).cause
    case.ended(2, t=4.0, signal=9)
    assert "out of memory" in case.first(memory=memory, mpirun=137).cause
    assert "out of memory" not in case.first(memory=causes.MemoryKills({"node1": 1})).cause


def test_a_rank_that_failed_since_something_it_started_was_killed_for_memory(
    case: Case, node1_of_512_mib: Path
) -> None:
    case.started(0, 1, 2, 3)
    case.noted(2, t=5.0, code=1)
    memory = causes.MemoryKills({"node1": 1})
    count_a_kill(node1_of_512_mib)
    assert case.first(memory=memory, mpirun=1).cause == (
        "rank 2 on node1 exited with code 1; node1 ran out of memory (limit 512 MiB)"
    )


def test_ranks_that_never_started_are_a_matter_of_the_launch(case: Case) -> None:
    case.started(0)
    found = case.first(mpirun=213)
    assert isinstance(found, LaunchError)
    assert found.cause == "3 of 4 tasks did not start; mpirun ended with code 213"
    assert found.evidence == "last words of mpirun"


def test_a_rank_that_failed_before_others_started_is_the_cause_nevertheless(case: Case) -> None:
    case.started(0)
    case.noted(0, t=2.0)
    assert case.first(mpirun=1).cause == "rank 0 on node0 exited with code 1"


def test_a_launcher_that_fails_although_no_rank_did_is_named(case: Case) -> None:
    case.started(0, 1, 2, 3)
    for rank in range(4):
        case.ended(rank, t=5.0, code=0)
    assert case.first(mpirun=1).cause == "mpirun ended with code 1 although no task failed"


def test_a_killed_launcher_is_the_cause_of_what_its_ranks_did_then(case: Case) -> None:
    case.started(0, 1, 2, 3)
    case.noted(1, t=5.1)
    killed = (Killed("mpirun", 5.0, 9),)
    assert case.first(killed, mpirun=-9).cause.startswith("mpirun was ended by SIGKILL")


def test_a_rank_that_failed_before_the_launcher_was_killed_is_the_cause(case: Case) -> None:
    case.started(0, 1, 2, 3)
    case.noted(1, t=4.9)
    killed = (Killed("mpirun", 5.0, 9),)
    assert case.first(killed, mpirun=-9).cause == "rank 1 on node0 exited with code 1"


def test_a_launcher_that_ends_well_without_its_ranks_is_not_believed(case: Case) -> None:
    case.started(0, 1, 2, 3)
    for rank in (0, 1):
        case.ended(rank, t=5.0, code=0)
    assert not causes.all_ended_well(case.record, case.placement)
    assert case.first(mpirun=0).cause.startswith("rank 2 on node1 was killed together")


def test_all_ended_well_means_every_one_with_code_zero(case: Case) -> None:
    case.started(0, 1, 2, 3)
    for rank in range(4):
        assert not causes.all_ended_well(case.record, case.placement)
        case.ended(rank, t=5.0, code=0)
    assert causes.all_ended_well(case.record, case.placement)


events = st.sampled_from(["none", "started", "failing", "code", "signal", "term", "well"])


@settings(max_examples=60, deadline=None)
@given(st.lists(events, min_size=4, max_size=4), st.sampled_from([0, 1, 137, -9]))
def test_whatever_the_ranks_said_there_is_one_cause_with_a_remedy(
    tmp_path_factory: pytest.TempPathFactory, said: list[str], code: int
) -> None:
    case = Case(tmp_path_factory.mktemp("case"))
    for rank, what in enumerate(said):
        if what != "none":
            case.started(rank)
        if what == "failing":
            case.noted(rank, t=5.0)
        elif what in ("code", "signal", "term", "well"):
            signal = {"signal": 6, "term": 15}.get(what)
            exit_code = {"code": 3, "well": 0}.get(what)
            case.ended(rank, t=5.0, code=exit_code, signal=signal)
    if set(said) == {"well"} and code == 0:
        return  # nothing failed
    found = case.first(mpirun=code)
    assert found.cause and found.remedy
    failing = [rank for rank, what in enumerate(said) if what in ("failing", "code", "signal")]
    if failing:
        assert any(found.cause.startswith(f"rank {rank} ") for rank in failing)


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        (b"", 3, ""),
        (b"one\ntwo\nthree\nfour\n", 2, "three\nfour"),
        (b"\xff\xfe bytes\n", 3, "\ufffd\ufffd bytes"),
        (b"x" * 10_000, 3, "x" * 500),
        (b"a\n" * 100_000 + b"end", 1, "end"),
    ],
)
def test_the_tail_of_a_log_whatever_it_holds(
    tmp_path: Path, text: bytes, lines: int, expected: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    assert tail(str(path), lines) == expected
    assert tail(str(tmp_path / "none"), lines) == ""
