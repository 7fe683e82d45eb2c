"""Resolves and builds one environment that is not there yet."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simgrid_ml import __version__
from simgrid_ml.environments.cache import (
    LAST_USED,
    MARKER,
    Cache,
    locked,
    remove,
)
from simgrid_ml.environments.catalog import horovod_frameworks
from simgrid_ml.environments.indexes import Indexes
from simgrid_ml.environments.process import BuildLog, Commands, no_space_left
from simgrid_ml.environments.resolution import Host, Resolution, remember, remembered
from simgrid_ml.environments.resolve import Resolver
from simgrid_ml.environments.tools import Tools, uv_binary
from simgrid_ml.errors import EnvironmentBuildError, SimgridError
from simgrid_ml.record.journal import write_json
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.spec.value import to_plain

__all__ = ["Installer"]

_SMOKE = {
    "torch": "torch",
    "tensorflow": "tensorflow",
    "tensorflow-cpu": "tensorflow",
    "chainer": "chainermn",
    "mpi4py": "mpi4py",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
}
"""Packages that are compiled against each other, and the module that shows whether they fit."""


@dataclass
class Installer:
    """One attempt at an environment; holds what all its steps need."""

    cache: Cache
    tools: Tools

    @classmethod
    @contextmanager
    def start(
        cls,
        cache: Cache,
        host: Host,
        indexes: Indexes,
        report: Callable[[str], None],
        log_path: str | None,
        cancel: threading.Event | None,
    ) -> Iterator[Installer]:
        """Opens no file before there is something to build; every error ends in the log."""
        log = BuildLog(log_path)
        said: list[str] = []

        def report_once(text: str) -> None:
            if said != [text]:
                said[:] = [text]
                log.write(f"== {text}")
                report(text)

        try:
            tools = Tools(Commands(log, cancel), host, indexes, report_once, uv_binary())
            yield cls(cache, tools)
        except SimgridError as error:
            _log_end(log, error)
            raise
        except OSError as error:
            told = _as_build_error(error, cache)
            _log_end(log, told)
            raise told from error
        finally:
            log.close()

    def resolve(self, spec: EnvironmentSpec, key: str) -> Resolution:
        """Several runs of one specification, started at once, shall agree on one lock."""
        with locked(
            self.cache.lock(f"resolve-{key}"),
            waiting=lambda: self.tools.report("waiting for another run that resolves the same"),
            check=self.tools.commands.check_cancelled,
        ):
            known = remembered(self.cache, key)
            if known is not None:
                return known
            resolution = Resolver(self.tools).resolve(spec)
            remember(self.cache, key, resolution)
            return resolution

    def install(self, spec: EnvironmentSpec, resolution: Resolution) -> bool:
        """Whether it was built here, and not by somebody else meanwhile."""
        name = resolution.lock_hash
        with (
            locked(
                self.cache.lock(name),
                waiting=lambda: self.tools.report("waiting for another build of this environment"),
                check=self.tools.commands.check_cancelled,
            ) as lock,
            self.tools.commands.holding(lock),
        ):
            if self.cache.marker(name) is not None:
                return False  # the one we waited for has built it
            self.tools.commands.log.open()
            path = self.cache.env(name)
            remove(path)  # what a killed builder left
            started = time.time()
            try:
                self._install(path, resolution)
                self._publish(path, spec, resolution, started)
            except BaseException:
                self.tools.report("removing the unfinished environment")
                remove(path)
                raise
        return True

    def _install(self, path: Path, resolution: Resolution) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.tools.report("creating the environment")
        python = self.tools.make_venv("creating the environment", path)
        wheel = None
        if resolution.horovod:
            from simgrid_ml.environments.horovod import HorovodWheel

            wheel = HorovodWheel(self.tools, self.cache).ensure(resolution)
        self.tools.report(f"installing {len(resolution.packages)} packages")
        self.tools.install_lock(
            "installing the packages",
            python,
            resolution,
            path / "requirements.lock",
            on_line=self._progress,
        )
        if wheel is not None:
            self.tools.report("installing horovod")
            self.tools.install("installing Horovod", python, str(wheel))
        self._try_imports(python, resolution)

    def _try_imports(self, python: str, resolution: Resolution) -> None:
        """Import what matters once: broken builds show here, and bytecode is written only once
        and not by all ranks at the same time."""
        modules = [module for name, module in _SMOKE.items() if name in resolution.packages]
        statements = [f"import {module}" for module in modules]
        if resolution.horovod:
            carriers = [_SMOKE[name] for name in horovod_frameworks(resolution.packages)]
            modules += [f"horovod.{module}" for module in carriers]
            # horovod.torch can be imported without its library; it has no init then.
            statements += [f"from horovod.{module} import init" for module in carriers]
        if not modules:
            return
        self.tools.report(f"trying to import {', '.join(modules)}")
        environment = {**self.tools.indexes.uv_environment(os.environ), "PYTHONNOUSERSITE": "1"}
        finished = self.tools.commands.run(
            [python, "-c", "\n".join(statements)],
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
        packages = _installed(path)
        now = time.time()
        marker = {
            "simgrid_ml": __version__,
            "spec": to_plain(spec),
            "python": ".".join(map(str, self.tools.host.python)),
            "packages": packages,
            "substitutions": [one.to_json() for one in resolution.substitutions],
            "created": now,
            "built_in_s": round(now - started, 3),
            "size_bytes": _size(path),
        }
        (path / LAST_USED).touch()
        write_json(str(path / MARKER), marker)

    def _progress(self, line: str) -> None:
        words = line.split()
        if len(words) == 3 and words[0] == "Downloading":
            self.tools.report(f"downloading {words[1]} {words[2]}")
        elif words[:1] == ["Building"]:
            self.tools.report(line.strip().lower())


def _as_build_error(error: OSError, cache: Cache) -> EnvironmentBuildError:
    if error.errno == errno.ENOSPC:
        return no_space_left(f"could not write to {cache.root}", str(error))
    return EnvironmentBuildError(
        f"the environment could not be written: {error.strerror or error}",
        evidence=str(error),
        remedy=f"make {cache.root} writable, or set SIMGRID_ML_CACHE to another folder",
    )


def _log_end(log: BuildLog, error: SimgridError) -> None:
    try:
        log.open()
        log.write(f"{type(error).__name__}: {error}")
    except EnvironmentBuildError as second:
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(str(second))


def _installed(path: Path) -> dict[str, str]:
    """Name to version of what really is there."""
    found = {}
    for folder in path.glob("lib/python3*/site-packages/*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return dict(sorted(found.items()))


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
