"""Ids the service would give out: derived from names, so the same wherever they are asked for."""

from __future__ import annotations

__all__ = ["guid"]


def guid(*names: str) -> str:
    """The id of what is named by workspace, experiment …

    >>> guid("local", "mnist") == guid("local", "mnist") != guid("local")
    True
    """
    import uuid  # few ranks ask for an id

    return str(uuid.uuid5(uuid.NAMESPACE_URL, "simgrid-ml/" + "/".join(names)))
