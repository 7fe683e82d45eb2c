"""What links come to: topology, what is between two nodes, and rates that follow from others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from links_strategies import NODES, some_links

from simgrid_ml.errors import PlacementError, SpecError
from simgrid_ml.spec.links import (
    Link,
    Links,
    Pair,
    Rack,
    between,
    cables,
    check_names,
    describe,
    links_for,
    resolved,
    targets,
)
from simgrid_ml.spec.value import from_plain, to_plain

GBIT = 125e6


def test_delays_of_both_links_add_up_and_the_lowest_rate_decides() -> None:
    fast, slow = Link(rate_bytes_per_s=GBIT, delay_s=0.002), Link(rate_bytes_per_s=GBIT / 10)
    links = Links(default=fast, nodes={"node1": slow})
    assert between(links, "node0", "node1") == Link(rate_bytes_per_s=GBIT / 10, delay_s=0.002)
    assert between(links, "node0", "node2") == Link(rate_bytes_per_s=GBIT, delay_s=0.004)


def test_what_two_links_lose_is_less_than_the_sum() -> None:
    assert between(Links(default=Link(loss=0.5)), "node0", "node1").loss == 0.75


def test_traffic_between_racks_crosses_both_uplinks_and_within_one_neither() -> None:
    racks = tuple(
        Rack(name=name, nodes=nodes)
        for name, nodes in {"left": ("node0", "node1"), "right": ("node2",)}.items()
    )
    links = Links(racks=racks)
    assert [c.name for c in cables(links, "node0", "node2")] == [
        "node0 up",
        "left up",
        "right down",
        "node2 down",
    ]
    assert [c.name for c in cables(links, "node0", "node1")] == ["node0 up", "node1 down"]
    assert [c.name for c in cables(links, "node3", "node1")] == [
        "node3 up",
        "left down",
        "node1 down",
    ]


def test_a_pair_is_a_further_constraint_in_both_directions() -> None:
    links = Links(pairs=(Pair(a="node1", b="node0", link=Link(delay_s=0.01)),))
    assert [c.name for c in cables(links, "node0", "node1")][1] == "node1-node0 down"
    assert between(links, "node1", "node0").delay_s == between(links, "node0", "node1").delay_s
    assert between(links, "node0", "node2").delay_s == 0


def test_oversubscription_divides_the_sum_of_the_nodes_rates() -> None:
    rack = Rack(name="left", nodes=("node0", "node1", "node2"), oversubscription=4)
    links = Links(default=Link(rate_bytes_per_s=8.0), racks=(rack,))
    (found,) = resolved(links, ("node0", "node3"), None).racks
    assert found.uplink.rate_bytes_per_s == 6.0  # also of nodes that this run does not have
    assert found.nodes == ("node0",)


def test_oversubscription_of_nodes_without_a_rate_is_refused() -> None:
    rack = Rack(name="left", nodes=("node0", "node1"), oversubscription=4)
    with pytest.raises(PlacementError, match=r"rack left .* 4 to 1, and the link of its node0"):
        resolved(Links(racks=(rack,)), ("node0", "node1"), None)


def test_a_network_cards_rate_is_that_of_the_vm_size_or_an_error() -> None:
    links = Links(default=Link(nic=True, delay_s=0.001))
    assert resolved(links, ("node0",), 7.0).of("node0") == Link(rate_bytes_per_s=7.0, delay_s=0.001)
    with pytest.raises(PlacementError, match="none is published for that size") as raised:
        resolved(links, ("node0",), None)
    assert "rate: 1Gbit" in raised.value.remedy


def test_only_a_backend_that_shapes_network_cards_does_it_unasked() -> None:
    assert links_for(None, 7.0, shapes_nic=False) is None
    assert links_for(None, None, shapes_nic=True) is None
    assert links_for(None, 7.0, shapes_nic=True) == Links(default=Link(nic=True))
    asked = Links(default=Link(delay_s=1.0))
    assert links_for(asked, 7.0, shapes_nic=True) is asked


def test_names_of_nodes_that_the_cluster_never_has_are_refused() -> None:
    link = Link()
    for links in (
        Links(nodes={"node4": link}),
        Links(pairs=(Pair(a="node0", b="node4", link=link),)),
        Links(racks=(Rack(name="left", nodes=("node4",)),)),
    ):
        check_names(links, 5)
        with pytest.raises(SpecError, match="no 'node4'; the cluster has node0 to node3"):
            check_names(links, 4)


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({"default": {"loss": 1}}, "loss"),
        ({"default": {"loss": -0.1}}, "loss"),
        ({"default": {"delay_s": -1}}, "delay_s"),
        ({"default": {"rate_bytes_per_s": 0}}, "rate_bytes_per_s"),
        ({"default": {"rate_bytes_per_s": float("inf")}}, "finite"),
        ({"default": {"delay_s": 0.001, "jitter_s": 0.002}}, "a jitter of 2 ms exceeds"),
        ({"default": {"rate_bytes_per_s": 1, "nic": True}}, "either given, or that of"),
        ({"racks": [{"name": "a", "nodes": []}]}, "has no nodes"),
        ({"racks": [{"name": "node1", "nodes": ["node0"]}]}, "cannot name a rack"),
        ({"racks": [{"name": "a", "nodes": ["node0", "node0"]}]}, "names a node twice"),
        (
            {"racks": [{"name": "a", "nodes": ["node0"]}, {"name": "b", "nodes": ["node0"]}]},
            "node0 is in more than one rack",
        ),
        (
            {"racks": [{"name": "a", "nodes": ["node0"]}, {"name": "a", "nodes": ["node1"]}]},
            "the same name",
        ),
        (
            {
                "racks": [
                    {
                        "name": "a",
                        "nodes": ["node0"],
                        "uplink": {"rate_bytes_per_s": 1},
                        "oversubscription": 2,
                    }
                ]
            },
            "both the rate of its uplink and its oversubscription",
        ),
        ({"pairs": [{"a": "node0", "b": "node0", "link": {}}]}, "not node0 twice"),
        (
            {
                "pairs": [
                    {"a": "node0", "b": "node1", "link": {}},
                    {"a": "node1", "b": "node0", "link": {}},
                ]
            },
            "there twice",
        ),
        ({"method": "tc"}, "method"),
    ],
)
def test_impossible_links_cannot_be_written(plain: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        from_plain(plain, Links, "links")


@pytest.mark.parametrize(
    ("plain", "where", "fields"),
    [
        ({"pairs": [{"a": "node0", "x": 1}]}, r"links.pairs\[0\]", "a, b, link"),
        ({"nodes": {"node0": {"x": 1}}}, r"links.nodes\[...\]", "rate_bytes_per_s, nic"),
        (
            {"racks": [{"name": "a", "nodes": [], "uplink": {"x": 1}}]},
            r"links.racks\[0\].uplink",
            "rate_bytes_per_s, nic",
        ),
    ],
)
def test_an_unknown_field_inside_a_list_is_answered_with_those_there_are(
    plain: dict[str, object], where: str, fields: str
) -> None:
    with pytest.raises(SpecError, match=where) as found:
        from_plain(plain, Links, "links")
    assert found.value.remedy.startswith(f"the fields there are {fields}")


@given(some_links())
def test_there_and_back_are_alike(links: Links) -> None:
    for a in NODES:
        for b in NODES:
            if a != b:
                there, back = between(links, a, b), between(links, b, a)
                assert there.rate_bytes_per_s == back.rate_bytes_per_s
                assert there.delay_s == pytest.approx(back.delay_s)
                assert there.loss == pytest.approx(back.loss)


@given(some_links())
def test_links_are_stored_and_read_again_as_they_are(links: Links) -> None:
    assert from_plain(to_plain(links), Links, "links") == links


@given(some_links(), st.integers(1, 5))
def test_resolving_changes_nothing_between_the_nodes_of_a_run(links: Links, count: int) -> None:
    nodes = NODES[:count]
    run = resolved(links, nodes, None)
    assert set(targets(run, nodes)) >= set(nodes)
    for a in nodes:
        for b in nodes:
            if a != b:
                assert between(run, a, b) == between(links, a, b)


def test_a_link_is_described_in_the_words_it_was_asked_for() -> None:
    assert describe(Link()) == "unlimited"
    link = Link(rate_bytes_per_s=GBIT / 10, delay_s=0.002, jitter_s=0.0001, loss=0.001)
    assert describe(link) == "100 Mbit/s, 2 ms ± 100 us, loses 0.1 %"
