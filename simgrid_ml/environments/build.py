"""Makes sure that an environment exists, and gives its interpreter.

An environment is built in place, as its scripts name their own path, and counts as existing from
the moment its marker is renamed into it. A builder that dies leaves no marker; the next one clears
up. Builders of one environment wait for each other, builders of two do not.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simgrid_ml import __version__
from simgrid_ml.environments.cache import MARKER, Cache, locked, remove, write_atomically
from simgrid_ml.environments.catalog import HOROVOD, Substitution
from simgrid_ml.environments.indexes import Indexes, configured
from simgrid_ml.environments.process import BuildLog, Commands, no_space_left
from simgrid_ml.environments.resolve import (
    Host,
    Resolution,
    Resolver,
    failure,
    remember,
    remembered,
    resolution_key,
    uv_binary,
)
from simgrid_ml.errors import EnvironmentBuildError, SimgridError
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.spec.value import to_plain

__all__ = ["BuiltEnvironment", "ensure", "hold"]

_OLDEST_PYTHON = (3, 8)  # what simgrid_ml.node needs inside a node

_PROBE = """
import json, sys
found = {}
try:
    from importlib.metadata import distributions
    found = {d.metadata["Name"].lower(): d.version for d in distributions() if d.metadata["Name"]}
except Exception:
    pass
print(json.dumps([list(sys.version_info[:3]), sys.executable, found]))
"""

_SMOKE = {"torch": "torch", "horovod": "horovod.torch", "mpi4py": "mpi4py", "numpy": "numpy"}
_SMOKE["scikit-learn"] = "sklearn"


@dataclass(frozen=True)
class BuiltEnvironment:
    """An environment that is there.

    Attributes:
        python: path of its interpreter.
        bin: folder to put on PATH: ``mpirun`` is there.
        lock_hash: its identity; "" for an interpreter of the user's own.
        cached: nothing had to be built.
        substitutions: what was asked for and what there is instead.
        packages: name to version.
    """

    python: str
    bin: str
    lock_hash: str
    cached: bool
    substitutions: tuple[Substitution, ...]
    packages: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "python": self.python,
            "bin": self.bin,
            "lock_hash": self.lock_hash,
            "cached": self.cached,
            "substitutions": [one.to_json() for one in self.substitutions],
            "packages": self.packages,
        }


def ensure(
    spec: EnvironmentSpec,
    *,
    report: Callable[[str], None] = lambda _: None,
    log_path: str | None = None,
    cancel: threading.Event | None = None,
    cache: Cache | None = None,
) -> BuiltEnvironment:
    """Find the environment of ``spec``, or build it.

    Args:
        report: called with the current step, ``"building horovod [34%]"``; from this thread.
        log_path: the build log; written only if something has to be built.
        cancel: set it from another thread to stop; within a fraction of a second all that was
            started has ended.
        cache: where environments are kept, the user's own cache folder if None.

    Raises:
        SpecError: the specification cannot be read.
        EnvironmentBuildError: anything else; nothing is published then.
    """
    if spec.interpreter is not None:
        return _given(spec.interpreter)
    store = cache or Cache.default()
    host = Host.here()
    indexes = configured()
    key = resolution_key(spec, host, indexes)
    resolution = remembered(store, key)
    if resolution is not None and (built := _published(store, resolution)) is not None:
        return built
    said: list[str] = []

    def report_once(text: str) -> None:
        if said[-1:] != [text]:
            said[:] = [text]
            log.write(f"== {text}")
            report(text)

    log = BuildLog(log_path)
    commands = Commands(log, cancel)
    try:
        builder = _Builder(store, host, indexes, commands, report_once, uv_binary())
        if resolution is None:
            resolution = builder.resolve(spec, key)
        built = _published(store, resolution)
        return built if built is not None else builder.build(spec, resolution)
    except BaseException as error:
        raise _logged(error, log, store) from error
    finally:
        log.close()


@contextmanager
def hold(built: BuiltEnvironment, *, cache: Cache | None = None) -> Iterator[None]:
    """Keep ``built`` from being pruned; for as long as anything runs in it.

    Raises:
        EnvironmentBuildError: it was pruned since ``ensure``.
    """
    if not built.lock_hash:
        yield
        return
    with (cache or Cache.default()).hold(built.lock_hash):
        yield


@dataclass
class _Builder:
    cache: Cache
    host: Host
    indexes: Indexes
    commands: Commands
    report: Callable[[str], None]
    uv: str

    def resolve(self, spec: EnvironmentSpec, key: str) -> Resolution:
        """Several runs of one specification, started at once, shall agree on one lock."""
        with locked(
            self.cache.lock(f"resolve-{key}"),
            waiting=lambda: self.report("waiting for another run that resolves the same"),
            check=self.commands.check_cancelled,
        ):
            known = remembered(self.cache, key)
            if known is not None:
                return known
            resolver = Resolver(self.commands, self.host, self.indexes, self.report, self.uv)
            resolution = resolver.resolve(spec)
            remember(self.cache, key, resolution)
            return resolution

    def build(self, spec: EnvironmentSpec, resolution: Resolution) -> BuiltEnvironment:
        name = resolution.lock_hash
        with (
            locked(
                self.cache.lock(name),
                waiting=lambda: self.report("waiting for another build of this environment"),
                check=self.commands.check_cancelled,
            ) as lock,
            self.commands.holding(lock),
        ):
            built = _published(self.cache, resolution)
            if built is not None:
                return built  # by the one we waited for
            self.commands.log.open()
            path = self.cache.env(name)
            remove(path)  # what a killed builder left
            started = time.time()
            try:
                self._install(path, resolution)
                self._publish(path, spec, resolution, started)
            except BaseException:
                self.report("removing the unfinished environment")
                remove(path)
                raise
        published = _published(self.cache, resolution, cached=False)
        assert published is not None, "the marker was written a moment ago"
        return published

    def _install(self, path: Path, resolution: Resolution) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        environment = self.indexes.uv_environment(os.environ)
        self.report("creating the environment")
        self._uv(
            ["venv", "--quiet", "--python", self.host.interpreter, str(path)],
            environment,
            "creating the environment",
        )
        wheel = None
        if resolution.horovod:
            from simgrid_ml.environments.horovod import HorovodWheel

            wheel = HorovodWheel(
                self.commands, self.cache, self.host, self.indexes, self.report, self.uv
            ).ensure(resolution)
        python = str(path / "bin" / "python")
        lock = path / "requirements.lock"
        lock.write_text(resolution.requirements_file, encoding="utf-8")
        backend = ["--torch-backend", resolution.torch_backend] if resolution.torch_backend else []
        self.report(f"installing {len(resolution.packages)} packages")
        self._uv(
            ["pip", "install", "--python", python, "--no-deps", *backend, "-r", str(lock)],
            environment,
            "installing the packages",
        )
        if wheel is not None:
            self.report("installing horovod")
            self._uv(
                ["pip", "install", "--python", python, "--no-deps", "--no-index", str(wheel)],
                environment,
                "installing Horovod",
            )
        self._try_imports(python, resolution, environment)

    def _try_imports(
        self, python: str, resolution: Resolution, environment: dict[str, str]
    ) -> None:
        """Import what matters once: broken builds show here, and bytecode is written only once
        and not by all ranks at the same time."""
        present = {*resolution.packages, *(["horovod"] if resolution.horovod else [])}
        modules = [module for name, module in _SMOKE.items() if name in present]
        if not modules:
            return
        self.report(f"trying to import {', '.join(modules)}")
        environment = {**environment, "PYTHONNOUSERSITE": "1"}
        finished = self.commands.run(
            [python, "-c", "\n".join(f"import {module}" for module in modules)],
            environment=environment,
        )
        if finished.code != 0:
            raise EnvironmentBuildError(
                "the packages are installed but cannot be imported",
                evidence=finished.evidence(),
                remedy="change the version of the package that fails above",
            )

    def _publish(
        self, path: Path, spec: EnvironmentSpec, resolution: Resolution, started: float
    ) -> None:
        packages = dict(resolution.packages)
        if resolution.horovod:
            packages["horovod"] = HOROVOD
        now = time.time()
        marker = {
            "simgrid_ml": __version__,
            "spec": to_plain(spec),
            "python": ".".join(map(str, self.host.python)),
            "packages": dict(sorted(packages.items())),
            "substitutions": [one.to_json() for one in resolution.substitutions],
            "created": now,
            "built_in_s": round(now - started, 3),
            "size_bytes": _size(path),
        }
        (path / "last-used").touch()
        write_atomically(path / MARKER, json.dumps(marker, indent=1))

    def _uv(self, arguments: list[str], environment: dict[str, str], doing: str) -> None:
        finished = self.commands.run(
            [self.uv, *arguments], environment=environment, on_line=self._progress
        )
        if finished.code != 0:
            raise failure(doing, finished, self.indexes)

    def _progress(self, line: str) -> None:
        words = line.split()
        if len(words) == 3 and words[0] == "Downloading":
            self.report(f"downloading {words[1]} {words[2]}")
        elif words[:1] in (["Prepared"], ["Building"]):
            self.report(line.strip().lower())


def _published(
    cache: Cache, resolution: Resolution, *, cached: bool = True
) -> BuiltEnvironment | None:
    marker = cache.marker(resolution.lock_hash)
    if marker is None:
        return None
    cache.touch(resolution.lock_hash)
    folder = cache.env(resolution.lock_hash) / "bin"
    return BuiltEnvironment(
        python=str(folder / "python"),
        bin=str(folder),
        lock_hash=resolution.lock_hash,
        cached=cached,
        substitutions=resolution.substitutions,
        packages=marker["packages"],
    )


def _given(interpreter: str) -> BuiltEnvironment:
    """The user's own Python (``user_managed``): used as it is, only looked at."""
    remedy = "give the path of a Python 3.8 or later, for example " + sys.executable
    path = shutil.which(os.path.expanduser(interpreter))
    if path is None:
        raise EnvironmentBuildError(
            f"the interpreter {interpreter} does not exist or cannot be executed", remedy=remedy
        )
    try:
        answer = subprocess.run(
            [path, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False
        )
        version, python, packages = json.loads(answer.stdout.strip().splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        said = getattr(locals().get("answer"), "stderr", "") or str(error)
        raise EnvironmentBuildError(
            f"the interpreter {interpreter} does not run Python", evidence=said, remedy=remedy
        ) from error
    if tuple(version[:2]) < _OLDEST_PYTHON:
        raise EnvironmentBuildError(
            f"the interpreter {interpreter} is Python {'.'.join(map(str, version))}",
            remedy=remedy,
        )
    return BuiltEnvironment(
        python=python or path,
        bin=os.path.dirname(python or path),
        lock_hash="",
        cached=True,
        substitutions=(),
        packages=packages,
    )


def _logged(error: BaseException, log: BuildLog, cache: Cache) -> BaseException:
    """The error as users see it, put at the end of the log as well."""
    if isinstance(error, OSError) and not isinstance(error, SimgridError):
        if error.errno == errno.ENOSPC:
            error = no_space_left(f"writing to {cache.root}", str(error))
        else:
            error = EnvironmentBuildError(
                f"could not write the environment: {error.strerror or error}",
                evidence=str(error),
                remedy=f"make {cache.root} writable, or set SIMGRID_ML_CACHE to another folder",
            )
    try:
        log.open()
        log.write(f"{type(error).__name__}: {error}")
    except EnvironmentBuildError as second:
        if hasattr(error, "add_note") and second is not error:
            error.add_note(str(second))
    return error


def _size(path: Path) -> int:
    """Bytes of all files; those that are links into uv's cache count in full."""
    total = 0
    pending = [str(path)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total
