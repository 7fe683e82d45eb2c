"""TensorBoard as a process of its own over the event files of some runs.

The runs are on this host, so their ``./logs`` are linked, not downloaded: what a rank writes is
there at once. TensorBoard itself comes from the driver's Python, or from the environment of one of
the runs, as those of PyTorch and TensorFlow bring it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from simgrid_ml import wire
from simgrid_ml.azure.tensorboard_export import MetricEvents
from simgrid_ml.errors import HostError, UsageError
from simgrid_ml.record.follow import has_ended, wait_state
from simgrid_ml.record.read import tail
from simgrid_ml.record.run import RunRecord, RunState

__all__ = ["DEFAULT_PORT", "Board", "find_python"]

DEFAULT_PORT = 6006
"""Where TensorBoard begins to look for a free port unless it is told one."""

_REFRESH_S = 0.5
_START_S = 120.0
_CACHED_S = 1.0  # what is built already is known by then, and nothing need be said
_LOOK_S = 0.05
_PACKAGE = "tensorboard"
_LOGS = wire.LOGS + "/"

_log = logging.getLogger("azureml.tensorboard")

_ADDRESS = re.compile(r"^TensorBoard \S+ at (https?://\S+)", re.MULTILINE)
_IN_USE = re.compile(r"could not bind to port \d+, it was already in use")

# Its stdin is a pipe that the starter holds open and never writes to. When that process has ended,
# however it did, the kernel closes the pipe; then this group of processes ends, too.
_CHILD = """
import os, runpy, shutil, signal, sys, threading
def end_with_the_starter(scratch):
    while os.read(0, 4096):
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=end_with_the_starter, args=(sys.argv.pop(1),), daemon=True).start()
sys.path[:] = filter(None, sys.path)  # "" is not there with PYTHONSAFEPATH
runpy.run_module("tensorboard.main", run_name="__main__", alter_sys=True)
"""


class Board:
    """A TensorBoard that runs; it ends with ``close``, or with this process.

    Args:
        runs: the folder below ``root`` that a run's event files go to, and the run.
        root: what TensorBoard shows; None: a folder that goes with it.
        port: where it must listen; None: on 6006, or the next that is free; 0: on any.
        metrics: show also what the runs logged, as ``<folder>/metrics``.
        say: told what is waited for.

    Raises:
        UsageError: there is no TensorBoard, or the port is in use.
        HostError: it did not start.
    """

    def __init__(
        self,
        runs: Mapping[str, RunRecord],
        *,
        root: str | None = None,
        port: int | None = None,
        metrics: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        python = find_python(list(runs.values()), say)
        self._scratch = tempfile.mkdtemp(prefix="simgrid-ml-tensorboard-")
        self._stop = threading.Event()
        self._mirror: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            root = os.path.abspath(root or os.path.join(self._scratch, "runs"))
            mirrors = [
                _Mirror(record, os.path.join(root, folder), metrics)
                for folder, record in runs.items()
            ]
            self._mirror = threading.Thread(
                target=_refresh, args=(mirrors, self._stop), name="tensorboard", daemon=True
            )
            self._mirror.start()
            self._process = self._spawn(python, root, port)
            self.url = self._wait_for_address(port)
        except BaseException:
            self.close()
            raise

    @property
    def _output(self) -> str:
        return os.path.join(self._scratch, "tensorboard.log")

    def _spawn(self, python: str, root: str, port: int | None) -> subprocess.Popen[bytes]:
        os.makedirs(root, exist_ok=True)
        argv = [python, "-c", _CHILD, self._scratch, "--logdir", root, "--reload_interval", "1"]
        if port is not None:
            argv += ["--port", str(port)]
        environment = {**os.environ, "TMPDIR": self._scratch, "PYTHONUNBUFFERED": "1"}
        if python != sys.executable:  # what is on the driver's path may not be of its version
            environment.pop("PYTHONPATH", None)
            environment.pop("PYTHONHOME", None)
        with open(self._output, "wb") as output:
            return subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # its helper ends with it; Ctrl-C is the starter's
            )

    def _wait_for_address(self, port: int | None) -> str:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            has_exited = self.poll() is not None
            said = tail(self._output)
            if found := _ADDRESS.search(said):
                return found.group(1)
            if has_exited:
                raise self._not_started(port, said)
            time.sleep(_LOOK_S)
        raise HostError(
            f"TensorBoard did not say where it listens within {_START_S:g} s",
            evidence=tail(self._output),
            remedy="try again on a host that is less busy",
        )

    @staticmethod
    def _not_started(port: int | None, said: str) -> UsageError | HostError:
        if _IN_USE.search(said):
            return UsageError(
                f"TensorBoard cannot listen on port {port or DEFAULT_PORT}: it is in use",
                remedy="name another port, or none and the next that is free is taken",
            )
        return HostError(
            "TensorBoard ended as soon as it was started",
            evidence=said,
            remedy=f"`python -m pip install {_PACKAGE}` into the Python of the driver",
        )

    def poll(self) -> int | None:
        """TensorBoard's exit code, should it have ended by itself; None: it runs."""
        return None if self._process is None else self._process.poll()

    def close(self) -> None:
        """End TensorBoard; the runs go on. May be called twice."""
        self._stop.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._mirror is not None:
            self._mirror.join()
        shutil.rmtree(self._scratch, ignore_errors=True)


def find_python(records: list[RunRecord], say: Callable[[str], None] = print) -> str:
    """A Python that has TensorBoard: the driver's own, else that of a run's environment.

    Waits for environments that are being prepared.

    Raises:
        UsageError: none has it.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None and spec.origin is not None:  # a folder of that name has none
        return sys.executable
    for record in records:
        built = _environment(record, say)
        python = str(built.get("python"))
        if _PACKAGE in (built.get("packages") or {}) and os.access(python, os.X_OK):
            return python
    where = f"{sys.executable} has none"
    if records:
        where += ", nor has the environment of " + ", ".join(record.id for record in records)
    raise UsageError(
        f"there is no TensorBoard: {where}",
        remedy=f"{sys.executable} -m pip install {_PACKAGE}",
    )


def _environment(record: RunRecord, say: Callable[[str], None]) -> dict[str, Any]:
    """What the run has been given to run in; empty if it ended before that."""

    def is_known(state: RunState) -> bool:
        return has_ended(state) or bool(record.document(wire.ENVIRONMENT))

    if not is_known(wait_state(record, _CACHED_S, until=is_known)):
        say(f"Waiting for the environment of {record.id}, which may bring TensorBoard")
        wait_state(record, until=is_known)
    return record.document(wire.ENVIRONMENT)


class _Mirror:
    """Keeps the files of a run's ``./logs`` in ``folder``, as far as they go."""

    def __init__(self, record: RunRecord, folder: str, metrics: bool) -> None:
        self.record = record
        self._folder = folder
        os.makedirs(folder, exist_ok=True)
        self._metrics = MetricEvents(record, os.path.join(folder, "metrics")) if metrics else None

    def refresh(self) -> None:
        for artifact in self.record.artifacts():
            if artifact.name.startswith(_LOGS):
                path = os.path.join(self._folder, *artifact.name[len(_LOGS) :].split("/"))
                _link(artifact.path, path)
        if self._metrics is not None:
            self._metrics.update()

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()


def _refresh(mirrors: list[_Mirror], stop: threading.Event) -> None:
    """Until all runs have ended, or ``stop``; what the last moment brought is there then."""
    while True:
        ended = all(has_ended(mirror.record.state) for mirror in mirrors)
        for mirror in mirrors:
            try:
                mirror.refresh()
            except OSError as error:  # a full disk, a run that is being deleted
                _log.warning("Exception refreshing logs of run %s: %s", mirror.record.id, error)
        if ended or stop.wait(_REFRESH_S):
            break
    for mirror in mirrors:
        mirror.close()


def _link(source: str, path: str) -> None:
    """Let ``path`` be the file ``source``, which may grow, move, and be written anew.

    A second name of the same file shows what is written at once, and stays when the run moves its
    own; on another file system the file is copied, again and again what is new of it.
    """
    if os.path.exists(path) and os.path.samefile(source, path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draft = os.path.join(os.path.dirname(path), f".{os.getpid()}-{threading.get_ident()}")
    try:
        os.link(os.path.realpath(source), draft)
    except FileNotFoundError:  # the run has just moved it; the next look finds it
        return
    except OSError:
        _append(source, path)
    else:
        os.replace(draft, path)


def _append(source: str, path: str) -> None:
    with open(source, "rb") as new, open(path, "ab") as old:
        have = old.tell()
        if have > os.fstat(new.fileno()).st_size:  # begun anew
            have = old.truncate(0)
        new.seek(have)
        shutil.copyfileobj(new, old)
