"""The names that NumPy has removed since 2019 and that scripts of then still use."""

from __future__ import annotations

__all__ = ["apply"]

_BUILTINS = {
    "bool": bool,
    "complex": complex,
    "float": float,
    "int": int,
    "long": int,
    "object": object,
    "str": str,
    "unicode": str,
}
"""Removed in 1.24 and before; 2.0 has other types as ``bool`` and ``long``, which stay."""

_RENAMED = {
    "Inf": "inf",
    "NaN": "nan",
    "alltrue": "all",
    "bool8": "bool_",
    "complex_": "complex128",
    "cumproduct": "cumprod",
    "float_": "float64",
    "infty": "inf",
    "product": "prod",
    "rank": "ndim",
    "round_": "round",
    "row_stack": "vstack",
    "sometrue": "any",
    "string_": "bytes_",
    "typeDict": "sctypeDict",
    "unicode_": "str_",
}


def apply(numpy):
    """Add to the module ``numpy`` what it lacks; what it has stays."""
    have = vars(numpy)  # looking by getattr warns
    for name, value in _BUILTINS.items():
        have.setdefault(name, value)
    for name, today in _RENAMED.items():
        if today in have:
            have.setdefault(name, have[today])
    have.setdefault("asscalar", lambda a: a.item())
