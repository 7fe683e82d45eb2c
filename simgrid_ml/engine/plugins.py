"""Backends by name, through entry points; launchers by the kind of distribution."""

from __future__ import annotations

import importlib

from simgrid_ml.backends.base import Backend
from simgrid_ml.errors import SpecError
from simgrid_ml.launch import direct, mpi
from simgrid_ml.launch.plan import Launcher
from simgrid_ml.spec.job import (
    Distribution,
    Mpi,
    ParameterServer,
    Plain,
    RayCluster,
    TorchDistributed,
)

__all__ = ["backend", "backend_names", "launcher"]

_BACKENDS = "simgrid_ml.backends"
_OURS = {
    "docker": ("simgrid_ml.backends.docker", "DockerBackend"),
    "process": ("simgrid_ml.backends.process", "ProcessBackend"),
}
"""Found without looking through the metadata of all that is installed, which takes 20 ms."""

_LAUNCHERS: dict[type, Launcher] = {
    Mpi: mpi.plan,
    ParameterServer: direct.plan,
    Plain: direct.plan,
    RayCluster: direct.plan,
    TorchDistributed: direct.plan,
}


def backend_names() -> list[str]:
    """The installed backends."""
    from importlib.metadata import entry_points

    return sorted(point.name for point in entry_points(group=_BACKENDS))


def backend(name: str) -> Backend:
    """A backend by its name: one of ours, or that of an entry point.

    Raises:
        SpecError: none of that name is installed.
    """
    made: Backend
    if name in _OURS:
        module, kind = _OURS[name]
        made = getattr(importlib.import_module(module), kind)()
        return made
    from importlib.metadata import entry_points

    for point in entry_points(group=_BACKENDS, name=name):
        made = point.load()()
        return made
    raise SpecError(
        f"there is no backend {name!r}",
        remedy=f"installed are: {', '.join(backend_names())}",
        where="cluster.backend",
    )


def launcher(distribution: Distribution) -> Launcher:
    """The launcher of a kind of distribution."""
    return _LAUNCHERS[type(distribution)]
