"""Following a run: lines, prefixes, stages; on a terminal and into a pipe."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator

import pytest
from cli_support import COMPLETED, RUN_TO_THE_END, CommandLine, cli
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml import wire
from simgrid_ml.cli.console import Screen, plain_text
from simgrid_ml.cli.watch import LINE_BYTES, REPAINT_S, LinePrinter, watch
from simgrid_ml.record.journal import Journal
from simgrid_ml.record.run import RunState

__all__ = ["cli"]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(terminal: io.StringIO) -> list[str]:
    """What stands on the terminal in the end: repainted lines count once, colours do not."""
    text = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    return [line.rpartition("\r\x1b[K")[2] for line in text.split("\n")]


CLOSING = (
    b"\nThe activity completed successfully. Finalizing run...\n"
    b"Cleaning up all outstanding Run operations, waiting 300.0 seconds\n"
    b"0 items cleaning up...\nCleanup took 0.0 seconds\n"
)


def test_a_run_is_told_in_order_without_control_codes_in_a_pipe(cli: CommandLine) -> None:
    files = {
        "azureml-logs/70_driver_log_0.txt": b"a\n\nb\n" + CLOSING,
        "azureml-logs/65_job_prep-x.txt": b"not shown\n",
        "logs/azureml/a.txt": b"not shown\n",
    }
    record = cli.run("digits_a", *RUN_TO_THE_END, RunState.COMPLETED, files=files)
    t = record.states()[1]["t"]
    events = Journal(record.file(wire.EVENTS))
    for at, text in ((0.1, "resolving"), (0.2, "compiling [ 10 %]"), (0.3, "compiling [ 90 %]")):
        events.append({"t": t + at / 1e6, "event": "environment-step", "text": text})
    events.append({"t": t, "event": "else", "text": "not shown"})
    events.close()
    stream = io.StringIO()
    assert watch(record, Screen(stream)) is RunState.COMPLETED
    told = [re.sub(r"[\d.]+ ms", "T", line) for line in stream.getvalue().splitlines()]
    assert [line.strip("-─ ") for line in told] == [
        "resolving", "compiling", "Preparing T", "Queued T",
        "[0] a", "[0]", "[0] b", "Running T", "Finalizing T",
    ]  # fmt: skip
    assert "\x1b" not in stream.getvalue()


def test_what_ranks_write_stands_below_the_stages_before_theirs(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run begins to write while the watcher waits for its next look."""
    record = cli.run("digits_a", RunState.PREPARING)

    def follow(_: object) -> Iterator[tuple[str, bytes]]:
        time.sleep(REPAINT_S / 2)
        record.advance(RunState.QUEUED)
        record.advance(RunState.RUNNING)
        yield "azureml-logs/70_driver_log_0.txt", b"a\n"
        for state in (RunState.FINALIZING, RunState.COMPLETED):
            record.advance(state)

    monkeypatch.setattr("simgrid_ml.record.follow.follow", follow)
    stream = io.StringIO()
    watch(record, Screen(stream))
    told = [re.sub(r" [\d.]+ m?s", "", line) for line in stream.getvalue().splitlines()]
    assert [line.strip("-─ ") for line in told] == [
        "Preparing", "Queued", "[0] a", "Running", "Finalizing",
    ]  # fmt: skip


def test_on_a_terminal_nothing_of_the_live_line_remains(cli: CommandLine) -> None:
    files = {"azureml-logs/70_driver_log_0.txt": b"a\n"}
    record = cli.run("digits_a", *COMPLETED, files=files)
    terminal = Terminal()
    watch(record, Screen(terminal))
    lines = shown(terminal)
    assert lines[-1] == ""
    assert "[0] a" in lines
    assert not [line for line in lines if "·" in line]


def test_watching_a_run_whose_supervisor_died_ends(cli: CommandLine) -> None:
    record = cli.run("digits_a", RunState.PREPARING)
    assert watch(record, Screen(io.StringIO())) is RunState.NOT_RESPONDING


def test_the_live_line_never_exceeds_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    with Screen(terminal) as screen:
        screen.status("x" * 100)
        painted = re.sub(r"\x1b\[[\d;]*[mK]", "", terminal.getvalue()).lstrip("\r")
        assert len(painted) <= 40
        assert painted.endswith("…")


def test_no_color_keeps_the_live_line_and_drops_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    with Screen(terminal) as screen:
        screen.status("working")
        screen.line("done")
    assert not re.search(r"\x1b\[[\d;]*m", terminal.getvalue())
    assert shown(terminal) == ["done", ""]


def test_every_task_has_its_colour_whatever_other_tasks_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def painted(*prefixes: str) -> list[str]:
        terminal = Terminal()
        printer = LinePrinter(Screen(terminal))
        for prefix in prefixes:
            printer.feed(prefix, b"a\n")
        return re.findall(r"\x1b\[(\d+)m\[", terminal.getvalue())

    tasks = ("chief-0", "worker-0", "worker-1", "worker-2", "worker-3", "ps-0", "ps-1", "mpirun")
    assert len(set(painted(*tasks))) == len(tasks)
    assert painted(*tasks)[-2:] == painted("ps-1", "mpirun")
    assert painted("0", "8") == painted("worker-0", "worker-8") == painted("0", "0")
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted(*tasks) == []


def test_what_tasks_do_before_their_time_is_told_among_their_lines(cli: CommandLine) -> None:
    files = {"azureml-logs/70_driver_log-worker-0.txt": b"a\n"}
    record = cli.run("digits_a", *COMPLETED, files=files)
    t = record.states()[3]["t"]
    events = Journal(record.file(wire.EVENTS))
    events.append({"t": t, "event": "server-ended", "task": "ps-0", "running": ["worker-0"]})
    events.close()
    for stream in (io.StringIO(), Terminal()):
        watch(record, Screen(stream))
        told = "\n".join(shown(stream))
        assert "\n  ps-0 ended while worker-0 still ran\n" in told
        assert "\n[worker-0] a\n" in told


def test_a_terminal_that_cannot_show_a_character_gets_another(cli: CommandLine) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    Screen(stream).line("caf\u00e9")
    assert raw.getvalue() == b"caf?\n"


@given(
    st.lists(st.tuples(st.sampled_from("01"), st.text("ab\n", max_size=9)), max_size=12),
)
def test_lines_of_each_log_come_whole_and_in_order_however_they_are_cut(
    chunks: list[tuple[str, str]],
) -> None:
    stream = io.StringIO()
    printer = LinePrinter(Screen(stream))
    for prefix, text in chunks:
        printer.feed(prefix, text.encode())
    printer.finish()
    for prefix in "01":
        written = "".join(text for one, text in chunks if one == prefix)
        expected = written.split("\n")
        if not expected[-1]:
            expected.pop()
        found = [
            line[4:] for line in stream.getvalue().split("\n") if line.startswith(f"[{prefix}]")
        ]
        assert found == expected


def test_a_line_without_an_end_is_cut_and_nothing_of_it_is_lost() -> None:
    stream = io.StringIO()
    printer = LinePrinter(Screen(stream), prefixes=False)
    for _ in range(5):
        printer.feed("0", b"x" * LINE_BYTES)
        assert len(printer._rest["0"][1]) <= LINE_BYTES
    printer.feed("0", b"yy\nz")
    printer.finish()
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) == LINE_BYTES
    assert "".join(lines) == "x" * 5 * LINE_BYTES + "yyz"


@given(st.text())
def test_plain_text_holds_no_control_code(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", plain_text(text))
