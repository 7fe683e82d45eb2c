"""What the nodes of a run are given of real GPUs, as backends are asked for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from simgrid_ml.backends.base import NodesRequest
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.gpus import Backing, Frameworks, GpuPlan, GpuSharing, HostGpus
from simgrid_ml.spec.placement import HostInventory, Placement

__all__ = ["devices_for_pool", "for_pool", "planned", "with_devices"]

_WITH_SERVICE = (Backing.MPS_CGROUP, Backing.MPS)
_UNKNOWN = Frameworks()


def planned(
    cluster: ClusterSpec,
    placement: Placement,
    host: HostInventory,
    frameworks: Frameworks = _UNKNOWN,
    taken: Mapping[str, int] | None = None,
    *,
    contained: bool = False,
) -> GpuPlan | None:
    """``plan_gpus`` for the nodes and tasks of a placement.

    Raises:
        SpecError, PlacementError: as ``plan_gpus``.
    """
    if not cluster.gpus_per_node:
        return None
    from simgrid_ml.spec.gpu_plan import plan_gpus  # few runs have GPUs

    return plan_gpus(
        cluster,
        placement.nodes,
        host.gpus,
        memory_bytes=host.memory_bytes,
        processes_per_node=max(len(placement.on(node)) for node in placement.nodes),
        frameworks=frameworks,
        taken=taken or {},
        contained=contained,
    )


def with_devices(request: NodesRequest, plan: GpuPlan | None) -> NodesRequest:
    """``request`` with the devices of a plan."""
    if plan is None or not plan.devices:
        return request
    gpus, limits = {}, {}
    for node in plan.nodes:
        gpus[node.node] = node.devices
        if plan.backing is Backing.MPS_CGROUP:
            limits[node.node] = {
                device: sum(s.memory_bytes for s in node.shares if s.device == device)
                for device in node.devices
            }
    writable = request.writable
    if plan.backing in _WITH_SERVICE:  # clients meet the service at sockets in its directory
        writable += (plan.nodes[0].variables["CUDA_MPS_PIPE_DIRECTORY"],)
    return replace(request, gpus=gpus, gpu_limits=limits, writable=writable)


def for_pool(host: HostInventory) -> HostInventory:
    """``host`` as containers of a stored cluster can use it: they are there before a run is."""
    if host.gpus.mps_directory is None:
        return host
    why = "containers of a stored cluster are started before anybody knows a run's share"
    return replace(host, gpus=replace(host.gpus, mps_directory=None, why_no_mps=why))


def devices_for_pool(cluster: ClusterSpec, host: HostGpus) -> tuple[str, ...]:
    """What every container of a stored cluster is given: all devices, of which a run's processes
    are told to see their own."""
    if not cluster.gpus_per_node or cluster.gpu_sharing is GpuSharing.EMULATED:
        return ()
    whole = (gpu.uuid for gpu in host.gpus if not gpu.mig_enabled)
    return (*whole, *(instance.uuid for gpu in host.gpus for instance in gpu.mig))
