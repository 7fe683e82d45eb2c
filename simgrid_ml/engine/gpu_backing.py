"""What a node's processes are told of the real GPUs behind its virtual ones. Pure."""

from __future__ import annotations

from collections import Counter

from simgrid_ml import wire
from simgrid_ml.spec.gpus import Backing, GpuPlan, NodeGpus

__all__ = ["CAPS", "backing_variables", "devices_on", "has_slices", "is_shared", "views"]

CAPS = "gpu_caps"
"""The hook that keeps frameworks within their slice of a real GPU; see ``shim/virtual_gpu``."""

_SLICED = (Backing.MPS_CGROUP, Backing.MPS, Backing.TIME_SLICED)


def has_slices(plan: GpuPlan) -> bool:
    """Whether a framework must be told which part of a real GPU is its own.

    An instance of MIG is a device by itself, but a process sees one of them only, so that a node
    with two needs somebody who chooses.
    """
    several = plan.backing is Backing.MIG and len(plan.nodes[0].shares) > 1
    return plan.backing in _SLICED or several


def is_shared(plan: GpuPlan) -> bool:
    """Whether two virtual GPUs of the run are parts of one device."""
    shares = (share.device for node in plan.nodes for share in node.shares)
    return any(count > 1 for device, count in Counter(shares).items() if device is not None)


def devices_on(node: NodeGpus) -> tuple[str, ...]:
    """The real devices behind the node's GPUs, each once, in order."""
    return tuple(dict.fromkeys(s.device for s in node.shares if s.device is not None))


def views(plan: GpuPlan, node: NodeGpus) -> tuple[tuple[str, ...], ...]:
    """The sets of devices that a process on ``node`` can see at once; all of them are checked."""
    devices = devices_on(node)
    if plan.backing is Backing.MIG:
        return tuple((device,) for device in devices)
    return (devices,) if devices else ()


def backing_variables(plan: GpuPlan, node: NodeGpus) -> dict[str, str]:
    """For every process on ``node``; none where its GPUs live in host memory."""
    devices = devices_on(node)
    if not devices:
        return {}
    variables = {
        "CUDA_VISIBLE_DEVICES": ",".join(devices),
        wire.GPU_BACKING_VARIABLE: plan.backing.name,
        wire.GPU_COLLECTIVES_VARIABLE: plan.collectives,
    }
    if has_slices(plan):
        behind = (share.device or "" for share in node.shares)
        variables[wire.GPU_DEVICES_VARIABLE] = ",".join(behind)
        # Ours limits what is taken; this keeps TensorFlow from taking all of that at once. Read
        # by its allocator, so it does not exclude a limit as the option of the same name does.
        variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        # JAX takes three quarters of the whole device at its start otherwise.
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return variables
