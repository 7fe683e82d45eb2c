"""What the relay is told, for any topology."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from links_strategies import NODES, some_links

from simgrid_ml.network.plan import relay_plan
from simgrid_ml.spec.links import Link, Links, Rack, both_ways, targets


def addresses(count: int) -> dict[str, str]:
    return {node: f"10.0.0.{number + 1}" for number, node in enumerate(NODES[:count])}


@given(some_links(), st.integers(1, 5))
def test_every_pair_has_a_route_from_its_sender_to_its_receiver(links: Links, count: int) -> None:
    given_to = addresses(count)
    plan = relay_plan(links, given_to)
    assert plan.addresses == given_to
    assert set(plan.routes) == {(a, b) for a in given_to for b in given_to if a != b}
    for (a, b), route in plan.routes.items():
        assert route[0] == f"{a} up" and route[-1] == f"{b} down"
        assert set(route) <= set(plan.cables)
        assert len(set(route)) == len(route)


@given(some_links())
def test_there_and_back_cross_the_two_directions_of_the_same_links(links: Links) -> None:
    plan = relay_plan(links, addresses(5))
    for (a, b), route in plan.routes.items():
        there = sorted(tuple(name.split()) for name in route)
        back = sorted(tuple(name.split()) for name in plan.routes[b, a])
        other_way = {"up": "down", "down": "up"}
        assert there == sorted((target, other_way[way]) for target, way in back)


@given(some_links())
def test_each_link_is_a_cable_in_each_direction_and_there_is_no_other(links: Links) -> None:
    plan = relay_plan(links, addresses(5))
    wanted = {
        name: link for target, link in targets(links, NODES).items() for name in both_ways(target)
    }
    assert plan.cables == wanted


@given(some_links())
def test_no_cable_is_unreachable_but_uplinks_that_nobody_needs(links: Links) -> None:
    plan = relay_plan(links, addresses(5))
    crossed = {name for route in plan.routes.values() for name in route}
    racks = {name for rack in links.racks for name in both_ways(rack.name)}
    assert set(plan.cables) - crossed <= racks


def test_racks_cross_both_uplinks() -> None:
    racks = (Rack(name="left", nodes=("node0",)), Rack(name="right", nodes=("node1",)))
    plan = relay_plan(Links(racks=racks), addresses(2))
    assert plan.routes["node0", "node1"] == ("node0 up", "left up", "right down", "node1 down")


def test_a_node_that_is_alone_has_its_link_all_the_same() -> None:
    plan = relay_plan(Links(default=Link(delay_s=1.0)), addresses(1))
    assert plan.routes == {}
    assert plan.cables == {"node0 up": Link(delay_s=1.0), "node0 down": Link(delay_s=1.0)}
