"""What the containers of a run are made from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NodeImage"]


@dataclass(frozen=True)
class NodeImage:
    """An image, and what of the host its containers see.

    Attributes:
        name: what containers are created from.
        digest: the engine's id of it.
        kind: ``host`` (nothing but the host's own programs), ``named`` or ``built``.
        python: the command that runs an agent in it.
        binds: (path on the host, path in the node, read-only).
        substituted_for: the image that was asked for, if this is another one.
        notes: what a user should know, one sentence each.
    """

    name: str
    digest: str
    kind: str
    python: tuple[str, ...]
    binds: tuple[tuple[str, str, bool], ...] = ()
    substituted_for: str | None = None
    notes: tuple[str, ...] = ()
