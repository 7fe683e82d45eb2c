"""simgrid-ml: multi-node Azure ML training jobs on one machine, with the real Open MPI and Horovod.

The public names are loaded when first used; importing the package costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would be most of what this costs
if TYPE_CHECKING:
    from typing import Any, List

__version__ = "0.1.0"

_EXPORTS = {
    "ClusterSpec": "simgrid_ml.spec.cluster",
    "EnvironmentSpec": "simgrid_ml.spec.job",
    "JobSpec": "simgrid_ml.spec.job",
    "Mpi": "simgrid_ml.spec.job",
    "Plain": "simgrid_ml.spec.job",
    "RunRecord": "simgrid_ml.record.run",
    "RunState": "simgrid_ml.record.run",
    "RunStore": "simgrid_ml.record.store",
    "SimgridError": "simgrid_ml.errors",
    "submit": "simgrid_ml.engine.prepare",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        import importlib

        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted(__all__)
