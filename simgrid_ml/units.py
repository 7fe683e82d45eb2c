"""Bytes, seconds and rates: text at the boundaries, base units inside.

>>> parse_bytes("56 GiB")
60129542144
>>> format_bytes(60129542144)
'56 GiB'
>>> parse_seconds("1.5 min")
90.0
>>> parse_rate("25 Gbit/s")
3125000000.0
>>> format_rate(3125000000.0)
'25 Gbit/s'
>>> parse_share("0.1%")
0.001
"""

from __future__ import annotations

import re
from typing import Mapping

from simgrid_ml.errors import SpecError

__all__ = [
    "format_bytes",
    "format_delay",
    "format_rate",
    "format_seconds",
    "parse_bytes",
    "parse_rate",
    "parse_seconds",
    "parse_share",
]

_BYTES = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_BYTES.update({"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12})
_BYTES.update({"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40})
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BITS = {"bit/s": 1.0, "kbit/s": 1e3, "mbit/s": 1e6, "gbit/s": 1e9}
_BITS.update({"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9})
_SHARES = {"": 1.0, "%": 0.01}
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z/%]*)\s*\Z", re.IGNORECASE)


def _parse(text: str, units: Mapping[str, float], what: str) -> float:
    match = _QUANTITY.match(text)
    unit = match.group(2).lower() if match else None
    if match is None or unit is None or unit not in units:
        known = ", ".join(sorted(u for u in units if u))
        raise SpecError(f"{text!r} is not {what}", remedy=f"write a number and one of: {known}")
    return float(match.group(1)) * units[unit]


def parse_bytes(text: str) -> int:
    """Bytes of ``"56 GiB"``, ``"2g"`` (Docker's form, powers of 1024) or ``"4 MB"`` (10**6)."""
    return round(_parse(text, _BYTES, "an amount of bytes"))


def parse_seconds(text: str) -> float:
    """Seconds of ``"90"``, ``"1.5 min"``, ``"30 ms"``."""
    return _parse(text, _SECONDS, "a duration")


def parse_rate(text: str) -> float:
    """Bytes per second of ``"25 Gbit/s"``."""
    return _parse(text, _BITS, "a rate") / 8


def parse_share(text: str) -> float:
    """Share of ``"0.1%"`` or ``"0.001"``; what range makes sense is the caller's to say."""
    return _parse(text, _SHARES, "a share")


def format_rate(bytes_per_s: float) -> str:
    """Text of a rate, in bits as networks have it.

    >>> format_rate(12_500_000), format_rate(1_250)
    ('100 Mbit/s', '10 kbit/s')
    """
    bits = bytes_per_s * 8
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits < 1000:
            return f"{bits:.4g} {unit}"
        bits /= 1000
    return f"{bits:.4g} Gbit/s"


def format_delay(time_s: float) -> str:
    """Text of the delay of a link, which may be far below a millisecond.

    >>> format_delay(0.00005), format_delay(0.0025), format_delay(1.5)
    ('50 us', '2.5 ms', '1.5 s')
    """
    if 0 < time_s < 1e-3:
        return f"{time_s * 1e6:.4g} us"
    return f"{time_s * 1e3:.4g} ms" if 0 < time_s < 1 else f"{time_s:.4g} s"


def format_bytes(size_bytes: float) -> str:
    """Shortest exact-enough text in binary units."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def format_seconds(time_s: float) -> str:
    """Human text of a duration.

    >>> format_seconds(0.0123), format_seconds(3.14159), format_seconds(135)
    ('12 ms', '3.1 s', '2 min 15 s')
    """
    if time_s < 1:
        return f"{time_s * 1e3:.0f} ms"
    if time_s < 60:
        return f"{time_s:.1f} s"
    minutes, seconds = divmod(round(time_s), 60)
    return f"{minutes} min {seconds} s"
