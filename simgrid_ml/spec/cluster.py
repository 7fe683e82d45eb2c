"""On what a job runs: an emulated AmlCompute cluster."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from msgspec import Meta

from simgrid_ml.spec.value import Value

__all__ = ["ClusterSpec", "Era", "WorkingDirectory"]

Count = Annotated[int, Meta(ge=0)]


class Era(str, Enum):
    """Which generation of Azure ML is emulated: names of logs and variables differ.

    E1: Batch AI (2018 to mid 2019); E2: classic AmlCompute (to 2021/22); E3: common runtime.
    """

    E1 = "E1"
    E2 = "E2"
    E3 = "E3"


class WorkingDirectory(str, Enum):
    """Shared: one folder for all nodes (E1, E2). Private: one per node, merged at the end (E3)."""

    SHARED = "shared"
    PRIVATE = "private"


class ClusterSpec(Value, frozen=True, kw_only=True):
    """A cluster as stored: nodes exist only inside a run.

    ``backend`` names an entry point of the group ``simgrid_ml.backends``.
    """

    name: str
    vm_size: str = "STANDARD_D2_V2"
    vm_priority: str = "dedicated"
    min_nodes: Count = 0
    max_nodes: Annotated[int, Meta(ge=1)] = 4
    idle_seconds_before_scaledown: Count = 1800
    backend: str = "process"
    era: Era = Era.E2
    working_directory: WorkingDirectory | None = None

    def __post_init__(self) -> None:
        if self.max_nodes < max(1, self.min_nodes):
            raise ValueError("max_nodes must be at least 1 and at least min_nodes")

    @property
    def effective_working_directory(self) -> WorkingDirectory:
        """What was asked for, else what the era did."""
        if self.working_directory is not None:
            return self.working_directory
        return WorkingDirectory.PRIVATE if self.era is Era.E3 else WorkingDirectory.SHARED
