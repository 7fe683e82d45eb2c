"""The network between the nodes of a cluster: rates, delays, losses; what is asked for."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from simgrid_ml.spec.value import Value

__all__ = ["Link", "Links"]


class Link(Value, frozen=True, kw_only=True):
    """One direction of one cable.

    Attributes:
        rate_bytes_per_s: of frames on the wire; None: not limited.
        delay_s: one way, from the end of sending to arrival.
        jitter_s: delays vary uniformly by at most so much, without reordering.
        loss: share of packets that are lost, in [0, 1).
    """

    rate_bytes_per_s: Annotated[float, Meta(gt=0)] | None = None
    delay_s: Annotated[float, Meta(ge=0)] = 0.0
    jitter_s: Annotated[float, Meta(ge=0)] = 0.0
    loss: Annotated[float, Meta(ge=0, lt=1)] = 0.0


class Links(Value, frozen=True, kw_only=True):
    """What connects the nodes."""

    default: Link = Link()
