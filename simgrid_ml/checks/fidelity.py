"""Did the host deliver what was emulated: cores, memory, rates, delays?"""

from __future__ import annotations

from collections.abc import Iterator

from simgrid_ml.checks.base import Finding
from simgrid_ml.record.run import RunRecord

__all__ = ["check"]


def check(run: RunRecord) -> Iterator[Finding]:
    """Judge what was measured before and while the ranks ran."""
    yield from ()
