"""``simgrid-ml exec`` and ``shell``: a command inside a node, while its run is Running.

The run's supervisor starts the command on the node and tells its exit code; it ends the command
when this process goes away. What the command reads and writes passes through a terminal of its
own, or through three named pipes in the run directory, which every node sees at the same path.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import click

from simgrid_ml import wire
from simgrid_ml.cli.workspace import find_run, workspace_option
from simgrid_ml.errors import HostError, NotFoundError, UsageError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore

__all__ = ["exec_", "shell"]

DRAIN_S = 2.0
"""After the command has ended, what it left in the pipes is awaited so long: a child of it that
goes on may hold them open."""


@click.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("run", metavar="RUN")
@click.argument("node", metavar="NODE")
@click.argument("command", metavar="-- COMMAND [ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@workspace_option
def exec_(store: RunStore, run: str, node: str, command: tuple[str, ...], tty: bool) -> int:
    """Run a command inside a node of a live run; its exit code is ours.

    \b
    simgrid-ml exec latest node1 -- nproc
    simgrid-ml exec latest node0 -- python -c 'import torch; print(torch.__version__)'
    """
    command = command[1:] if command[:1] == ("--",) else command
    if not command:
        raise UsageError("no command was given", remedy="simgrid-ml exec RUN NODE -- COMMAND")
    return _inside(find_run(store, run), node, command, tty=tty)


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("node", metavar="[NODE]", required=False)
@workspace_option
def shell(store: RunStore, run: str, node: str | None) -> int:
    """Open a shell inside a node of a live run (default: that of rank 0)."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "a shell needs a terminal",
            remedy=f"simgrid-ml exec {run} {node or 'node0'} -- COMMAND",
        )
    record = find_run(store, run)
    if node is None:  # a run on a cluster in use may have others than node0
        node = str((record.document(wire.PLACEMENT).get("nodes") or ["node0"])[0])
    path = shutil.which("bash") or "/bin/sh"
    click.echo(f"A shell on {node}; it ends with the run, or with Ctrl-D.")
    return _inside(record, node, (path,), tty=True)


def _inside(record: RunRecord, node: str, command: tuple[str, ...], *, tty: bool) -> int:
    from simgrid_ml.node.protocol import connect

    try:
        connection = connect(record.file(wire.SOCKET))
    except OSError:
        raise NotFoundError(
            f"run {record.id} has no nodes: it is {record.state.value}",
            remedy="nodes live only while a run is Running",
        ) from None
    environment = {"TERM": os.environ.get("TERM", "dumb"), "PS1": f"{node}:\\w\\$ "}
    streams = _terminal() if tty else _pipes(record)
    with contextlib.closing(connection), streams as paths:
        answer = connection.ask(
            op="exec",
            node=node,
            argv=list(command),
            env=environment if tty else {},
            cwd=_folder(record, node),
            **paths,
        )
    if answer is None:
        raise HostError(
            f"run {record.id} ended while the command was running",
            remedy=f"`simgrid-ml runs show {record.id}`",
        )
    if answer.get("error"):
        raise NotFoundError(str(answer["error"]), remedy="name one of the run's nodes")
    return int(answer["code"])


def _folder(record: RunRecord, node: str) -> str:
    """The working directory of the node's ranks."""
    for path in (record.file(f"{wire.WORK}-{node}"), record.file(wire.WORK)):
        if os.path.isdir(path):
            return path
    return record.path


# -- through pipes -------------------------------------------------------------------------


@contextlib.contextmanager
def _pipes(record: RunRecord) -> Iterator[Mapping[str, Any]]:
    """Three named pipes, each with a thread: opening one waits for the other side."""
    os.makedirs(record.file(wire.TMP), exist_ok=True)
    folder = tempfile.mkdtemp(prefix="exec-", dir=record.file(wire.TMP))
    try:
        paths = {name: os.path.join(folder, name) for name in ("stdin", "stdout", "stderr")}
        for path in paths.values():
            os.mkfifo(path, 0o600)
        sys.stdout.flush()
        threads = [
            threading.Thread(target=_pump_out, args=(paths["stdout"], 1), daemon=True),
            threading.Thread(target=_pump_out, args=(paths["stderr"], 2), daemon=True),
        ]
        for thread in (
            *threads,
            threading.Thread(target=_pump_in, args=(paths["stdin"],), daemon=True),
        ):
            thread.start()
        yield paths
        for thread in threads:
            thread.join(DRAIN_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pump_out(path: str, target: int) -> None:
    with open(path, "rb", buffering=0) as source:
        while block := source.read(65536):
            try:
                _write(target, block)
            except OSError:  # our reader is gone; the command learns it from its broken pipe
                return


def _pump_in(path: str) -> None:
    target = os.open(path, os.O_WRONLY)
    try:
        while block := os.read(0, 65536):
            _write(target, block)
    except OSError:  # the command reads no more
        pass
    finally:
        os.close(target)


def _write(target: int, block: bytes) -> None:
    while block:
        block = block[os.write(target, block) :]


# -- through a terminal --------------------------------------------------------------------


@contextlib.contextmanager
def _terminal() -> Iterator[Mapping[str, Any]]:
    """A new terminal for the command, joined to ours; ours is raw meanwhile."""
    import fcntl
    import termios
    import tty

    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    has_terminal = os.isatty(0)
    before = termios.tcgetattr(0) if has_terminal else None

    def resize(*_: object) -> None:
        if has_terminal:
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(ours, termios.TIOCSWINSZ, size)

    stop_read, stop_write = os.pipe()
    pump = threading.Thread(target=_pump_terminal, args=(ours, stop_read), daemon=True)
    handler = signal.signal(signal.SIGWINCH, resize)
    try:
        resize()
        if has_terminal:
            tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead stays
        pump.start()
        yield {"stdin": name, "stdout": name, "stderr": name}
        os.close(theirs)
        theirs = -1
        os.write(stop_write, b"x")
        pump.join(DRAIN_S)
    finally:
        signal.signal(signal.SIGWINCH, handler)
        if before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        for fd in (theirs, ours, stop_read, stop_write):
            if fd >= 0:
                os.close(fd)


def _pump_terminal(ours: int, stop: int) -> None:
    """Both ways until told to stop, and then what is still to be shown."""
    sources = [ours, stop, 0]
    stopping = False
    while True:
        ready, _, _ = select.select(sources, [], [], 0 if stopping else None)
        if ours in ready:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the command's side is closed
                return
            _write(1, block)
        elif stopping:
            return
        if stop in ready:
            stopping = True
            sources = [ours]
        if 0 in ready and not stopping:
            block = os.read(0, 65536)
            if block:
                _write(ours, block)
            else:
                sources.remove(0)
                _write(ours, b"\x04")
