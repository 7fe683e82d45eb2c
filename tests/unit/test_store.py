"""The workspace folder."""

import os
import threading
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.errors import ConflictError, NotFoundError, SpecError
from simgrid_ml.record.run import RunLock, RunState
from simgrid_ml.record.store import RunStore, state_home


@pytest.fixture
def store(tmp_path):
    return RunStore(str(tmp_path))


def test_run_ids_have_azures_form_and_experiments_name_first(store):
    name, seconds, tail = store.create("my-exp_1", {}).id.rsplit("_", 2)
    assert name == "my-exp_1"
    assert seconds.isdecimal()
    assert len(tail) == 8
    int(tail, 16)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 256, "ż", "a\n"])
def test_an_experiment_name_outside_the_rule_is_refused(store, name):
    with pytest.raises(SpecError, match="cannot name an experiment"):
        store.create(name, {})


def test_the_longest_experiment_name_can_have_runs(store):
    record = store.create("x" * 255, {})
    assert store.list("x" * 255)[0].id == record.id


@pytest.mark.parametrize("run_id", ["../x", "a/b", ".hidden", "x" * 251, "a\0"])
def test_a_run_id_that_would_leave_the_store_is_refused(store, run_id):
    with pytest.raises(SpecError, match="cannot name a run"):
        store.create("e", {}, run_id)


def test_two_at_once_never_get_the_same_given_id(store):
    made, refused = [], []

    def create() -> None:
        try:
            made.append(store.create("e", {}, "same"))
        except ConflictError:
            refused.append(1)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)


def test_runs_are_opened_by_any_unambiguous_end_of_their_id(store):
    store.create("e", {}, "alpha-1")
    store.create("e", {}, "alpha-12")
    assert store.open("alpha-1").id == "alpha-1"
    assert store.open("12").id == "alpha-12"
    for unknown in ("alpha", "beta", "", ".."):
        with pytest.raises(NotFoundError):
            store.open(unknown)


def test_runs_are_listed_newest_first_and_what_is_no_run_is_passed_over(store):
    records = [store.create(e, {}) for e in ("a", "b", "a")]
    for age, record in enumerate(records):
        os.utime(record.file(wire.SPEC), (age, age))
    os.mkdir(store.folder(wire.RUNS, "empty"))
    os.mkdir(store.folder(wire.RUNS, "broken"))
    with open(store.folder(wire.RUNS, "broken", wire.SPEC), "w") as stream:
        stream.write("{")
    assert [r.id for r in store.list("a")] == [records[2].id, records[0].id]
    assert store.list("c") == []


def test_the_latest_of_no_runs_says_how_to_make_one(store):
    with pytest.raises(NotFoundError, match="no runs yet"):
        store.latest()


def test_a_live_run_cannot_be_deleted_and_a_dead_one_can(store):
    record = store.create("e", {})
    lock = RunLock.take(record.path)
    with pytest.raises(ConflictError, match="still going"):
        store.delete(record)
    record.advance(RunState.FAILED)
    lock.close()
    store.delete(record)
    assert store.list() == []


def test_clusters_are_documents_by_name(store):
    assert store.clusters() == {}
    store.put_cluster("gpu", {"max_nodes": 4})
    store.put_cluster("gpu", {"max_nodes": 2})
    assert store.clusters() == {"gpu": {"max_nodes": 2}}
    store.delete_cluster("gpu")
    with pytest.raises(NotFoundError, match="no cluster 'gpu'"):
        store.delete_cluster("gpu")
    with pytest.raises(SpecError):
        store.put_cluster("../gpu", {})


def test_the_state_home_follows_the_variables(monkeypatch, tmp_path):
    monkeypatch.setenv(wire.STATE_HOME_VARIABLE, str(tmp_path / "h"))
    assert state_home() == str(tmp_path / "h")
    monkeypatch.delenv(wire.STATE_HOME_VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert state_home() == "/data/simgrid-ml"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert state_home() == "/home/me/.local/share/simgrid-ml"


def test_a_run_is_held_before_it_can_be_seen_and_abandoned_when_its_creator_dies(
    tmp_path: Path,
) -> None:
    record, lock = RunStore(str(tmp_path)).create_held("e", {})
    assert record.state is RunState.NOT_STARTED
    lock.close()  # as the kernel does for a creator that is killed
    assert record.state is RunState.NOT_RESPONDING


def test_what_a_run_keeps_is_closed_to_others(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path / "workspaces" / "local"))
    record = store.create("e", {})  # spec.json holds environment variables
    assert [os.stat(path).st_mode & 0o777 for path in (store.root, record.path)] == [0o700, 0o700]
