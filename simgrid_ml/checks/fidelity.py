"""Did the host deliver what was emulated: cores, memory, rates, delays? The run's stamp.

The job decides whether a run succeeded; the stamp says what its timings are worth:

* *valid*: nothing was seen that took time away from the ranks.
* *degraded*: results are right, and so is what the links alone decide; other timings are doubtful.
* *invalid*: something else than the job had the host's cores, memory or network.

A run on a busy laptop is still a success, so the finding passes, with the stamp on it. Only where
the cluster asks for links, and one of them is not as asked, is the verdict left unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from simgrid_ml import wire
from simgrid_ml.checks.base import Finding, Stamp, Verdict
from simgrid_ml.record.run import RunRecord
from simgrid_ml.units import format_rate

__all__ = [
    "DELAY_SLACK_S",
    "DELAY_TOLERANCE",
    "LIMITS",
    "RATE_TOLERANCE",
    "Limit",
    "check",
    "deviations",
    "judge",
]


class Limit(NamedTuple):
    """From which value on a quantity makes a run degraded, and invalid; None: it never does.

    ``least`` is the smallest amount (value times seconds) that counts: in a run of half a second,
    one tick of the kernel's clock would be a few per cent.
    """

    degraded: float
    invalid: float | None
    least: float = 0.0


LIMITS: Mapping[str, Limit] = {
    "foreign": Limit(0.05, 0.10, 0.08),
    "steal": Limit(0.02, 0.05, 0.05),
    "throttled": Limit(0.02, 0.10),
    "stalled": Limit(0.02, 0.10),
    "swapped": Limit(2**20, 10 * 2**20),
    "limited": Limit(10.0, None),
    "waiting": Limit(0.10, None),
}
"""By quantity, as ``engine.sampling`` measures them.

``foreign``, ``steal``: share of all cores that other processes, other machines had. ``throttled``:
share of the time a quota stopped a node. ``stalled``: share of the time something waited for
memory. ``swapped``: bytes/s. ``limited``: times per second that a memory limit was hit.
``waiting``: share of the time a rank could run and had no core.
"""

_SHARE_OF_TIME = (0.05, 0.20)
"""A quantity beyond what is invalid for so much of the time: degraded, and invalid."""

RATE_TOLERANCE = 0.05
DELAY_TOLERANCE = 0.10
DELAY_SLACK_S = 150e-6
"""How far a link may be from what was asked. The slack is two wake-ups of a process, which no
user-space network can avoid."""

_LEVELS = (Stamp.VALID, Stamp.DEGRADED, Stamp.INVALID)


def check(run: RunRecord) -> Iterator[Finding]:
    """Judge what was measured before and while the ranks ran."""
    seen = run.document(wire.FIDELITY)
    stamp, reasons = judge(seen, run.document(wire.PLACEMENT))
    promised = bool((run.spec().get("cluster") or {}).get("links"))
    is_off = any(level is Stamp.INVALID for level, _ in _links(seen.get("links") or []))
    unsure = promised and (is_off or not seen.get("host"))
    yield Finding(
        "fidelity",
        Verdict.UNKNOWN if unsure else Verdict.PASS,
        "; ".join(reasons) if reasons else _all_well(seen),
        evidence="\n".join(_event(event) for event in (seen.get("events") or [])[:20]),
        stamp=stamp,
    )


def judge(seen: Mapping[str, Any], placement: Mapping[str, Any]) -> tuple[Stamp, list[str]]:
    """The stamp, and why it is no better, worst first.

    Args:
        seen: the content of ``fidelity.json``; empty: nothing was measured.
        placement: that of ``placement.json``.
    """
    if not seen.get("host"):
        return Stamp.INVALID, ["nothing was measured, so nothing vouches for its timings"]
    found = [
        *_links(seen.get("links") or []),
        *_host(seen["host"]),
        *_parts(seen.get("nodes") or {}, _NODE_WORDS),
        *_cores(seen.get("ranks") or {}, placement),
        *((Stamp.DEGRADED, f"not seen: {what}") for what in seen.get("unseen") or []),
    ]
    found.sort(key=lambda one: -_LEVELS.index(one[0]))
    return found[0][0] if found else Stamp.VALID, [words for _, words in found]


def deviations(asked: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """In which ways a measured link is not what was asked, in words; none: it is."""
    wrong = []
    if measured.get("error"):
        wrong.append(str(measured["error"]))
    rate, got = asked.get("rate_bytes_per_s"), measured.get("rate_bytes_per_s")
    if rate and got and abs(got / rate - 1) > RATE_TOLERANCE:
        wrong.append(f"{format_rate(got)} instead of {format_rate(rate)} ({got / rate - 1:+.1%})")
    delay, took = float(asked.get("delay_s") or 0.0), measured.get("delay_s")
    slack = DELAY_TOLERANCE * delay + float(asked.get("jitter_s") or 0.0) + DELAY_SLACK_S
    if took is not None and abs(took - delay) > slack:
        wrong.append(f"a delay of {took * 1e3:.3g} ms instead of {delay * 1e3:.3g} ms")
    return wrong


def _level(name: str, measure: Mapping[str, Any]) -> Stamp:
    limit = LIMITS[name]
    mean, window = float(measure["mean"]), float(measure["window_s"])
    if mean * window < limit.least:
        return Stamp.VALID
    beyond = float(measure["above_s"]) / window if window else 0.0
    if limit.invalid is not None and (mean >= limit.invalid or beyond >= _SHARE_OF_TIME[1]):
        return Stamp.INVALID
    if mean >= limit.degraded or beyond >= _SHARE_OF_TIME[0]:
        return Stamp.DEGRADED
    return Stamp.VALID


_HOST_WORDS = {
    "foreign": (
        "other processes had {mean:.0%} of the host's CPU time on average, {worst:.0%} at worst"
    ),
    "steal": "other machines of the hypervisor had {mean:.0%} of the CPU time",
    "stalled": "processes waited for memory {mean:.0%} of the time",
    "swapped": "the host swapped {mean:.3g} bytes per second",
}
_NODE_WORDS = {
    "throttled": "{where} was stopped by its CPU quota {mean:.0%} of the time",
    "stalled": "{where} waited for memory {mean:.0%} of the time",
    "limited": "{where} hit its memory limit {mean:.0f} times a second",
}


def _host(host: Mapping[str, Any]) -> Iterator[tuple[Stamp, str]]:
    for name, words in _HOST_WORDS.items():
        measure = host.get(name)
        if measure and (level := _level(name, measure)) is not Stamp.VALID:
            yield level, words.format(**measure)


def _parts(
    parts: Mapping[str, Mapping[str, Any]], all_words: Mapping[str, str]
) -> Iterator[tuple[Stamp, str]]:
    for name, words in all_words.items():
        bad: dict[Stamp, list[str]] = {}
        for where, measures in parts.items():
            if name in measures:
                bad.setdefault(_level(name, measures[name]), []).append(where)
        for level in (Stamp.INVALID, Stamp.DEGRADED):
            if hit := bad.get(level):
                worst = max(hit, key=lambda where: parts[where][name]["mean"])
                others = f" (and {len(hit) - 1} more)" if len(hit) > 1 else ""
                yield level, words.format(where=worst + others, **parts[worst][name])


def _cores(
    ranks: Mapping[str, Mapping[str, Any]], placement: Mapping[str, Any]
) -> Iterator[tuple[Stamp, str]]:
    """Ranks that outnumber cores are no harm where they are seen to wait for none."""
    size, cpus = int(placement.get("world_size") or 0), int(placement.get("cpus") or 0)
    shared = bool(cpus) and size > cpus
    waits = [float(one["waiting"]["mean"]) for one in ranks.values() if "waiting" in one]
    late = any(
        _level("waiting", one["waiting"]) is not Stamp.VALID
        for one in ranks.values()
        if "waiting" in one
    )
    waited = f"ranks waited for a core up to {max(waits):.0%} of the time" if waits else ""
    if shared and (late or len(waits) < size):
        text = f"{size} ranks share {cpus} core{'s' if cpus > 1 else ''}"
        text += ", so timings say nothing about scaling"
        yield Stamp.DEGRADED, f"{text}; {waited}" if late else text
    elif late:
        yield Stamp.DEGRADED, waited


def _links(links: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Stamp, str]]:
    for link in links:
        for what in deviations(link["asked"], link["measured"]):
            yield Stamp.INVALID, f"the link {link['from']} to {link['to']}: {what}"
    unsure = [
        link
        for link in links
        if link["asked"]["rate_bytes_per_s"] and link["measured"].get("rate_not_measured")
    ]
    if unsure:
        one = unsure[0]
        others = f" (and {len(unsure) - 1} more)" if len(unsure) > 1 else ""
        why = one["measured"]["rate_not_measured"]
        yield (
            Stamp.DEGRADED,
            f"the rate of the link {one['from']} to {one['to']}{others} was not measured: {why}",
        )


def _all_well(seen: Mapping[str, Any]) -> str:
    parts = []
    links = seen.get("links") or []
    if links:
        parts.append(f"{len(links)} link{'s' if len(links) > 1 else ''} as asked")
    cables = seen.get("cables") or {}
    busiest = max(cables, key=lambda name: float(cables[name]["busy"]), default="")
    if busiest:
        parts.append(f"busiest: {busiest}, {cables[busiest]['busy']:.0%} of the time")
    if "foreign" in seen["host"]:
        parts.append(f"other processes had {seen['host']['foreign']['mean']:.1%} of the CPU time")
    waits = [one["waiting"]["mean"] for one in (seen.get("ranks") or {}).values() if one]
    if waits:
        parts.append(f"ranks waited for a core at most {max(waits):.1%} of the time")
    return "; ".join(parts) or "nothing took time away from the ranks"


def _event(event: Mapping[str, Any]) -> str:
    return (
        f"{event['from_s']:.1f} s to {event['to_s']:.1f} s: {event['what']} of "
        f"{event['where']} up to {event['worst']:.3g}"
    )
