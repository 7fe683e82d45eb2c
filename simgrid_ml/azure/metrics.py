"""What may be logged, how a value is written down, and what ``get_metrics`` makes of the lines.

Pure but for ``MetricLog.append``. One line is one ``write``: a point that ``Run.log`` returned
from survives SIGKILL.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from types import GeneratorType
from typing import Any

from simgrid_ml.azure.errors import UserErrorException
from simgrid_ml.record.journal import Journal

__all__ = ["MetricLog", "merged", "plain_scalar"]

_TABLES = ("row", "table")


class MetricLog:
    """Writes one writer's values; knows what Azure ML refuses."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._heads: dict[str, str] = {}  # what stands before the value, per name

    def scalar(self, name: str, value: Any, step: int | None = None) -> None:
        kind = type(value)
        if kind is float:
            text = float.__repr__(value) if math.isfinite(value) else json.dumps(value)
        elif kind is int:
            text = int.__repr__(value)
        else:
            if isinstance(value, (list, range, GeneratorType)):
                raise UserErrorException(
                    f"{kind.__name__} cannot be logged as the scalar {name!r}; use log_list"
                )
            text = json.dumps(plain_scalar(value))
        head = self._heads.get(name)
        if head is None:
            head = self._heads[name] = f',"name":{json.dumps(str(name))},"kind":"scalar","value":'
        tail = "}\n" if step is None else f',"step":{json.dumps(plain_scalar(step))}}}\n'
        self._journal.append_line(f'{{"t":{time.time():.6f}{head}{text}{tail}'.encode("ascii"))

    def sequence(self, name: str, value: Any) -> None:
        if not isinstance(value, (list, tuple, range)) and not _is_numpy(value):
            raise UserErrorException(f"log_list wants a list for {name!r}, not {_kind(value)}")
        self.append("list", name, [plain_scalar(item) for item in value])

    def row(self, name: str, columns: Mapping[str, Any]) -> None:
        for column, value in columns.items():
            if isinstance(value, list):
                raise UserErrorException(
                    f"log_row: the column {column!r} of {name!r} is a list; use log_table"
                )
        self.append("row", name, {key: plain_scalar(value) for key, value in columns.items()})

    def table(self, name: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise UserErrorException(
                f"log_table wants a dict of columns for {name!r}, not {_kind(value)}"
            )
        columns = {
            str(key): list(column) if _is_sequence(column) else [column]
            for key, column in value.items()
        }
        lengths = {key: len(column) for key, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise UserErrorException(f"log_table: columns of {name!r} differ in length: {lengths}")
        self.append(
            "table",
            name,
            {key: [plain_scalar(item) for item in column] for key, column in columns.items()},
        )

    def append(self, kind: str, name: str, value: Any) -> None:
        """Write a value of any kind down, without a look at it."""
        self._journal.append(
            {"t": time.time(), "name": str(name), "kind": kind, "value": value, "step": None}
        )

    def close(self) -> None:
        self._journal.close()


def plain_scalar(value: Any) -> Any:
    """What is stored of one value: numbers and text as they are, numpy's as Python's, else
    the ``repr``.

    >>> plain_scalar(1.5), plain_scalar(None), plain_scalar(complex(1, 2))
    (1.5, None, '(1+2j)')
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return float(value)  # numpy's float64 is a float
    if isinstance(value, int):
        return int(value)
    if _is_numpy(value) and getattr(value, "shape", None) == ():
        item = value.item()
        return item if isinstance(item, (bool, int, float, str)) else repr(value)
    return repr(value)


def merged(lines: Iterable[Mapping[str, Any]], name: str | None = None) -> dict[str, Any]:
    """The metrics of a run as ``Run.get_metrics`` gives them.

    One value is itself, more are a list; rows and tables are dicts of the same. What was first
    logged under a name decides which of the two it is.
    """
    found: dict[str, Any] = {}
    for line in lines:
        metric, value, kind = line.get("name"), line.get("value"), line.get("kind")
        if not isinstance(metric, str) or (name is not None and metric != name):
            continue
        if kind in _TABLES and isinstance(value, dict):
            table = found.setdefault(metric, {})
            if isinstance(table, dict):
                _extend(table, value)
            continue
        series = found.setdefault(metric, [])
        if isinstance(series, list):
            series.extend(value if kind == "list" and isinstance(value, list) else [value])
    return {
        metric: {column: _single(values) for column, values in value.items()}
        if isinstance(value, dict)
        else _single(value)
        for metric, value in found.items()
    }


def _extend(table: dict[str, list[Any]], columns: Mapping[str, Any]) -> None:
    """Add rows; a column that is missing on either side is filled with None."""
    height = max((len(column) for column in table.values()), default=0)
    added = {key: value if isinstance(value, list) else [value] for key, value in columns.items()}
    more = max((len(column) for column in added.values()), default=0)
    for column in [*table, *(key for key in added if key not in table)]:
        table.setdefault(column, [None] * height).extend(added.get(column, [None] * more))


def _single(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (
        _is_numpy(value) and getattr(value, "shape", ()) != ()
    )


def _is_numpy(value: Any) -> bool:
    """Whether it is numpy's, without importing numpy."""
    return type(value).__module__.partition(".")[0] == "numpy"


def _kind(value: Any) -> str:
    return type(value).__name__
