"""A run's record in the service's words: ``get_details``, tags, properties, errors."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Union

from simgrid_ml import wire
from simgrid_ml.record.journal import read_json
from simgrid_ml.record.read import attributes, error_of
from simgrid_ml.record.run import Artifact, RunRecord, RunState

__all__ = [
    "Wanted",
    "address",
    "content",
    "details",
    "has_all",
    "is_log",
    "last_said",
    "properties",
    "tags",
]

Wanted = Union[None, str, Mapping[str, Any]]
"""A tag or property that must be there, or several with their values."""

_LOG_FOLDERS = ("azureml-logs", "user_logs", "system_logs", wire.LOGS)


def details(record: RunRecord, log_value: Callable[[Artifact], str]) -> Dict[str, Any]:
    """What ``Run.get_details`` returns; ``log_value`` says what stands for a log."""
    spec, moves, state = record.spec(), record.states(), record.state
    times = {move["state"]: move["t"] for move in moves}
    ended = [times[s.value] for s in RunState if s.is_terminal and s.value in times]
    found = {
        "runId": record.id,
        "target": (spec.get("cluster") or {}).get("name", "local"),
        "status": state.value,
        "startTimeUtc": _utc(times.get(RunState.RUNNING.value)),
        "endTimeUtc": _utc(ended[0] if ended else None),
        "properties": properties(record),
        "inputDatasets": [],
        "outputDatasets": [],
        "runDefinition": spec.get("definition") or {},
        "logFiles": {a.name: log_value(a) for a in record.artifacts() if is_log(a.name)},
        "submittedBy": spec.get("submitted_by", ""),
        "warnings": _warnings(record, spec, moves),
        "error": _error(record),
    }
    optional = ("startTimeUtc", "endTimeUtc", "warnings", "error")
    return {key: value for key, value in found.items() if value or key not in optional}


def _warnings(
    record: RunRecord, spec: Mapping[str, Any], moves: List[Dict[str, Any]]
) -> List[Dict[str, str]]:
    messages = [
        *(spec.get("warnings") or []),
        *_of_environment(record.document(wire.ENVIRONMENT), spec, record.document(wire.GPUS)),
        *_of_gpus(record),
        *(move.get("warning") for move in moves),
    ]
    return [{"source": "simgrid-ml", "message": str(text)} for text in messages if text]


def _of_gpus(record: RunRecord) -> Iterator[str]:
    for finding in read_json(record.file(wire.VERDICTS), []):
        if finding["check"] == "gpus.used" and "use_gpu" in finding["message"]:
            yield finding["message"]


def _of_environment(
    found: Mapping[str, Any], spec: Mapping[str, Any], gpus: Mapping[str, Any]
) -> Iterator[str]:
    """How the environment differs from the one that was asked for.

    Args:
        gpus: what is behind the GPUs of the nodes; empty: they have none.
    """
    if found.get("image_used") is False:
        yield f"the image {found['image']} was not used: packages are installed on this host"
    yield from found.get("image_notes", [])
    for one in found.get("substitutions", []):
        yield f"{one['wanted']} became {one['got'] or 'nothing'}: {one['reason']}"
    if ((spec.get("job") or {}).get("environment") or {}).get("use_gpu"):
        builds = [f"{n} {v}" for n, v in found.get("packages", {}).items() if v.endswith("+cpu")]
        if builds and gpus:
            yield f"CPU builds serve the nodes' GPUs, which are virtual: {', '.join(builds)}"
        elif builds:
            yield f"use_gpu was asked for and CPU builds are installed: {', '.join(builds)}"


def _error(record: RunRecord) -> Optional[Dict[str, Any]]:
    found = error_of(record)
    if found is None:
        return None
    by_user = found.get("exit_code") in (1, 2)
    parts = [found.get("cause"), found.get("evidence"), found.get("remedy")]
    return {
        "error": {
            "code": found.get("code") or ("UserError" if by_user else "SystemError"),
            "message": "\n".join(str(part) for part in parts if part),
            "messageParameters": {},
            "details": [],
            "innerError": {"code": str(found.get("kind"))},
        }
    }


def address(artifact: Artifact) -> str:
    """Where the artifact can be read."""
    from urllib.parse import quote  # 8 ms, and no rank needs it

    return "file://" + quote(os.fsencode(artifact.path))


def content(artifact: Artifact) -> str:
    """What is in the artifact now."""
    with open(artifact.path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def is_log(name: str) -> bool:
    return name.partition("/")[0] in _LOG_FOLDERS


def tags(record: RunRecord) -> Dict[str, Any]:
    """Tags as they stand: of several writers the last one counts."""
    found: Dict[str, Any] = attributes(record)["tags"]
    return found


def properties(record: RunRecord) -> Dict[str, Any]:
    """Properties: of several writers the first one counts."""
    found: Dict[str, Any] = attributes(record)["properties"]
    return found


def last_said(record: RunRecord, what: str) -> Optional[str]:
    """The present ``display_name`` or ``description``."""
    said: Optional[str] = attributes(record).get(what)
    return said


def has_all(values: Mapping[str, Any], wanted: Wanted) -> bool:
    if isinstance(wanted, str):
        return wanted in values
    return all(key in values and values[key] == value for key, value in (wanted or {}).items())


def _utc(t: Optional[float]) -> Optional[str]:
    if t is None:
        return None
    return datetime.fromtimestamp(t, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
