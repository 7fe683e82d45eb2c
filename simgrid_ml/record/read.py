"""What a run's record says, where several journals or none tell it."""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

from simgrid_ml import wire
from simgrid_ml.record.run import RunRecord, RunState

__all__ = ["attributes", "error_of", "tail"]


def attributes(record: RunRecord) -> Dict[str, Any]:
    """``tags``, ``properties`` and maybe ``display_name`` and ``description``, as they stand.

    Of several writers the last one counts, but for a property the first: it is written once.
    """
    tags: Dict[str, Any] = {}
    properties: Dict[str, Any] = {}
    told: Dict[str, Any] = {"tags": tags, "properties": properties}
    for line in record.attributes():
        what, key, value = line.get("set"), str(line.get("key")), line.get("value")
        if what == "tag":
            tags[key] = value
        elif what == "remove_tag":
            tags.pop(key, None)
        elif what == "property":
            properties.setdefault(key, value)
        elif what in ("display_name", "description"):
            told[what] = value
    return told


def error_of(record: RunRecord) -> Optional[Dict[str, Any]]:
    """The first cause; for a run whose supervisor died, a cause made of that."""
    error = record.error()
    if error is None and record.state is RunState.NOT_RESPONDING:
        return {
            "kind": "HostError",
            "cause": f"nobody looks after run {record.id} any more: its supervisor is gone",
            "evidence": tail(record.file(wire.SUPERVISOR_LOG), 5),
            "remedy": f"`simgrid-ml runs cancel {record.id}` ends it; `simgrid-ml clean` removes "
            "what it left",
            "exit_code": 5,
        }
    return error


def tail(path: str, lines: int = 20, width: int = 500) -> str:
    """The last lines of a log, whatever its size and encoding, each cut at ``width`` characters;
    empty if there is none.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 64 * 1024))
            last = stream.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "\n".join(line[:width] for line in last)
