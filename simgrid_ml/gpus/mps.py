"""NVIDIA's Multi-Process Service: whether one runs that this user may use, and its limits.

It is used where it runs, and never started. A client that is told a wrong directory gets the whole
GPU without limits and no error, so that a directory is only believed with a living daemon in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

__all__ = ["DIRECTORY_VARIABLE", "cgroup_of", "find_service", "limit_memory", "why_no_cgroups"]

DIRECTORY_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
_DEFAULT = "/tmp/nvidia-mps"
_PID = "nvidia-cuda-mps-control.pid"
_CGROUPS = "/sys/fs/cgroup"
_FIRST_DRIVER = 615


def find_service(environ: Mapping[str, str]) -> tuple[str | None, str]:
    """The directory of a service that this user may use, or None and why not."""
    asked = environ.get(DIRECTORY_VARIABLE)
    directory = asked or _DEFAULT
    said = f"{DIRECTORY_VARIABLE} is {asked}, and" if asked else f"in {_DEFAULT}"
    if not os.path.isdir(directory):
        return None, f"{said} there is no such folder" if asked else ""
    try:
        with open(os.path.join(directory, _PID), encoding="ascii") as stream:
            daemon = int(stream.read().split()[0])
        owner = os.stat(f"/proc/{daemon}").st_uid
    except (OSError, ValueError, IndexError):
        return None, f"{said} no nvidia-cuda-mps-control runs there"
    if owner != os.geteuid():
        return None, (
            f"{said} nvidia-cuda-mps-control belongs to user {owner}: this user's processes would "
            "wait until its own have ended"
        )
    return directory, ""


def why_no_cgroups(driver: str, own_cgroups: bool, has_function: bool) -> str:
    """Why memory cannot be limited by control group; "": it can.

    Args:
        own_cgroups: whether each node has a control group of its own.
        has_function: whether NVML's library for Python knows such limits.
    """
    if not driver.partition(".")[0].isdigit() or int(driver.partition(".")[0]) < _FIRST_DRIVER:
        return f"it needs a driver of version {_FIRST_DRIVER} or later, and this is {driver}"
    if not own_cgroups:
        return "nodes that are processes of the host have no control group of their own"
    if not os.path.exists(os.path.join(_CGROUPS, "cgroup.controllers")):
        return f"there is no cgroup v2 at {_CGROUPS}"
    if os.geteuid() != 0:
        return "root alone may set them"
    return "" if has_function else "nvidia-ml-py is older than 13.615"


def cgroup_of(pid: int) -> str:
    """The folder of the control group that a process is in.

    Raises:
        OSError: the process is gone, or there is no cgroup v2.
    """
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("0::"):
                return _CGROUPS + line[3:].rstrip("\n").rstrip("/")
    raise OSError(f"process {pid} is in no control group of version 2")


def limit_memory(nvml: Any, cgroup: str, limits: Mapping[str, int]) -> None:
    """Let processes in ``cgroup`` take so many bytes of each device, by UUID, contexts included.

    Nothing is guaranteed to them, so that the group can be removed at any time.

    Raises:
        NVMLError: the driver refuses.
    """
    for uuid, size in limits.items():
        wanted = nvml.c_nvmlSetMemoryLimits_v1_t()
        wanted.nameSpace, wanted.softLimit, wanted.hardLimit = cgroup.encode(), 0, size
        nvml.nvmlDeviceSetMemoryLimits_v1(nvml.nvmlDeviceGetHandleByUUID(uuid), wanted)
