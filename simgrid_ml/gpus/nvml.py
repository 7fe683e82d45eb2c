"""NVML, the driver's own account of its GPUs, through nvidia-ml-py; loaded where there is a driver.

Everything that it can refuse becomes one sentence: a host with a broken driver is a host whose
GPUs cannot be used, not a crash.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

__all__ = [
    "MODULE_VARIABLE",
    "NvmlUnavailable",
    "has_driver",
    "is_lost",
    "opened",
    "sentence",
]

MODULE_VARIABLE = "SIMGRID_ML_NVML"
"""Names a module to import instead of nvidia-ml-py; ``simgrid_ml.testing.nvml`` is one."""

_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # Linux, and WSL

_DRIVER_NOT_LOADED, _NO_LIBRARY, _NO_PERMISSION, _MISMATCH, _NOT_FOUND, _LOST = 9, 12, 4, 18, 6, 15
_SENTENCES = {
    _NO_PERMISSION: "this user may not use the NVIDIA driver",
    _DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
    _NO_LIBRARY: "the NVIDIA driver's library libnvidia-ml.so.1 is not there",
    _LOST: "the GPU has fallen off the bus, or is otherwise out of reach",
    _MISMATCH: "the NVIDIA driver and its library have different versions, as after an update: "
    "restart the host",
}


class NvmlUnavailable(Exception):
    """There is no NVML to ask; says why in a sentence."""


def has_driver() -> bool:
    """Whether an NVIDIA driver is there, working or not."""
    return any(map(os.path.exists, _DRIVERS))


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """The functions of NVML, ready to be called.

    Raises:
        NvmlUnavailable: there is no driver, or it does not work.
    """
    name = os.environ.get(MODULE_VARIABLE)
    if not name and not has_driver():
        raise NvmlUnavailable("the host has no NVIDIA driver")
    nvml: Any
    try:
        nvml = importlib.import_module(name or "pynvml")
    except ImportError as error:
        raise NvmlUnavailable(f"NVML cannot be asked: {error}") from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NvmlUnavailable(sentence(error)) from error
    try:
        yield nvml
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def sentence(error: Any) -> str:
    """What an ``NVMLError`` means, and what NVML itself says."""
    known = _SENTENCES.get(getattr(error, "value", 0), "the NVIDIA driver does not answer")
    return f"{known} (NVML: {error})"


def is_lost(error: Any) -> bool:
    """Whether the GPU that was asked for is no more, rather than the question refused."""
    return getattr(error, "value", None) in (_LOST, _NOT_FOUND, _DRIVER_NOT_LOADED)
