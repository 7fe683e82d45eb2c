"""``AmlCompute.get_status()``: a cluster at one moment."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from simgrid_ml.azure.provisioning import ScaleSettings
from simgrid_ml.spec.cluster import ClusterSpec

__all__ = ["AmlComputeNodeStateCounts", "AmlComputeStatus", "vm_priority"]


def vm_priority(spec: ClusterSpec) -> str:
    """In the service's spelling."""
    known = {"dedicated": "Dedicated", "lowpriority": "LowPriority"}
    return known.get(spec.vm_priority.lower(), spec.vm_priority)


class AmlComputeNodeStateCounts:
    """Nodes by what they do."""

    def __init__(self, running: int, idle: int, preparing: int) -> None:
        self.preparing_node_count = preparing
        self.running_node_count = running
        self.idle_node_count = idle
        self.unusable_node_count = 0
        self.leaving_node_count = 0
        self.preempted_node_count = 0

    def serialize(self) -> dict[str, int]:
        return {
            "preparingNodeCount": self.preparing_node_count,
            "runningNodeCount": self.running_node_count,
            "idleNodeCount": self.idle_node_count,
            "unusableNodeCount": self.unusable_node_count,
            "leavingNodeCount": self.leaving_node_count,
            "preemptedNodeCount": self.preempted_node_count,
        }


class AmlComputeStatus:
    """A cluster at one moment, read from the runs that use it."""

    def __init__(
        self, spec: ClusterSpec, created: datetime, modified: datetime, running: int, waiting: int
    ) -> None:
        current = max(running, spec.min_nodes)
        target = min(max(running + waiting, spec.min_nodes), spec.max_nodes)
        self.current_node_count = current
        self.target_node_count = max(current, target)
        self.node_state_counts = AmlComputeNodeStateCounts(
            running, current - running, self.target_node_count - current
        )
        self.allocation_state = "Steady" if current == self.target_node_count else "Resizing"
        self.allocation_state_transition_time = modified
        self.creation_time = created
        self.modified_time = modified
        self.errors: Any = None
        self.provisioning_errors: Any = None
        self.provisioning_state = "Succeeded"
        self.provisioning_state_transition_time: datetime | None = None
        self.scale_settings = ScaleSettings(
            spec.min_nodes, spec.max_nodes, spec.idle_seconds_before_scaledown
        )
        self.vm_priority = vm_priority(spec)
        self.vm_size = spec.vm_size

    def serialize(self) -> dict[str, Any]:
        return {
            "currentNodeCount": self.current_node_count,
            "targetNodeCount": self.target_node_count,
            "nodeStateCounts": self.node_state_counts.serialize(),
            "allocationState": self.allocation_state,
            "allocationStateTransitionTime": self.allocation_state_transition_time.isoformat(),
            "errors": self.errors,
            "creationTime": self.creation_time.isoformat(),
            "modifiedTime": self.modified_time.isoformat(),
            "provisioningState": self.provisioning_state,
            "provisioningStateTransitionTime": None,
            "scaleSettings": self.scale_settings.serialize(),
            "vmPriority": self.vm_priority,
            "vmSize": self.vm_size,
        }
