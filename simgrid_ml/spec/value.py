"""The base of all specs: frozen, keyword-only, unknown keys refused, plain data in and out."""

from __future__ import annotations

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
        known = _known_fields(plain, kind, path) if "unknown field" in message else ()
        raise SpecError(
            f"{where}: {message}",
            remedy=f"the fields there are {', '.join(known)}" if known else f"correct {where}",
            where=where,
        ) from error


def _known_fields(plain: Any, kind: Any, path: str) -> tuple[str, ...]:
    """The fields of the value at ``path``, such as ``.environment``, below one of type ``kind``."""
    for name in path.split(".")[1:]:
        hint, plain = get_type_hints(kind)[name], plain[name]
        kinds = [one for one in get_args(hint) or (hint,) if issubclass(one, Value)]
        tags = [one.__struct_config__.tag for one in kinds]
        kind = kinds[tags.index(plain.get("kind") if len(kinds) > 1 else tags[0])]
    tag_field = kind.__struct_config__.tag_field
    return (*([tag_field] if tag_field else []), *kind.__struct_fields__)
