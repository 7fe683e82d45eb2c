"""Images that stand in for others, as the user said: ``simgrid-ml images map NAME LOCAL``.

For machines that cannot pull. One small file under the user's state home, not part of any
workspace, as the engine is not either.
"""

from __future__ import annotations

import os

from simgrid_ml.errors import NotFoundError, RecordError
from simgrid_ml.record.journal import read_json, write_json
from simgrid_ml.record.store import state_home

__all__ = ["local_name", "mapped", "put", "remove"]

_FILE = "images.json"


def mapped() -> dict[str, str]:
    """Wanted name to local name.

    Raises:
        RecordError: the file is not what ``put`` writes.
    """
    path = _path()
    try:
        content = read_json(path, {})
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise _unreadable(path, "not an object of names")
    return content


def local_name(name: str) -> str | None:
    """What stands in for ``name``; a name without a tag and its ``:latest`` are one.

    Raises:
        RecordError: see ``mapped``.
    """
    known = {_tagged(wanted): local for wanted, local in mapped().items()}
    return known.get(_tagged(name))


def put(name: str, local: str) -> None:
    _write({**mapped(), name: local})


def remove(name: str) -> None:
    """
    Raises:
        NotFoundError: nothing stands in for ``name``.
    """
    known = mapped()
    if name not in known:
        raise NotFoundError(
            f"no image stands in for {name!r}",
            remedy="`simgrid-ml images list` shows those that do",
        )
    _write({wanted: local for wanted, local in known.items() if wanted != name})


def _tagged(name: str) -> str:
    """
    >>> _tagged("registry:5000/lab/torch"), _tagged("torch:1.4")
    ('registry:5000/lab/torch:latest', 'torch:1.4')
    """
    last = name.rpartition("/")[2]
    return name if ":" in last or "@" in last else f"{name}:latest"


def _write(content: dict[str, str]) -> None:
    os.makedirs(state_home(), exist_ok=True)
    write_json(_path(), dict(sorted(content.items())))


def _path() -> str:
    return os.path.join(state_home(), _FILE)


def _unreadable(path: str, evidence: str) -> RecordError:
    return RecordError(
        "the file of images that stand in for others cannot be read",
        evidence=f"{path}: {evidence}",
        remedy="correct or remove it",
    )
