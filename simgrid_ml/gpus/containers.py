"""How containers are given GPUs: by their UUIDs, through CDI or NVIDIA's runtime, never by count.

Two containers that ask for one GPU by count may get the same; a name leaves no choice.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from simgrid_ml.spec.gpus import HostGpus

__all__ = ["SPECIFICATIONS", "device_request", "for_containers", "named_devices"]

SPECIFICATIONS = ("/etc/cdi", "/var/run/cdi")
"""Where specifications of the Container Device Interface are."""
_KIND = "nvidia.com/gpu"


def for_containers(host: HostGpus, engine: Mapping[str, Any]) -> HostGpus:
    """Of the host's GPUs those that an engine can give to containers, and how.

    Args:
        engine: what it says of itself: ``GET /info``.
    """
    if not host.gpus:
        return host
    folders = [folder for folder in engine.get("CDISpecDirs") or () if os.path.isdir(folder)]
    named = tuple(sorted(named_devices(folders)))
    runtime = "nvidia" in (engine.get("Runtimes") or {})
    if runtime:
        return replace(host, cdi=named, runtime=True)
    gpus = tuple(
        replace(gpu, mig=tuple(one for one in gpu.mig if one.uuid in named))
        for gpu in host.gpus
        if gpu.uuid in named or any(one.uuid in named for one in gpu.mig)
    )
    if gpus:
        return replace(host, gpus=gpus, cdi=named)
    return HostGpus(
        driver=host.driver,
        cuda=host.cuda,
        why_none="the container engine cannot give the host's GPUs to containers: it has neither "
        "NVIDIA's runtime nor a CDI specification that names them by UUID (`nvidia-ctk cdi "
        "generate --device-name-strategy=uuid`)",
    )


def named_devices(folders: Iterable[str]) -> set[str]:
    """Names of NVIDIA's devices in the specifications there; what cannot be read has none."""
    return {
        str(device.get("name"))
        for specification in _specifications(folders)
        if specification.get("kind") == _KIND
        for device in specification.get("devices") or ()
        if isinstance(device, dict)
    }


def _specifications(folders: Iterable[str]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(folder)):
                read = _read(os.path.join(folder, name))
                if isinstance(read, dict):
                    yield read


def _read(path: str) -> object:
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
        if path.endswith(".json"):
            return json.load(stream)
        if path.endswith((".yaml", ".yml")):
            import yaml  # 15 ms

            with contextlib.suppress(yaml.YAMLError):
                return yaml.safe_load(stream)
    return None


def device_request(devices: Sequence[str], named: Iterable[str]) -> dict[str, Any]:
    """What ``POST /containers/create`` is told, for devices by UUID.

    Args:
        named: those that a specification of CDI names; others need NVIDIA's runtime.
    """
    if set(devices) <= set(named):
        ids = [f"{_KIND}={device}" for device in devices]
        return {"Driver": "cdi", "DeviceIDs": ids}
    return {
        "Driver": "nvidia",
        "DeviceIDs": list(devices),
        "Capabilities": [["gpu", "compute", "utility"]],
    }
