"""What the containers of a run are made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from simgrid_ml.spec.job import ImageSpec

__all__ = ["NodeImage", "OffersImages"]


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
        mpirun: the image's own, if it has one.
        openmpi: version of the Open MPI that one is of; None: it is not, or does not say.
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
    openmpi: tuple[int, ...] | None = None

    def encode(self) -> str:
        """As text; equal values give equal texts."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def decode(cls, text: str) -> NodeImage:
        """The value whose ``encode`` gave ``text``."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(text).items()
        }
        fields["binds"] = tuple((str(a), str(b), bool(c)) for a, b, c in fields["binds"])
        return cls(**fields)


@runtime_checkable
class OffersImages(Protocol):
    """A backend whose nodes can be made from an image."""

    def fetch_image(
        self, wanted: ImageSpec, log: Callable[[str], None], check: Callable[[], None]
    ) -> None:
        """Have the image here; ``log`` gets each line of a pull, ``check`` ends it by raising.

        Raises:
            NodeError: there is no such image.
        """
        ...

    def image(
        self, wanted: ImageSpec, visible: Sequence[str], log: Callable[[str], None]
    ) -> NodeImage:
        """What nodes that read the folders ``visible`` are made from; fetched if need be.

        Raises:
            NodeError: there is no such image, or nodes cannot run in it.
        """
        ...
