"""Makes sure that an environment exists, and gives its interpreter.

An environment is built in place, as its scripts name their own path, and counts as existing from
the moment its marker is renamed into it. A builder that dies leaves no marker; the next one clears
up. Builders of one environment wait for each other, builders of two do not.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from simgrid_ml.environments.cache import Cache
from simgrid_ml.environments.catalog import Substitution
from simgrid_ml.environments.indexes import configured
from simgrid_ml.environments.resolution import Host, Resolution, remembered, resolution_key
from simgrid_ml.errors import EnvironmentBuildError
from simgrid_ml.spec.job import EnvironmentSpec

__all__ = ["BuiltEnvironment", "ensure", "hold", "read_by_nodes"]

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


class BuiltEnvironment(NamedTuple):
    """An environment that is there.

    Attributes:
        python: path of its interpreter.
        bin: folder to put on PATH: ``mpirun`` is there.
        lock_hash: its identity; "" for an interpreter of the user's own.
        cached: nothing had to be built.
        substitutions: what was asked for and what there is instead.
        packages: name to version.
        hooks: behaviours of the releases asked for that ranks restore, as their scripts rely on
            them; empty for an interpreter of the user's own.
    """

    python: str
    bin: str
    lock_hash: str
    cached: bool
    substitutions: tuple[Substitution, ...]
    packages: dict[str, str]
    hooks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "python": self.python,
            "bin": self.bin,
            "lock_hash": self.lock_hash,
            "cached": self.cached,
            "substitutions": [one.to_json() for one in self.substitutions],
            "packages": self.packages,
            "hooks": list(self.hooks),
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
        UsageError: the specification cannot be read, or its packages do not exist or exclude each
            other.
        EnvironmentBuildError: anything else; nothing is published then.
    """
    if spec.interpreter is not None:
        return _given(spec.interpreter, cancel)
    store = cache or Cache.default()
    host = Host.here()
    indexes = configured()
    key = resolution_key(spec, host, indexes)
    resolution = remembered(store, key)
    if resolution is not None and (built := _published(store, resolution)) is not None:
        return built
    # Neither is needed for what exists.
    from simgrid_ml.environments.install import Installer
    from simgrid_ml.environments.requirements import check

    check(spec)  # a resolution may be remembered of what is refused today
    with Installer.start(store, host, indexes, report, log_path, cancel) as installer:
        if resolution is None:
            resolution = installer.resolve(spec, key)
        built = _published(store, resolution)
        if built is None:
            by_us = installer.install(spec, resolution)
            built = _published(store, resolution, cached=not by_us)
    if built is None:
        raise EnvironmentBuildError(
            "the environment was removed as soon as it was built",
            remedy="submit again; somebody else seems to prune environments",
        )
    return built


def read_by_nodes(built: BuiltEnvironment | None, cache: Cache | None = None) -> tuple[str, ...]:
    """Folders that nodes must see to run jobs in ``built``; None: in any that is or will be built.

    All built environments share one folder, so nodes that stay warm serve jobs of all of them.
    """
    shared = str((cache or Cache.default()).root / "envs")
    with contextlib.suppress(OSError):  # without it nothing can be built, which says so
        os.makedirs(shared, exist_ok=True)
    if built is None or built.lock_hash:
        return (shared,)
    return (shared, os.path.dirname(built.bin))


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
        hooks=resolution.hooks,
    )


def _given(interpreter: str, cancel: threading.Event | None) -> BuiltEnvironment:
    """The user's own Python (``user_managed``): used as it is, only looked at."""
    remedy = "give the path of a Python 3.8 or later, for example " + sys.executable
    import shutil

    from simgrid_ml.environments.process import BuildLog, Commands

    path = shutil.which(os.path.expanduser(interpreter))
    if path is None:
        raise EnvironmentBuildError(
            f"the interpreter {interpreter} does not exist or cannot be executed", remedy=remedy
        )
    commands = Commands(BuildLog(None), cancel)  # it may hang, or start what does
    finished = commands.run([path, "-c", _PROBE], environment=os.environ, deadline_s=60)
    try:
        version, python, packages = json.loads(
            next(line for line in reversed(finished.tail) if line.startswith("[["))
        )
    except (ValueError, StopIteration) as error:
        raise EnvironmentBuildError(
            f"the interpreter {interpreter} does not run Python",
            evidence=finished.evidence(),
            remedy=remedy,
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
