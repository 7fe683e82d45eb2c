"""The base of all specs: frozen, keyword-only, unknown keys refused, plain data in and out."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from simgrid_ml.errors import SpecError

__all__ = ["Value", "from_plain", "to_plain"]


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen value. ``check_`` methods of subclasses run in the constructor and on decoding."""


T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """The value as dicts, lists, strings and numbers, ready for JSON or YAML."""
    return msgspec.to_builtins(value)


def from_plain(plain: Any, kind: type[T], what: str) -> T:
    """The value of type ``kind`` that ``plain`` describes.

    Args:
        plain: dicts, lists, strings and numbers, as JSON or YAML give them.
        kind: a ``Value`` class.
        what: how to call the document in an error, ``"job"``.

    Raises:
        SpecError: a key is unknown or missing, or a value is out of range; it names the place.
    """
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        where = what + path.rstrip("`")
        raise SpecError(
            f"{where}: {message}",
            remedy="compare with `simgrid-ml run --help` and the README",
            where=where,
        ) from error
