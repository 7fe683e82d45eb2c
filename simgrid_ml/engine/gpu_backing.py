"""What a node's processes are told of the real GPUs behind its virtual ones. Pure."""

from __future__ import annotations

from simgrid_ml import wire
from simgrid_ml.node import gpu_slices as slices
from simgrid_ml.spec.gpus import Backing, GpuPlan, NodeGpus

__all__ = ["backing_variables", "hooks_of", "views"]

_CAPS = "gpu_caps"
_COLLECTIVES = "gpu_collectives"
_ONE_BY_ONE = (Backing.MIG, Backing.MPS)


def hooks_of(plan: GpuPlan) -> tuple[str, ...]:
    """What frameworks need to use the real GPUs of the plan as it says; see ``shim/hooks``.

    Also with a whole GPU for each virtual one: a script that sets ``CUDA_VISIBLE_DEVICES`` means
    those of its node, and CUDA would take them for the host's.
    """
    return () if plan.backing is Backing.HOST_MEMORY else (_CAPS, _COLLECTIVES)


def views(plan: GpuPlan, node: NodeGpus) -> tuple[tuple[str, ...], ...]:
    """The sets of devices that a process on ``node`` can see at once; all of them are checked."""
    devices = node.devices
    if plan.backing in _ONE_BY_ONE:
        return tuple((device,) for device in devices)
    return (devices,) if devices else ()


def _collectives(plan: GpuPlan) -> str:
    return "nccl-by-rank" if plan.host_identity else plan.collectives


def backing_variables(plan: GpuPlan, node: NodeGpus) -> dict[str, str]:
    """For every process on ``node``; none where its GPUs live in host memory."""
    devices = node.devices
    if not devices:
        return {}
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(devices),
        wire.GPU_BACKING_VARIABLE: plan.backing.name,
        wire.GPU_COLLECTIVES_VARIABLE: _collectives(plan),
        wire.GPU_DEVICES_VARIABLE: slices.encode(
            slices.Part(share.device or "", share.process_bytes, share.device_bytes)
            for share in node.shares
        ),
        **node.variables,
    }
