"""What all parts of a run configuration share: fixed attributes, a plain form, and kinship by name.

A misspelt attribute is refused, as the SDK does, since it would otherwise be ignored for ever.
Objects are recognised by the names of their classes and not by the classes, so that one of the
real SDK serves as well as one of ours.
"""

from __future__ import annotations

import copy
import json
from typing import Any

__all__ = ["Element", "camel", "is_a", "plain"]


class Element:
    """A mutable part of a run configuration whose set of attributes is closed by ``_close``."""

    _closed = False

    def _close(self) -> None:
        object.__setattr__(self, "_closed", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._closed and not hasattr(self, name):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def _plain(self) -> dict[str, Any]:
        """The public attributes under their names in the service's JSON."""
        return {
            camel(name): plain(value)
            for name, value in vars(self).items()
            if not name.startswith("_")
        }

    def __repr__(self) -> str:
        return json.dumps(self._plain(), indent=4, default=str)


def is_a(thing: object, *names: str) -> bool:
    """Whether a class called one of ``names`` is among the bases of ``thing``'s.

    >>> is_a(True, "int"), is_a("mpi", "MpiConfiguration")
    (True, False)
    """
    return any(kind.__name__ in names for kind in type(thing).__mro__)


def camel(name: str) -> str:
    """
    >>> camel("max_run_duration_seconds")
    'maxRunDurationSeconds'
    """
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)


def plain(value: Any) -> Any:
    """``value`` with every element in it replaced by a dict; what is not data stays as it is."""
    if isinstance(value, Element):
        return value._plain()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return copy.copy(value)
