"""``AmlCompute.get_status()``: a cluster at one moment, as the pool of its nodes tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from simgrid_ml.azure.provisioning import ScaleSettings
from simgrid_ml.engine.pools import NO_POOL
from simgrid_ml.spec.cluster import ClusterSpec

__all__ = ["AmlComputeNodeStateCounts", "AmlComputeStatus", "vm_priority"]


def vm_priority(spec: ClusterSpec) -> str:
    """In the service's spelling."""
    known = {"dedicated": "Dedicated", "lowpriority": "LowPriority"}
    return known.get(spec.vm_priority.lower(), spec.vm_priority)


class AmlComputeNodeStateCounts:
    """Nodes by what they do. None is ever unusable: such a node is ended, and replaced."""

    def __init__(self, by_state: Mapping[str, int], preempted: int) -> None:
        self.preparing_node_count = by_state.get("preparing", 0)
        self.running_node_count = by_state.get("running", 0)
        self.idle_node_count = by_state.get("idle", 0)
        self.unusable_node_count = 0
        self.leaving_node_count = by_state.get("leaving", 0)
        self.preempted_node_count = preempted

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
    """A cluster at one moment.

    Args:
        pool: what the pool of its nodes says; None: it has none, and so no nodes.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        created: datetime,
        modified: datetime,
        pool: Mapping[str, Any] | None,
    ) -> None:
        pool = pool or NO_POOL
        states = Counter(node["state"] for node in pool["nodes"])
        changed = max((node["since"] for node in pool["nodes"]), default=modified.timestamp())
        self.current_node_count = states.total() - states["preparing"] - states["leaving"]
        self.target_node_count = pool["target"]
        self.node_state_counts = AmlComputeNodeStateCounts(states, len(pool["preempted"]))
        is_steady = states.total() == self.target_node_count and not (
            states["preparing"] or states["leaving"]
        )
        self.allocation_state = "Steady" if is_steady else "Resizing"
        self.allocation_state_transition_time = datetime.fromtimestamp(changed, timezone.utc)
        self.creation_time = created
        self.modified_time = modified
        self.errors: Any = [
            {"error": {"code": error["kind"], "message": error["cause"]}}
            for error in pool["errors"]
        ] or None
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
