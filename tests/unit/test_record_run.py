"""A run directory: its states against a model, its lock, its artifacts."""

import io
import os
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simgrid_ml import wire
from simgrid_ml.errors import ConflictError, IllegalMove, NotFoundError
from simgrid_ml.record.follow import follow, wait_state
from simgrid_ml.record.journal import read_json
from simgrid_ml.record.run import RunLock, RunRecord, RunState
from simgrid_ml.record.store import RunStore

S = RunState


@pytest.fixture
def record(tmp_path):
    return RunStore(str(tmp_path / "ws")).create("exp", {"job": {}})


@pytest.fixture
def held(record):
    lock = RunLock.take(record.path)
    yield record
    lock.close()


@pytest.fixture
def abandoned(record):
    """Its supervisor took the lock and is gone."""
    RunLock.take(record.path).close()
    return record


# -- states ---------------------------------------------------------------------------------
# The story as people tell it, written down a second time.
FORWARD = [S.NOT_STARTED, S.PREPARING, S.QUEUED, S.RUNNING, S.FINALIZING, S.COMPLETED]


def may_move(old: RunState, new: RunState) -> bool:
    if old.is_terminal:
        return False
    if new in FORWARD[1:-1] and old in FORWARD:
        interactive, preempted = (S.NOT_STARTED, S.RUNNING), (S.RUNNING, S.QUEUED)
        is_next = FORWARD.index(new) == FORWARD.index(old) + 1
        return is_next or (old, new) in (interactive, preempted)
    if new is S.COMPLETED:
        return old is S.FINALIZING
    if new is S.CANCEL_REQUESTED:
        return old not in (S.CANCEL_REQUESTED, S.FINALIZING)
    return new in (S.FAILED, S.CANCELED)


class States(RuleBasedStateMachine):
    @initialize(folder=st.just(None))
    def begin(self, folder):
        import tempfile

        self.home = tempfile.TemporaryDirectory()
        self.record = RunStore(self.home.name).create("e", {})
        self.lock = RunLock.take(self.record.path)
        self.model = S.NOT_STARTED

    @rule(state=st.sampled_from([s for s in S if s is not S.NOT_RESPONDING]))
    def move(self, state):
        if may_move(self.model, state):
            self.record.advance(state)
            self.model = state
        else:
            with pytest.raises(IllegalMove):
                self.record.advance(state)

    @rule()
    def supervisor_dies_and_another_process_cancels(self):
        self.lock.close()
        self.record.request_cancel()
        if not self.model.is_terminal:
            self.model = S.CANCELED
        self.lock = RunLock.take(self.record.path)

    @rule()
    def supervisor_dies(self):
        self.lock.close()
        expected = self.model if self.model.is_terminal else S.NOT_RESPONDING
        assert self.record.state is expected
        self.lock = RunLock.take(self.record.path)

    @invariant()
    def every_reader_agrees(self):
        if hasattr(self, "record"):
            assert RunRecord(self.record.path).state is self.model

    def teardown(self):
        if hasattr(self, "record"):
            self.lock.close()
            self.home.cleanup()


TestStates = States.TestCase
TestStates.settings = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_a_run_whose_supervisor_is_gone_is_not_responding(abandoned):
    assert abandoned.state is S.NOT_RESPONDING


def test_a_run_that_is_being_created_is_not_given_up(record):
    assert record.state is S.NOT_STARTED


def test_cancelling_a_supervised_run_only_asks(held):
    held.request_cancel()
    assert held.cancel_requested
    assert held.state is S.NOT_STARTED


def test_cancelling_a_run_that_has_ended_changes_nothing(held):
    held.advance(S.FAILED, error={"cause": "x"})
    held.request_cancel()
    assert not held.cancel_requested
    assert held.error() == {"cause": "x"}


# -- the lock -------------------------------------------------------------------------------
HOLDER = """
import sys
from simgrid_ml.record.run import RunLock
lock = RunLock.take(sys.argv[1])
print(lock is not None, flush=True)
sys.stdin.read()
"""


def test_the_lock_is_free_at_once_when_its_holder_is_killed(record):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, record.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "True\n"
        assert RunLock.take(record.path) is None
        assert record.is_supervised()
        holder.send_signal(signal.SIGKILL)
    assert not record.is_supervised()


def test_looking_at_the_lock_never_takes_it_from_somebody(record):
    stop = threading.Event()
    seen = set()

    def look() -> None:
        while not stop.is_set():
            seen.add(record.is_supervised())

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(300):
            lock = RunLock.take(record.path)
            assert lock is not None
            lock.close()
    finally:
        stop.set()
        for looker in lookers:
            looker.join()
    # And one who looks while nobody has it is not told otherwise by the others who look.
    assert record.is_supervised() is False


def test_a_lock_handed_to_a_child_outlives_the_parents_copy(record):
    lock = RunLock.take(record.path)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=[lock.fd],
    )
    with child:
        lock.close()
        assert record.is_supervised()
        child.stdin.close()
    assert not record.is_supervised()


def test_looking_leaves_no_file_behind(record):
    assert not record.is_supervised()
    assert not os.path.exists(record.file(wire.LOCK))


# -- artifacts ------------------------------------------------------------------------------
def test_of_many_threads_one_creates_an_artifact_and_its_content_is_whole(record):
    blocks = [bytes([n]) * 3_000_000 for n in range(6)]
    outcomes = []
    start = threading.Barrier(len(blocks))

    def put(block: bytes) -> None:
        start.wait()
        try:
            record.put_artifact("outputs/model.bin", io.BytesIO(block))
            outcomes.append(block[0])
        except ConflictError:
            outcomes.append(None)

    threads = [threading.Thread(target=put, args=(b,)) for b in blocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [n for n in outcomes if n is not None]
    assert len(outcomes) == len(blocks)
    assert len(winners) == 1
    with open(record.artifact("outputs/model.bin").path, "rb") as stream:
        assert stream.read() == blocks[winners[0]]
    assert [a.name for a in record.artifacts()] == ["outputs/model.bin"]


def test_a_taken_name_is_refused_in_azures_words(record):
    record.put_artifact("a/b", io.BytesIO(b"1"))
    with pytest.raises(ConflictError) as caught:
        record.put_artifact("./a//b", io.BytesIO(b"2"))
    assert caught.value.cause == (
        f"Resource Conflict: ArtifactId ExperimentRun/dcid.{record.id}/a/b already exists."
    )


@pytest.mark.parametrize("name", ["a/b/c", "a/b/c/d", "a"])
def test_a_name_that_is_a_folder_or_below_a_file_is_refused(record, name):
    record.put_artifact("a/b", io.BytesIO(b"1"))
    with pytest.raises(ConflictError):
        record.put_artifact(name, io.BytesIO(b"2"))


@pytest.mark.parametrize("name", ["", ".", "../x", "a/../../x", "/", "..\\x", "a\0b"])
def test_a_name_that_would_leave_the_run_is_refused(record, name):
    with pytest.raises(ConflictError, match="cannot name an artifact"):
        record.put_artifact(name, io.BytesIO(b""))


def test_a_users_file_called_part_is_an_artifact_like_any_other(record):
    record.put_artifact("outputs/weights.part", io.BytesIO(b"1"))
    assert record.artifact("outputs/weights.part").bytes == 1


def test_logs_of_the_working_directory_count_while_they_grow(record):
    os.makedirs(record.file(wire.WORK, "logs", "tb"))
    with open(record.file(wire.WORK, "logs", "tb", "events"), "w") as stream:
        stream.write("xy")
    assert record.artifact("logs/tb/events").bytes == 2
    assert [a.name for a in record.artifacts()] == ["logs/tb/events"]


def test_sealing_writes_names_sizes_and_hashes(record):
    record.put_artifact("outputs/ż ó\n.bin", io.BytesIO(b"abc"))
    record.seal()
    assert read_json(record.file(wire.ARTIFACT_INDEX)) == [
        {
            "name": "outputs/ż ó\n.bin",
            "bytes": 3,
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        }
    ]


def test_a_missing_artifact_is_named(record):
    with pytest.raises(NotFoundError, match="no artifact 'x'"):
        record.artifact("x")


def test_values_of_all_writers_come_in_order_of_time(record):
    for writer, t in (("rank-1", 2.0), ("rank-0", 1.0), ("driver", 3.0)):
        journal = record.journal(wire.METRICS, writer)
        journal.append({"t": t, "name": "loss", "value": t})
        journal.close()
    assert [line["writer"] for line in record.metrics()] == ["rank-0", "rank-1", "driver"]


# -- following ------------------------------------------------------------------------------
LOG = "azureml-logs/70_driver_log_0.txt"


def append(record: RunRecord, name: str, text: bytes) -> None:
    path = record.file(wire.ARTIFACTS, *name.split("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "ab") as stream:
        stream.write(text)


@pytest.fixture(params=["inotify", "polling"])
def mode(request, monkeypatch):
    if request.param == "polling":
        from simgrid_ml.record import follow as module

        monkeypatch.setattr(module, "_Inotify", module._Watcher)


@pytest.mark.usefixtures("mode")
def test_a_follower_gets_every_byte_in_order_until_the_run_has_ended(held):
    got: dict[str, bytes] = {}
    first = threading.Event()

    def read() -> None:
        for name, chunk in follow(held):
            got[name] = got.get(name, b"") + chunk
            first.set()

    append(held, LOG, b"before\n")
    reader = threading.Thread(target=read)
    reader.start()
    assert first.wait(10)
    for n in range(200):
        append(held, LOG, b"line %d \xff\n" % n)
        append(held, "logs/deep/tb.txt", b"%d," % n)
    held.advance(S.RUNNING)
    append(held, "azureml-logs/75_job_post.txt", b"late")
    held.advance(S.FAILED)
    reader.join(10)
    assert not reader.is_alive()
    assert got[LOG] == b"before\n" + b"".join(b"line %d \xff\n" % n for n in range(200))
    assert got["logs/deep/tb.txt"] == b"".join(b"%d," % n for n in range(200))
    assert got["azureml-logs/75_job_post.txt"] == b"late"


@pytest.mark.usefixtures("mode")
def test_only_the_logs_asked_for_are_followed(held):
    append(held, LOG, b"x")
    append(held, "azureml-logs/other.txt", b"y")
    append(held, "outputs/z.txt", b"z")
    held.advance(S.FAILED)
    assert list(follow(held, names=[LOG])) == [(LOG, b"x")]
    assert list(follow(held, names=lambda n: n.endswith("other.txt"))) == [
        ("azureml-logs/other.txt", b"y")
    ]


def test_a_log_that_was_started_anew_is_read_anew(held):
    append(held, LOG, b"a long first line\n")
    chunks = follow(held)
    assert next(chunks) == (LOG, b"a long first line\n")
    with open(held.file(wire.ARTIFACTS, *LOG.split("/")), "wb") as stream:
        stream.write(b"anew\n")
    held.advance(S.FAILED)
    assert list(chunks) == [(LOG, b"anew\n")]


def test_following_ends_when_the_supervisor_is_gone(abandoned):
    append(abandoned, LOG, b"x")
    assert list(follow(abandoned)) == [(LOG, b"x")]


def test_a_log_collected_while_it_is_followed_comes_once(held):
    work = held.file(wire.WORK, "logs", "a.txt")
    os.makedirs(os.path.dirname(work))
    with open(work, "w") as stream:
        stream.write("once")
    chunks = follow(held)
    assert next(chunks) == ("logs/a.txt", b"once")
    held.keep_artifact("logs/a.txt", work)
    held.seal()
    held.advance(S.FAILED)
    assert list(chunks) == []


@pytest.mark.usefixtures("mode")
def test_waiting_for_a_state_ends_with_the_move(held):
    seen = []
    waiter = threading.Thread(target=lambda: seen.append(wait_state(held)))
    waiter.start()
    held.advance(S.RUNNING)
    held.advance(S.FINALIZING)
    held.advance(S.COMPLETED)
    waiter.join(10)
    assert seen == [S.COMPLETED]


def test_waiting_gives_up_at_the_deadline_with_the_state_as_it_is(held):
    assert wait_state(held, 0.0) is S.NOT_STARTED


def test_waiting_sees_a_supervisor_that_went_without_a_word(abandoned):
    assert wait_state(abandoned, 10) is S.NOT_RESPONDING


def test_followers_leave_no_descriptor_open(held):
    held.advance(S.FAILED)
    before = os.listdir("/proc/self/fd")
    list(follow(held))
    abandoned = follow(held)
    next(abandoned, None)
    abandoned.close()
    assert os.listdir("/proc/self/fd") == before
