"""What the containers of a run are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
        path: the image's own PATH, where its own programs run the job; else "".
        variables: what else the image sets for everything that runs in it.
        mpirun: the image's own Open MPI, if it has one.
    """

    name: str
    digest: str
    kind: str
    python: tuple[str, ...]
    binds: tuple[tuple[str, str, bool], ...] = ()
    substituted_for: str | None = None
    notes: tuple[str, ...] = ()
    path: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    mpirun: str | None = None
