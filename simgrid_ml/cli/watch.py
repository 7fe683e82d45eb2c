"""Following a run until it ends: its stages, the steps of its environment, its log by rank.

Everything comes from the run directory, so watching a run of another process is the same.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from simgrid_ml import wire
from simgrid_ml.cli import story
from simgrid_ml.cli.console import RANK_COLOURS, Screen, plain_text
from simgrid_ml.record.journal import scan_journal
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.units import format_seconds

__all__ = ["LinePrinter", "watch"]

REPAINT_S = 0.1
LONG_S = 1.0
LINE_BYTES = 2**16
"""A longer line is cut: what writes no line ends, such as a binary, has no end either."""

_STEP = re.compile(r"\s*\[[^\]]*\]\s*\Z")  # how far a step is: ``compiling [ 40 %]``
CLOSING = re.compile(
    r"The (activity|experiment) completed successfully\. Finalizing run\.\.\.\Z"
    r"|Cleaning up all outstanding Run operations, waiting [\d.]+ seconds\Z"
    r"|\d+ items cleaning up\.\.\.\Z|Cleanup took [\d.e-]+ seconds\Z"
)
MEANING = {
    RunState.NOT_STARTED: "starting the supervisor",
    RunState.PREPARING: "preparing the environment",
    RunState.QUEUED: "starting the nodes",
    RunState.FINALIZING: "collecting outputs, checking",
    RunState.CANCEL_REQUESTED: "ending the processes",
}


class LinePrinter:
    """Turns chunks of several logs into whole lines, each behind its log's prefix.

    Args:
        screen: where to.
        prefixes: put ``[0] `` before the lines of rank 0.
        without_closing: leave out the words with which the service ends every rank's log.
    """

    def __init__(
        self, screen: Screen, *, prefixes: bool = True, without_closing: bool = False
    ) -> None:
        self.screen = screen
        self.prefixes = prefixes
        self.without_closing = without_closing
        self._empty: dict[str, int] = {}
        self._rest: dict[str, tuple[str, bytes]] = {}

    def feed(self, prefix: str, chunk: bytes, log: str = "") -> None:
        """Print the lines that ``chunk``, which belongs to ``log``, completes."""
        _, rest = self._rest.get(prefix, (log, b""))
        *lines, rest = (
            line[at : at + LINE_BYTES]
            for line in (rest + chunk).split(b"\n")
            for at in range(0, len(line) or 1, LINE_BYTES)
        )
        self._rest[prefix] = (log, rest)
        self._say(prefix, lines, log)

    def finish(self) -> None:
        """Print what the logs ended with if that was no whole line."""
        for prefix, (log, rest) in self._rest.items():
            if rest:
                self._say(prefix, [rest], log)
        self._rest.clear()

    def _say(self, prefix: str, lines: Iterable[bytes], log: str) -> None:
        shown = [plain_text(line.decode("utf-8", "replace")) for line in lines]
        if self.without_closing:
            shown = self._before_closing(prefix, shown)
        self.print(prefix, shown, log)

    def _before_closing(self, prefix: str, lines: list[str]) -> list[str]:
        """The lines without the service's closing words and the empty line before them."""
        kept = []
        for line in lines:
            if not line:
                self._empty[prefix] = self._empty.get(prefix, 0) + 1
            elif CLOSING.match(line):
                self._empty[prefix] = 0
            else:
                kept += [""] * self._empty.pop(prefix, 0) + [line]
        return kept

    def print(self, prefix: str, lines: list[str], log: str) -> None:
        """Print whole lines of ``log``."""
        if self.prefixes:
            before = self.screen.style(f"[{prefix}]", **_style(prefix))
            lines = [f"{before} {line}".rstrip() for line in lines]
        self.screen.lines(lines)


def _style(prefix: str) -> dict[str, Any]:
    """The colour of a task, the same in every run; servers count from the other end."""
    role, _, number = prefix.rpartition("-")
    if not number.isdigit():
        return {"dim": True}
    place = {"chief": -1, "head": -1, "ps": -2 - int(number)}.get(role, int(number))
    return {"fg": RANK_COLOURS[place % len(RANK_COLOURS)]}


def _text(event: dict[str, Any]) -> str:
    """What an event says to people who watch; empty: nothing."""
    if event.get("event") == "environment-step":
        return str(event.get("text", ""))
    if event.get("event") == "waiting":
        return f"waiting for nodes of the cluster, place {event['position']} of {event['of']}"
    if event.get("event") == "waiting-for-gpus":
        has = [f"which {run} has" for run in event["runs"]]
        before = [f"behind {run}" for run in event["behind"]]
        return f"waiting for {', '.join([*event['devices'], *has, *before])}"
    if event.get("event") == "preempted":
        return f"{event['why']}; the job begins again"
    return story.remark(event)


class _Stages:
    """Prints every stage when it ends, and keeps the live line saying what goes on."""

    def __init__(self, record: RunRecord, screen: Screen) -> None:
        self.record = record
        self.screen = screen
        self._read = {wire.STATE: 0, wire.EVENTS: 0}
        self._stage: tuple[RunState, float] | None = None
        self._step: tuple[str, float] | None = None
        self._moves: list[dict[str, Any]] = []
        self._events: list[dict[str, Any]] = []
        self._gpus = _GpuMemory(record)

    def _new(self, name: str) -> Iterator[dict[str, Any]]:
        for offset, line in scan_journal(self.record.file(name), self._read[name]):
            self._read[name] = offset
            yield line

    @property
    def is_running(self) -> bool:
        return self._stage is not None and self._stage[0] is RunState.RUNNING

    def look(self, *, quiet: bool) -> None:
        """Print what is new, events before the move that ended their stage.

        The move that ends Running waits for ``quiet``: what the ranks wrote stands above it.
        """
        self._moves += self._new(wire.STATE)
        steps = ({**event, "text": _text(event)} for event in self._new(wire.EVENTS))
        self._events += [step for step in steps if step["text"]]
        while self._moves and (quiet or not self.is_running):
            move = self._moves.pop(0)
            at = float(move["t"])
            while self._events and float(self._events[0].get("t", 0)) <= at:
                self._begin_step(self._events.pop(0))
            self._end_step(at)
            self._end_stage(at)
            self._stage = (RunState(move["state"]), at)
        while self._events and not self._moves:
            self._begin_step(self._events.pop(0))

    def paint(self) -> None:
        if self._stage is None:
            return
        state, since = self._stage
        text = MEANING.get(state, "")
        if self._step is not None:
            text, since = self._step
        what = f"{state.value}: {text}" if text else state.value
        parts = [what, format_seconds(time.time() - since)]
        if self.is_running and (gpus := self._gpus.in_a_line()):
            parts.append(gpus)
        self.screen.status(" · ".join(parts))

    def _begin_step(self, event: dict[str, Any]) -> None:
        at = float(event.get("t", time.time()))
        text = plain_text(str(event.get("text", "")))
        if story.remark(event):  # nothing that goes on: it stays to be read
            self.screen.line(f"  {text}")
            return
        if self._step is not None and _STEP.sub("", self._step[0]) == _STEP.sub("", text):
            self._step = (text, self._step[1])  # the same step, further on
            return
        self._end_step(at)
        self._step = (text, at)
        if not self.screen.is_live:
            self.screen.line(f"  {_STEP.sub('', text)}")

    def _end_step(self, at: float) -> None:
        """On a terminal the live line told of the step; what took long stays to be read."""
        if self._step is not None and self.screen.is_live:
            text, since = _STEP.sub("", self._step[0]), self._step[1]
            if at - since >= LONG_S:
                told = f"  {text} · {format_seconds(at - since)}"
                self.screen.line(self.screen.style(told, dim=True))
        self._step = None

    def _end_stage(self, at: float) -> None:
        if self._stage is None or self._stage[0] is RunState.NOT_STARTED:
            return
        state, since = self._stage
        mark = self.screen.style("──" if self.screen.has_unicode else "--", fg="cyan")
        self.screen.line(f"{mark} {state.value} {format_seconds(at - since)}")


class _GpuMemory:
    """How much of the nodes' GPUs is taken, as the run's journal last said."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._offset = 0
        self._memory_bytes = 0
        self._text = ""

    def in_a_line(self) -> str:
        """Empty: the nodes have no GPUs."""
        used = None
        for offset, line in scan_journal(self._record.file(wire.GPU_MEMORY), self._offset):
            self._offset, used = offset, line["used"]
        if used:
            from simgrid_ml.cli.gpu_story import in_a_line  # few runs have GPUs

            if not self._memory_bytes:
                node = self._record.document(wire.GPUS)["nodes"][0]
                self._memory_bytes = node["shares"][0]["memory_bytes"]
            self._text = in_a_line(used, self._memory_bytes)
        return self._text


def watch(record: RunRecord, screen: Screen, *, logs: bool = True) -> RunState:
    """Print what the run does until it has ended; returns its state.

    The order of lines is that of the ranks' writing per rank; between ranks it is that of arrival.
    """
    from simgrid_ml.record.follow import follow

    arrived: queue.Queue[tuple[str, bytes] | BaseException | None] = queue.Queue(256)

    def read() -> None:
        try:
            for name, chunk in follow(record):
                if logs and (log := story.task_log(name)) is not None:
                    arrived.put((log.label, chunk))
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)

    printer = LinePrinter(screen, without_closing=True)
    stages = _Stages(record, screen)
    threading.Thread(target=read, name="follow", daemon=True).start()
    painted, quiet = 0.0, False
    while True:
        if time.monotonic() - painted >= REPAINT_S or not stages.is_running:
            stages.look(quiet=quiet)
            stages.paint()
            painted = time.monotonic()
        try:
            item = arrived.get(timeout=REPAINT_S)
        except queue.Empty:
            quiet = True
            continue
        quiet = False
        if item is None:
            break
        if isinstance(item, BaseException):
            raise item
        if not stages.is_running:
            stages.look(quiet=False)  # the stage that lines belong to stands above them
        printer.feed(*item)
    printer.finish()
    stages.look(quiet=True)
    screen.status("")
    return record.state
