"""Virtual nodes as containers of a Docker engine, one per node."""

from __future__ import annotations

__all__: list[str] = []
