"""Every exception of simgrid-ml: what was asked, what happened, what was seen, what to do.

::

    SimgridError                 cause, evidence, remedy; exit code of the command line
    ├── UsageError          (2)  the request cannot be carried out as it stands
    │   ├── SpecError            a value is missing, unknown or out of range
    │   ├── RequirementError     a package does not exist, or some exclude each other
    │   ├── PlacementError       the job does not fit the cluster
    │   ├── SnapshotError        the source folder cannot be taken
    │   ├── NotFoundError        no run, cluster, model … of that name
    │   ├── ConflictError        the name is taken; artifacts are created once
    │   └── NotEmulated          part of Azure ML that is not emulated
    ├── RunFailed           (1)  the user's program ended badly
    ├── ContractFailed      (4)  the program ended well, a check did not pass
    ├── HostError           (5)  this machine could not do its part
    │   ├── EnvironmentBuildError  the environment could not be built
    │   ├── NodeError            a virtual node did not start or went away
    │   └── LaunchError          nodes are up, the ranks did not start
    └── RecordError              a run directory says something it must not
        └── IllegalMove          a run's state may not go there
"""

from __future__ import annotations

from typing import Any, Dict, Optional

__all__ = [
    "ConflictError",
    "ContractFailed",
    "EnvironmentBuildError",
    "HostError",
    "IllegalMove",
    "LaunchError",
    "NodeError",
    "NotEmulated",
    "NotFoundError",
    "PlacementError",
    "RecordError",
    "RequirementError",
    "RunFailed",
    "SimgridError",
    "SnapshotError",
    "SpecError",
    "UsageError",
]


class SimgridError(Exception):
    """Base of all errors.

    Args:
        cause: one sentence: what was asked and what happened.
        remedy: what the reader can do about it; may be empty only where nothing can be done.
        evidence: what was seen: an exit code, the last lines of a log.
    """

    exit_code = 5

    def __init__(self, cause: str, *, remedy: str = "", evidence: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.evidence = evidence

    def __str__(self) -> str:
        parts = [self.cause]
        if self.evidence:
            parts.append("\n".join("  " + line for line in self.evidence.splitlines()))
        if self.remedy:
            parts.append(f"Try: {self.remedy}")
        return "\n".join(parts)

    def to_json(self) -> Dict[str, Any]:
        """The error as plain data, for a run's record and for ``--json``."""
        return {
            "kind": type(self).__name__,
            "cause": self.cause,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "exit_code": self.exit_code,
        }


class UsageError(SimgridError):
    exit_code = 2


class SpecError(UsageError):
    """A value is missing, unknown or out of range; ``where`` points at it: ``job.arguments[2]``."""

    def __init__(
        self, cause: str, *, remedy: str = "", evidence: str = "", where: Optional[str] = None
    ) -> None:
        super().__init__(cause, remedy=remedy, evidence=evidence)
        self.where = where


class RequirementError(UsageError):
    """No environment has these packages, however often it is tried."""


class PlacementError(UsageError):
    pass


class SnapshotError(UsageError):
    pass


class NotFoundError(UsageError):
    pass


class ConflictError(UsageError):
    pass


class NotEmulated(UsageError):
    """A part of Azure ML that exists there and is not emulated here (yet)."""


class RunFailed(SimgridError):
    exit_code = 1


class ContractFailed(SimgridError):
    exit_code = 4


class HostError(SimgridError):
    exit_code = 5


class EnvironmentBuildError(HostError):
    """The environment could not be built."""


class NodeError(HostError):
    pass


class LaunchError(HostError):
    pass


class RecordError(SimgridError):
    exit_code = 5


class IllegalMove(RecordError):
    pass
