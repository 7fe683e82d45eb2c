"""Journals: whole lines only, whatever happened to the writer."""

import errno
import json
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simgrid_ml.record.journal import Journal, read_journal, read_json, scan_journal, write_json

values = st.dictionaries(
    st.text(max_size=10),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    max_size=4,
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "folder" / "j.jsonl")


@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=1, max_size=5), st.lists(values, max_size=3), st.data())
def test_a_tail_torn_anywhere_costs_only_the_torn_line(tmp_path_factory, before, after, data):
    path = str(tmp_path_factory.mktemp("j") / "j.jsonl")
    journal = Journal(path)
    ends = []
    for value in before:
        journal.append(value)
        ends.append(os.path.getsize(path))
    journal.close()
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(path, cut)
    whole = [v for v, end in zip(before, ends, strict=True) if end <= cut]
    assert read_journal(path) == whole
    successor = Journal(path)
    for value in after:
        successor.append(value)
    successor.close()
    # The torn line may have been whole but for its newline; its successor's newline ends it.
    possible = [whole, before[: len(whole) + 1]] if after else [whole]
    assert read_journal(path) in [start + after for start in possible]


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("j") / "j.jsonl"
    path.write_bytes(content)
    assert all(isinstance(value, dict) for value in read_journal(str(path)))


def test_reading_goes_on_from_an_offset(path):
    journal = Journal(path)
    journal.append({"n": 1})
    (offset, _) = next(scan_journal(path))
    journal.append({"n": 2})
    assert [value for _, value in scan_journal(path, offset)] == [{"n": 2}]
    journal.close()


def test_what_json_cannot_carry_is_kept_as_its_repr(path):
    inside_itself: dict = {}
    inside_itself["me"] = inside_itself
    journal = Journal(path)
    journal.append({"a": {1}})
    journal.append({"b": {(1, 2): 3}})
    journal.append({"c": inside_itself})
    journal.append({"d": "\ud800"})
    journal.close()
    assert [next(iter(line.values())) for line in read_journal(path)] == [
        "{1}",
        "{(1, 2): 3}",
        "{'me': {...}}",
        "\ud800",
    ]


def test_a_line_after_a_full_disk_is_not_glued_to_the_torn_one(path, monkeypatch):
    journal = Journal(path)
    journal.append({"n": 1})
    real, calls = os.write, []

    def full(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 1:
            return real(fd, data[:4])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="full"):
        journal.append({"n": 2})
    monkeypatch.setattr(os, "write", real)
    journal.append({"n": 3})
    journal.close()
    assert read_journal(path) == [{"n": 1}, {"n": 3}]


def test_a_forked_child_writes_whole_lines_too(path):
    journal = Journal(path)
    journal.append({"who": "parent"})
    child = os.fork()
    if child == 0:
        journal.append({"who": "child"})
        os._exit(0)
    os.waitpid(child, 0)
    journal.append({"who": "parent"})
    journal.close()
    assert [line["who"] for line in read_journal(path)] == ["parent", "child", "parent"]


def test_threads_replacing_one_document_leave_a_whole_one_and_no_draft(tmp_path):
    path = str(tmp_path / "d.json")
    failed = []

    def write(number: int) -> None:
        try:
            for _ in range(50):
                write_json(path, {"n": number, "pad": "x" * 5000})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(read_json(path, {"pad": "x" * 5000})["pad"]) == 5000
    for thread in threads:
        thread.join()
    assert not failed
    assert os.listdir(tmp_path) == ["d.json"]


def test_a_document_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = str(tmp_path / "d.json")
    write_json(path, {"n": 1})
    with pytest.raises(TypeError):
        write_json(path, {1: 1, "a": 2})  # keys that cannot be sorted
    assert json.loads((tmp_path / "d.json").read_text()) == {"n": 1}
    assert os.listdir(tmp_path) == ["d.json"]
