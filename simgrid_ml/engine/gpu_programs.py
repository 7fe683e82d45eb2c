"""What a node with virtual GPUs has of a driver's: ``nvidia-smi`` and the NVML library.

Hosts have their own for real GPUs. The library is compiled once per machine; where it cannot be, a
module ``pynvml`` in Python takes its place.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from simgrid_ml import wire
from simgrid_ml.engine.ranks import write_program
from simgrid_ml.errors import NodeError
from simgrid_ml.native import PACKAGE, PROGRAMS_VARIABLE, compiled
from simgrid_ml.record.run import RunRecord

__all__ = ["install", "library_folder", "nvml_library"]

_FLAGS = (
    *("-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-soname,libnvidia-ml.so.1"),
    # Of no C library: an image may have an older one, or another.
    *("-nostdlib", "-fno-stack-protector", "-U_FORTIFY_SOURCE"),
)
_LIBRARIES = "lib"
"""Folder in TMP, first among the places where programs of the nodes look for libraries."""


def nvml_library() -> str | None:
    """Path of the library; None: nothing here can compile it."""
    if os.environ.get(PROGRAMS_VARIABLE) == "python":
        return None
    try:
        return compiled("node/nvml.c", *_FLAGS)
    except NodeError:
        return None


def library_folder(record: RunRecord) -> str:
    """Where nodes find the library."""
    return record.file(wire.TMP, _LIBRARIES)


def install(record: RunRecord, python: Sequence[str]) -> None:
    """Give all nodes of the run what a driver brings, before anything is started on them.

    Args:
        python: the command that runs a Python on the nodes.
    """
    smi = os.path.join(PACKAGE, "node", "nvidia_smi.py")
    write_program(record, "nvidia-smi", f'exec {shlex.join([*python, "-I", "-S", smi])} "$@"\n')
    library = nvml_library()
    if library is None:
        module = os.path.join(PACKAGE, "shim", "nvml", "pynvml.py")
        os.symlink(module, record.file(wire.PYTHONPATH, "pynvml.py"))
        return
    folder = library_folder(record)
    os.makedirs(folder, exist_ok=True)
    for name in ("libnvidia-ml.so.1", "libnvidia-ml.so"):
        os.symlink(library, os.path.join(folder, name))
