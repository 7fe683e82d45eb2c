"""How people write links: ``rate: 1Gbit``, ``delay: 2ms``, ``loss: 0.1%``.

In run files::

    links:
      rate: 1Gbit              # each node's own link, in either direction
      delay: 2ms               # one way; two nodes are two links apart
      nodes: {node1: {loss: 1%}}
      pairs: [{a: node0, b: node1, delay: 5ms}]
      racks:
        - {name: left, nodes: [node0, node1], uplink: {rate: 1Gbit}}
        - {name: right, nodes: [node2, node3], oversubscription: 4}

What a node does not say of its link is as for all. ``rate: nic`` is the rate of the VM size's
network card, ``rate: unlimited`` none. Options of the command line and tags of a cluster use the
same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import structs

from simgrid_ml.errors import SpecError
from simgrid_ml.spec.links import Link, Links, Rack
from simgrid_ml.spec.value import from_plain, to_plain
from simgrid_ml.units import parse_rate, parse_seconds, parse_share

__all__ = ["LINK_WORDS", "parse_link", "parse_links", "with_default"]

LINK_WORDS = ("rate", "delay", "jitter", "loss")
_LINKS = ("nodes", "pairs", "racks", "method")
_NIC, _UNLIMITED = "nic", "unlimited"


def parse_links(plain: Any, where: str = "cluster.links") -> Links:
    """The links that a run file's ``links:`` describes.

    Raises:
        SpecError: it says something unknown or impossible; ``where`` points at it.
    """
    default = parse_link(plain, where, also=_LINKS)
    nodes = _mapping(plain.get("nodes") or {}, f"{where}.nodes")
    return from_plain(
        {
            "default": to_plain(default),
            "nodes": {
                name: to_plain(parse_link(link, f"{where}.nodes.{name}", base=default))
                for name, link in nodes.items()
            },
            "pairs": _each(plain, where, "pairs", _pair),
            "racks": _each(plain, where, "racks", _rack),
            **({"method": plain["method"]} if "method" in plain else {}),
        },
        Links,
        where,
    )


def with_default(links: Links | None, words: Mapping[str, Any], where: str) -> Links | None:
    """``links``, with these words said of every node that is not named in it.

    Raises:
        SpecError: as ``parse_link``.
    """
    if all(value is None for value in words.values()):
        return links
    links = links or Links()
    return structs.replace(links, default=parse_link(words, where, base=links.default))


def parse_link(
    plain: Any, where: str, *, base: Link | None = None, also: tuple[str, ...] = ()
) -> Link:
    """The link of ``{"rate": "1Gbit", "delay": "2ms", "jitter": "100us", "loss": "0.1%"}``.

    Args:
        plain: the words; a value of None counts as not said.
        where: for errors.
        base: what holds for words that are left out.
        also: further keys that are somebody else's.

    Raises:
        SpecError: a key is unknown, or a value is none.
    """
    given = {key: value for key, value in _mapping(plain, where).items() if value is not None}
    for key in given:
        if key not in LINK_WORDS and key not in also:
            known = ", ".join((*LINK_WORDS, *also))
            raise SpecError(
                f"{where}: {key!r} is unknown", remedy=f"the words are {known}", where=where
            )
    fields = to_plain(base or Link())
    if "rate" in given:
        fields.update(_rate(given["rate"], f"{where}.rate"))
    for key, field, parse in (
        ("delay", "delay_s", parse_seconds),
        ("jitter", "jitter_s", parse_seconds),
        ("loss", "loss", parse_share),
    ):
        if key in given:
            fields[field] = _quantity(given[key], f"{where}.{key}", parse)
    if not 0 <= fields["loss"] < 1:
        raise SpecError(
            f"{where}: a loss of {fields['loss']:g} leaves nothing that arrives",
            remedy="give the share of packets that are lost: `1%`, or 0.01",
            where=where,
        )
    return from_plain(fields, Link, where)


def _rate(value: Any, where: str) -> dict[str, Any]:
    word = str(value).strip().lower()
    if word == _NIC:
        return {"rate_bytes_per_s": None, "nic": True}
    if word == _UNLIMITED:
        return {"rate_bytes_per_s": None, "nic": False}
    rate = _quantity(value, where, parse_rate)
    if rate <= 0:
        raise SpecError(
            f"{where}: a link of rate {value} carries nothing",
            remedy="give a rate such as 100Mbit; to lose packets say `loss`",
            where=where,
        )
    return {"rate_bytes_per_s": rate, "nic": False}


def _quantity(value: Any, where: str, parse: Callable[[str], float]) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise SpecError(
            f"{where}: {value!r} is neither a text nor a number",
            remedy="such as 1Gbit, 2ms, 0.1%",
            where=where,
        )
    text = str(value).strip()
    if text.startswith("-"):
        raise SpecError(
            f"{where}: {text} is negative", remedy="such as 1Gbit, 2ms, 0.1%", where=where
        )
    try:
        return parse(text)
    except SpecError as error:
        raise SpecError(f"{where}: {error.cause}", remedy=error.remedy, where=where) from error


def _mapping(plain: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(plain, Mapping) or not all(isinstance(key, str) for key in plain):
        raise SpecError(
            f"{where}: {plain!r} is no mapping of words",
            remedy="such as {rate: 1Gbit, delay: 2ms}",
            where=where,
        )
    return plain


def _each(
    plain: Mapping[str, Any], where: str, key: str, read: Callable[[Mapping[str, Any], str], Any]
) -> list[Any]:
    listed = plain.get(key) or []
    if not isinstance(listed, list):
        raise SpecError(f"{where}.{key}: no list", remedy="begin each with `- `", where=where)
    return [
        read(_mapping(one, f"{where}.{key}[{number}]"), f"{where}.{key}[{number}]")
        for number, one in enumerate(listed)
    ]


def _pair(plain: Mapping[str, Any], where: str) -> dict[str, Any]:
    ends = {key: plain[key] for key in ("a", "b") if key in plain}
    return {**ends, "link": to_plain(parse_link(plain, where, also=("a", "b")))}


def _rack(plain: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = {key: value for key, value in plain.items() if value is not None}
    known = Rack.__struct_fields__
    for key in given:
        if key not in known:
            raise SpecError(
                f"{where}: {key!r} is unknown", remedy=f"a rack has {', '.join(known)}", where=where
            )
    if "uplink" in given:
        given["uplink"] = to_plain(parse_link(given["uplink"], f"{where}.uplink"))
    return given
