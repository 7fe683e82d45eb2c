"""The container of one node, as the engine is asked for it: pure."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any

from simgrid_ml import wire
from simgrid_ml.backends.base import NodesRequest
from simgrid_ml.backends.image import NodeImage
from simgrid_ml.gpus.containers import device_request
from simgrid_ml.native import PACKAGE
from simgrid_ml.node.config import Config
from simgrid_ml.node.isolation import TCP

__all__ = ["LABELS", "container_body", "container_name", "mount_points", "node_tmp"]

_AGENT = os.path.join(PACKAGE, "node", "agent.py")
_CPU_PERIOD_US = 100_000
_TUN = "/dev/net/tun"

_FOR_ALL = ("SYS_PTRACE",)
"""For the engine's filter of system calls, which refuses ``kcmp`` to containers without it. Open
MPI asks that before it lets ranks of one node copy from each other's memory at once (CMA); refused,
it copies everything twice."""

_TO_BECOME_THE_CALLER = ("DAC_OVERRIDE", "SETGID", "SETUID")
"""Until the agent is the caller, the caller's files are another's, and may be closed to it."""

_TO_JOIN_A_RELAY = ("NET_ADMIN",)

_TO_LEAVE_THE_HOST = ("NET_ADMIN", "SYS_ADMIN")
"""The agent drops all capabilities, for good, before it listens to anybody. With these it leaves
the host's network namespace for one of its own before that. The engine would make one as well, in
twice the time of everything else that starting takes: 0.19 s instead of 0.09 s for one container,
1.8 s instead of 1.0 s for sixteen. Only nodes whose every program is the host's start so: what an
image brings runs from the first moment without."""

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/class/net",
    "/sys/devices/virtual/net",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""The engine's own list, and the names of the host's interfaces."""


class LABELS:
    """What everything that the backend makes carries; it is found and removed by these alone."""

    RUN = wire.LABEL
    NODE = f"{wire.LABEL}.node"
    DIRECTORY = f"{wire.LABEL}.directory"
    REQUEST = f"{wire.LABEL}.request"


def container_name(run_dir: str, node: str) -> str:
    """For people who look at ``docker ps``; runs of two workspaces may have one id."""
    run = re.sub(r"[^a-zA-Z0-9_.-]", "_", os.path.basename(run_dir))
    digest = hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:8]
    return f"{wire.LABEL}-{run}-{digest}-{node}"


def node_tmp(request: NodesRequest, node: str) -> str:
    """The folder of the host that a node sees as ``/tmp``."""
    return os.path.join(request.run_dir, wire.TMP, node)


def container_body(
    request: NodesRequest,
    image: NodeImage,
    config: Config,
    number: str,
    named_gpus: Sequence[str] = (),
) -> dict[str, Any]:
    """What ``POST /containers/create`` is given for the one node of ``config``.

    Args:
        number: of the request, for its label.
        named_gpus: UUIDs that the engine's specifications of CDI name.
    """
    (node,) = config.nodes
    capacity = request.capacity
    capabilities = {
        *_FOR_ALL,
        *(_TO_BECOME_THE_CALLER if config.uid else ()),
        *(_TO_JOIN_A_RELAY if config.relay else ()),
        *(_TO_LEAVE_THE_HOST if config.unshare else ()),
    }
    host: dict[str, Any] = {
        "AutoRemove": True,
        "CapAdd": sorted(capabilities),
        "CapDrop": ["ALL"],
        "ExtraHosts": [f"{name}:{address}" for name, address in config.addresses.items()],
        "Init": False,
        "IpcMode": "private",
        "LogConfig": {"Type": "none"},
        "Mounts": [_mount(*mount) for mount in _mounts(request, image, node)],
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "SecurityOpt": ["no-new-privileges"],
        "ShmSize": capacity.shm_bytes,
        "Tmpfs": dict.fromkeys(("/run", "/var/tmp"), "mode=1777"),
    }
    if config.unshare:
        host.update(NetworkMode="host", MaskedPaths=list(_MASKED))
    if config.relay is not None:
        host["Sysctls"] = {f"net.ipv4.{name}": value for name, value in TCP.items()}
        host["Devices"] = [{"PathOnHost": _TUN, "PathInContainer": _TUN, "CgroupPermissions": "rw"}]
    if gpus := request.gpus.get(node):
        host["DeviceRequests"] = [device_request(gpus, named_gpus)]
    if capacity.cpus is not None:
        host["CpuPeriod"] = _CPU_PERIOD_US
        host["CpuQuota"] = max(1000, round(capacity.cpus * _CPU_PERIOD_US))
    if capacity.memory_bytes is not None:
        host["Memory"] = host["MemorySwap"] = capacity.memory_bytes
    return {
        "Entrypoint": [*image.python, _AGENT, config.encode()],
        "Env": [f"{wire.RUN_DIR_VARIABLE}={request.run_dir}"],
        "Healthcheck": {"Test": ["NONE"]},  # of the image's: it would keep the capabilities
        "HostConfig": host,
        "Hostname": node,
        "Image": image.name,
        "Labels": {
            LABELS.RUN: request.run_id,
            LABELS.NODE: node,
            LABELS.DIRECTORY: request.run_dir,
            LABELS.REQUEST: number,
        },
        "User": "0:0",
        "WorkingDir": "/",
    }


def mount_points(request: NodesRequest, image: NodeImage, node: str) -> list[tuple[str, str]]:
    """(what is mounted, where) of what a node sees in its ``/tmp``, as paths of the host.

    The engine makes what is missing, but as root.
    """
    tmp, inside = node_tmp(request, node), "/tmp" + os.sep
    return [
        (source, os.path.join(tmp, os.path.relpath(target, "/tmp")))
        for source, target, _ in _mounts(request, image, node)
        if target.startswith(inside)
    ]


def _mounts(request: NodesRequest, image: NodeImage, node: str) -> list[tuple[str, str, bool]]:
    """(path of the host, path in the node, read-only)"""
    return [
        *image.binds,
        *((folder, folder, False) for folder in (request.run_dir, *request.writable)),
        (node_tmp(request, node), "/tmp", False),
    ]


def _mount(source: str, target: str, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
