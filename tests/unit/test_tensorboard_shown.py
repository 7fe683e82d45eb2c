"""What TensorBoard is shown, and which Python it is started with; TensorBoard itself is in e2e."""

from __future__ import annotations

import errno
import importlib.util
import os
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import COMPLETED, CommandLine, cli

from simgrid_ml import wire
from simgrid_ml.azure import Experiment, Workspace, tensorboard_server
from simgrid_ml.azure.errors import UserErrorException
from simgrid_ml.azure.tensorboard import Tensorboard
from simgrid_ml.azure.tensorboard_export import export_to_tensorboard
from simgrid_ml.azure.tensorboard_server import find_python
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunLock, RunState

__all__ = ["cli"]


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and content of each field of a protobuf message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        size = {1: 8, 5: 4}.get(kind)
        if kind == 0:
            yield number, varint()
            continue
        size = varint() if size is None else size
        yield number, message[at : at + size]
        at += size


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of every point in the event files of ``folder``."""
    found = []
    for path in sorted(folder.glob("*tfevents*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event = dict(fields(data[12 : 12 + length]))
            data = data[16 + length :]
            if 5 in event:
                point = dict(fields(dict(fields(event[5]))[1]))
                found.append((point[1].decode(), event[2], struct.unpack("<f", point[2])[0]))
    return found


def test_every_kind_of_metric_becomes_curves(cli: CommandLine, tmp_path: Path) -> None:
    run = Experiment(Workspace.local(), "digits").start_logging(snapshot_directory=None)
    run.log("loss", 4.0)
    run.log("loss", 3.0)
    run.log("rate", 0.5, step=30)
    run.log("rate", 0.25, step=20)
    run.log("rate", 0.125, step=float("nan"))
    run.log("note", "text")
    run.log_list("errors", [1, 2])
    run.log_row("test", accuracy=0.5, text="a")
    run.log_row("test", accuracy=0.75)
    run.log_table("matrix", {"a": [1, 2], "b": [3, 4]})
    run.log_confusion_matrix("confusion", {"schema_type": "confusion_matrix"})
    export_to_tensorboard(run, str(tmp_path / "export"))
    assert scalars(tmp_path / "export" / run.id) == [
        ("loss", 0, 4.0), ("loss", 1, 3.0),
        ("rate", 30, 0.5), ("rate", 20, 0.25), ("rate", 2, 0.125),
        ("errors", 0, 1.0), ("errors", 1, 2.0),
        ("test/accuracy", 0, 0.5), ("test/accuracy", 1, 0.75),
        ("matrix/a", 0, 1.0), ("matrix/a", 1, 2.0), ("matrix/b", 0, 3.0), ("matrix/b", 1, 4.0),
    ]  # fmt: skip
    run.complete()


def test_an_experiment_is_exported_with_the_children_of_its_runs(
    cli: CommandLine, tmp_path: Path
) -> None:
    experiment = Experiment(Workspace.local(), "digits")
    runs = [experiment.start_logging(snapshot_directory=None) for _ in range(2)]
    child = runs[0].child_run()
    for folder, what, recursive, expected in (
        ("all", experiment, True, [*runs, child]),
        ("flat", experiment, False, runs),
        ("one", [runs[1]], True, runs[1:]),
    ):
        export_to_tensorboard(what, str(tmp_path / folder), recursive=recursive)
        assert set(os.listdir(tmp_path / folder)) == {run.id for run in expected}
    with pytest.raises(UserErrorException, match="cannot be empty"):
        export_to_tensorboard([], str(tmp_path))
    for run in (child, *runs):
        run.complete()


def test_the_command_exports_as_well(cli: CommandLine, tmp_path: Path) -> None:
    cli.run("digits_a", *COMPLETED, metrics=[("loss", 2.0), ("many", [1, 5])])
    said = cli("tensorboard", "digits_a", "--export", "there")
    assert (said.code, said.out) == (0, "there/digits_a\n"), said.err
    assert scalars(tmp_path / "there/digits_a") == [
        ("loss", 0, 2.0), ("many", 0, 1.0), ("many", 1, 5.0),
    ]  # fmt: skip
    assert cli("tensorboard", "digits_b").code == 2


@pytest.fixture
def no_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's Python has no TensorBoard."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def test_tensorboard_is_the_drivers_own_or_that_of_the_first_run_that_has_one(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tensorboard").mkdir()  # a folder of logs is no package
    runs = [cli.run(f"digits_{n}", *COMPLETED) for n in range(3)]
    gone = {"python": "/nowhere/python", "packages": {"tensorboard": "2"}}
    write_json(runs[1].file(wire.ENVIRONMENT), gone)
    os.symlink(sys.executable, tmp_path / "python")
    write_json(
        runs[2].file(wire.ENVIRONMENT),
        {"python": str(tmp_path / "python"), "packages": {"tensorboard": "2"}},
    )
    assert find_python(runs) == str(tmp_path / "python")
    (tmp_path / "tensorboard" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert find_python(runs) == sys.executable


def test_without_any_tensorboard_the_error_says_how_to_install_it(
    cli: CommandLine, no_own: None
) -> None:
    record = cli.run("digits_a", *COMPLETED)
    write_json(record.file(wire.ENVIRONMENT), {"python": sys.executable, "packages": {}})
    said = cli("tensorboard", "latest")
    assert (said.code, "nor has the environment of digits_a" in said.err) == (2, True)
    assert f"Try: {sys.executable} -m pip install tensorboard" in said.err
    with pytest.raises(UserErrorException, match="there is no TensorBoard"):
        Tensorboard([]).start()


def test_an_environment_that_is_being_prepared_is_waited_for(
    cli: CommandLine, no_own: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard_server, "_CACHED_S", 0.01)
    record = cli.run("digits_a", RunState.PREPARING)
    lock = RunLock.take(record.path)
    assert lock is not None
    document = {"python": sys.executable, "packages": {"tensorboard": "2"}}
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        threading.Timer(0.05, write_json, (record.file(wire.ENVIRONMENT), document)).start()

    assert find_python([record], say) == sys.executable
    assert said == ["Waiting for the environment of digits_a, which may bring TensorBoard"]
    lock.close()


@pytest.mark.parametrize("links", [True, False], ids=["one file system", "two file systems"])
def test_a_file_is_followed_while_it_grows_moves_and_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    source, path = tmp_path / "work" / "a", tmp_path / "board" / "b" / "a"
    source.parent.mkdir()

    def shown(text: str) -> None:
        source.write_text(text)
        tensorboard_server._link(str(source), str(path))
        assert path.read_text() == text

    shown("one")
    shown("one, two")
    assert (source.stat().st_ino == path.stat().st_ino) is links
    moved = source.rename(tmp_path / "artifact")
    tensorboard_server._link(str(moved), str(path))
    assert path.read_text() == "one, two"
    shown("new")
    source.unlink()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a"]
