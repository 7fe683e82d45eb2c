"""Three-valued judgement: a check yields findings, the worst one is the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from simgrid_ml import wire
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunRecord

__all__ = ["Check", "Finding", "Stamp", "Verdict", "run_checks", "worst"]


class Verdict(str, Enum):
    """PASS < UNKNOWN < FAIL: what could not be seen is not a success."""

    PASS = "pass"
    UNKNOWN = "unknown"
    FAIL = "fail"


_ORDER = (Verdict.PASS, Verdict.UNKNOWN, Verdict.FAIL)


class Stamp(str, Enum):
    """What the timings of a run are worth; see ``checks.fidelity``."""

    VALID = "valid"
    DEGRADED = "degraded"
    INVALID = "invalid"


@dataclass(frozen=True)
class Finding:
    """One statement of one check, with what it rests on.

    ``stamp`` comes with the one finding that judges the run's timings; it is no verdict: a run
    whose timings mean nothing can be a success.
    """

    check: str
    verdict: Verdict
    message: str
    evidence: str = ""
    stamp: Stamp | None = None

    def to_json(self) -> dict[str, Any]:
        told = {**vars(self), "verdict": self.verdict.value}
        del told["stamp"]
        return told if self.stamp is None else {**told, "stamp": self.stamp.value}


class Check(Protocol):
    """Reads a run, yields findings."""

    def __call__(self, run: RunRecord) -> Iterable[Finding]: ...


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of several.

    >>> worst([Verdict.PASS, Verdict.UNKNOWN]).value, worst([]).value
    ('unknown', 'pass')
    """
    return max(verdicts, key=_ORDER.index, default=Verdict.PASS)


def run_checks(run: RunRecord, checks: Mapping[str, Check]) -> list[Finding]:
    """All findings, also written to the run's ``verdicts.json``; a crashing check is UNKNOWN."""
    findings = []
    for name, check in checks.items():
        try:
            findings += list(check(run))
        except Exception as error:
            findings.append(Finding(name, Verdict.UNKNOWN, f"the check itself failed: {error!r}"))
    write_json(run.file(wire.VERDICTS), [finding.to_json() for finding in findings])
    return findings
