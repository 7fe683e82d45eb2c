"""What ``doctor`` says about real GPUs: which there are, how they can be shared, who has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from simgrid_ml.errors import HostError
from simgrid_ml.spec.gpus import HostGpu, HostGpus
from simgrid_ml.units import format_bytes

__all__ = ["gpus_checks"]

_VIRTUAL = "those of nodes live in host memory"
_SERVICE = (
    "set CUDA_MPS_PIPE_DIRECTORY to the folder that `nvidia-cuda-mps-control -d` was started with "
    "by this user, or unset it"
)


def gpus_checks() -> Iterator[tuple[str, str, str, str]]:
    """(check, answer, found, remedy); no GPU is no fault, as nodes have virtual ones anyway."""
    from simgrid_ml.gpus.discover import host_gpus
    from simgrid_ml.gpus.nvml import has_driver

    host = host_gpus()
    if not host.gpus:
        if has_driver():
            remedy = "`nvidia-smi` must work first; `dmesg | grep -i nvrm` tells more"
            yield "GPUs", "limited", f"{host.why_none}; {_VIRTUAL}", remedy
        else:
            yield "GPUs", "yes", f"{host.why_none}: {_VIRTUAL}", ""
        return
    counted = Counter(map(_gpu, host.gpus))
    there = ", ".join(f"{count} x {gpu}" for gpu, count in counted.items())
    found = f"{there}, driver {host.driver}, CUDA {host.cuda}"
    if host.why_none:
        yield "GPUs", "limited", f"{found}; not to be used: {host.why_none}", "restart the host"
    else:
        yield "GPUs", "yes", found, ""
    yield from _sharing(host)
    yield from _containers(host)
    yield from _leases(host)


def _gpu(gpu: HostGpu) -> str:
    size = format_bytes(gpu.memory_bytes)
    if not gpu.mig_enabled:
        return f"{gpu.name} ({size})"
    instances = ", ".join(one.profile for one in gpu.mig) or "no instance"
    return f"{gpu.name} ({size}, MIG: {instances})"


def _sharing(host: HostGpus) -> Iterator[tuple[str, str, str, str]]:
    if host.mps_directory is not None:
        found = f"Multi-Process Service in {host.mps_directory} (gpu_sharing=mps), time slices"
        yield "GPU sharing", "yes", found, ""
    elif host.why_no_mps:
        yield "GPU sharing", "limited", f"time slices alone: {host.why_no_mps}", _SERVICE
    else:
        yield "GPU sharing", "yes", "time slices; no Multi-Process Service runs", ""


def _containers(host: HostGpus) -> Iterator[tuple[str, str, str, str]]:
    from simgrid_ml.backends.engine_api import Engine
    from simgrid_ml.gpus.containers import for_containers

    try:
        given = for_containers(host, Engine().info())
    except HostError:  # no engine: another check says so
        return
    if not given.gpus:
        remedy = "install nvidia-container-toolkit; --backend process needs none"
        yield "GPUs of containers", "limited", given.why_none, remedy
        return
    by = "NVIDIA's runtime" if given.runtime else "CDI"
    if len(given.gpus) < len(host.gpus):
        found = f"{len(given.gpus)} of {len(host.gpus)}: its specifications name no more"
        remedy = "nvidia-ctk cdi generate --device-name-strategy=uuid"
        yield "GPUs of containers", "limited", f"by {by}, {found}", remedy
    else:
        yield "GPUs of containers", "yes", f"by {by}", ""


def _leases(host: HostGpus) -> Iterator[tuple[str, str, str, str]]:
    from simgrid_ml.gpus.leases import Leases

    devices = {gpu.uuid for gpu in host.gpus} | {one.uuid for g in host.gpus for one in g.mig}
    held = [lease for lease in Leases().held() if lease.device in devices]
    if not held:
        yield "GPUs in use", "yes", "by no run of this user", ""
        return
    runs: dict[str, list[str]] = {}
    for lease in held:
        size = "all" if lease.exclusive else format_bytes(lease.memory_bytes)
        runs.setdefault(lease.run, []).append(f"{size} of {lease.device}")
    told = "; ".join(f"{run} has {', '.join(shares)}" for run, shares in runs.items())
    yield "GPUs in use", "yes", f"{told}; others wait where that is too much", ""
