"""Runs the user's script as ``python script.py`` would: it is ``__main__``, its folder is first on
the path, its tracebacks begin in it, and multiprocessing finds it.

One difference, in mode ``abort``: a rank that fails leaves at once, without ``MPI_Finalize``,
which would wait for ranks that wait for this one. (A plain ``python`` under mpirun hangs there.)
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # typing would double the time until the user's first line
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["run"]


def run(mode: str, script: str, *arguments: str) -> None:
    """Become ``script``. Returns only when the script ran to its end."""
    sys.argv[:] = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    _line_buffer(sys.stdout)
    namespace = sys.modules["__main__"].__dict__
    for name in ("sys", "run", "__cached__"):
        namespace.pop(name, None)
    namespace.update(__file__=script, __doc__=None)
    try:
        with open(script, "rb") as stream:
            source = stream.read()
        exec(compile(source, script, "exec", dont_inherit=True), namespace)
    except SystemExit as end:
        if mode == "plain" or end.code in (None, 0):
            raise
        if not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
        _leave(end.code & 0xFF if isinstance(end.code, int) else 1)
    except BaseException as error:
        _tell(error)
        if mode == "plain":
            raise SystemExit(1) from None
        _leave(1)


def _tell(error: BaseException) -> None:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    sys.excepthook(type(error), error.with_traceback(traceback), traceback)


def _leave(code: int) -> NoReturn:
    _note_failure(code)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    os._exit(code)


def _note_failure(code: int) -> None:
    """Journal that this rank fails before its connections close and others fail because of it."""
    from simgrid_ml import wire
    from simgrid_ml.record.journal import Journal

    try:
        task = os.environ[wire.TASK_VARIABLE]
        path = os.path.join(os.environ[wire.RUN_DIR_VARIABLE], wire.TASKS, task + ".jsonl")
        Journal(path).append({"t": time.time(), "event": "failing", "code": code})
    except (KeyError, OSError):
        pass  # the end of the process is reported by its wrapper anyway


def _line_buffer(stream: Any) -> None:
    try:
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    except AttributeError:
        pass
