"""Azure ML SDK v1 as user code knows it, on this machine.

The names are loaded when first used, so that ``Run`` works inside a node, where only the
standard library is there, and a script pays for nothing it does not use.
"""

from __future__ import annotations

import importlib
from typing import Any, List

_EXPORTS = {
    "AmlCompute": "compute",
    "ComputeTarget": "compute",
    "CondaDependencies": "conda_dependencies",
    "Environment": "environment",
    "Estimator": "estimator",
    "Experiment": "experiment",
    "Model": "model",
    "Mpi": "distributed",
    "MpiConfiguration": "runconfig",
    "PyTorch": "dnn",
    "Run": "run",
    "RunConfiguration": "runconfig",
    "SKLearn": "sklearn",
    "ScriptRunConfig": "script_run_config",
    "Workspace": "workspace",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return __all__
