"""The base of all specs: frozen, keyword-only, unknown keys refused, plain data in and out."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from simgrid_ml.errors import SpecError

__all__ = ["Value", "from_plain", "to_plain"]


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen value. ``__post_init__`` of a subclass checks it, also where it is decoded."""


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
        path = path.rstrip("`")
        where = what + path
        remedy = _remedy(message, plain, kind, path) or f"correct {where}"
        raise SpecError(
            f"{where}: {message}",
            remedy=remedy,
            where=where,
        ) from error


def _remedy(message: str, plain: Any, kind: Any, path: str) -> str:
    """What there is instead of an unknown field or value, or of an unknown or missing ``kind``."""
    if message.startswith("Invalid enum value"):
        path, _, field = path.rpartition(".")
        hint = get_type_hints(_chosen(*_kinds_at(plain, kind, path))).get(field)
        values = [one.value for part in (hint, *get_args(hint)) for one in _members(part)]
        return f"the values there are {', '.join(values)}" if values else ""
    if "unknown field" in message:
        chosen = _chosen(*_kinds_at(plain, kind, path))
        tag = chosen.__struct_config__.tag_field
        return f"the fields there are {', '.join([tag] * bool(tag) + [*chosen.__struct_fields__])}"
    if message.startswith("Invalid value") and path.endswith(".kind"):
        path = path.removesuffix(".kind")
    elif "missing required field `kind`" not in message:
        return ""
    kinds, _ = _kinds_at(plain, kind, path)
    return f"the kinds are {', '.join(sorted(one.__struct_config__.tag for one in kinds))}"


def _kinds_at(plain: Any, kind: Any, path: str) -> tuple[list[Any], Any]:
    """What the value at ``path``, such as ``.links.pairs[0]``, may be, and what is said of it."""
    kinds = [kind]
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        if name:
            kinds = _values_in(get_type_hints(_chosen(kinds, plain))[name])
        plain = plain[name or int(index)]
    return kinds, plain


def _members(hint: Any) -> list[Enum]:
    return list(hint) if isinstance(hint, type) and issubclass(hint, Enum) else []


def _values_in(hint: Any) -> list[Any]:
    """The kinds of values that a field may hold, itself or in a list."""
    if isinstance(hint, type) and issubclass(hint, Value):
        return [hint]
    return [kind for part in get_args(hint) for kind in _values_in(part)]


def _chosen(kinds: list[Any], plain: Any) -> Any:
    """Of several kinds the one that the value names."""
    if len(kinds) == 1:
        return kinds[0]
    return next(one for one in kinds if one.__struct_config__.tag == plain.get("kind"))
