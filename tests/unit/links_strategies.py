"""Any topology of five nodes, for tests that must hold for all."""

from __future__ import annotations

from hypothesis import strategies as st

from simgrid_ml.spec.links import Link, Links, Pair, Rack

__all__ = ["NODES", "some_links"]

NODES = tuple(f"node{number}" for number in range(5))
rates = st.one_of(st.none(), st.floats(1e3, 1e9))
some_link = st.builds(Link, rate_bytes_per_s=rates, delay_s=st.floats(0, 1), loss=st.floats(0, 0.5))


@st.composite
def some_links(draw: st.DrawFn) -> Links:
    """Any topology of five nodes."""
    of_rack = draw(st.lists(st.sampled_from(["", "left", "right"]), min_size=5, max_size=5))
    racks = tuple(
        Rack(name=name, nodes=nodes, uplink=draw(some_link))
        for name in ("left", "right")
        if (nodes := tuple(n for n, r in zip(NODES, of_rack, strict=True) if r == name))
    )
    ends = draw(st.sets(st.sampled_from([(a, b) for a in NODES for b in NODES if a < b])))
    return Links(
        default=draw(some_link),
        nodes=draw(st.dictionaries(st.sampled_from(NODES), some_link)),
        pairs=tuple(Pair(a=a, b=b, link=draw(some_link)) for a, b in sorted(ends)),
        racks=racks,
    )
