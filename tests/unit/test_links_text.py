"""How people write links: run files, options of the command line, tags of a cluster."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from simgrid_ml.errors import SpecError
from simgrid_ml.spec.links import Link, Links, Pair, Rack
from simgrid_ml.spec.links_text import parse_link, parse_links, with_default

GBIT = 125e6

EVERYTHING = """
rate: 1Gbit
delay: 2ms
jitter: 1ms
loss: 0.1%
nodes: {node1: {rate: 100 Mbit/s}, node2: {rate: unlimited, loss: 0}}
pairs: [{a: node0, b: node1, delay: 5ms}]
racks:
  - {name: left, nodes: [node0, node1], uplink: {rate: nic}}
  - {name: right, nodes: [node2], oversubscription: 4}
method: relay
"""


def parse(text: str) -> Links:
    return parse_links(yaml.safe_load(text), "cluster.links")


def test_a_run_file_says_everything_in_words() -> None:
    default = Link(rate_bytes_per_s=GBIT, delay_s=0.002, jitter_s=0.001, loss=0.001)
    assert parse(EVERYTHING) == Links(
        default=default,
        nodes={
            "node1": Link(rate_bytes_per_s=GBIT / 10, delay_s=0.002, jitter_s=0.001, loss=0.001),
            "node2": Link(delay_s=0.002, jitter_s=0.001),
        },
        pairs=(Pair(a="node0", b="node1", link=Link(delay_s=0.005)),),
        racks=(
            Rack(name="left", nodes=("node0", "node1"), uplink=Link(nic=True)),
            Rack(name="right", nodes=("node2",), oversubscription=4),
        ),
        method="relay",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rat: 1Gbit", "cluster.links: 'rat' is unknown"),
        ("rate: 1", "'1' is not a rate"),
        ("rate: 1 GB", "'1 GB' is not a rate"),
        ("rate: 0Mbit", "carries nothing"),
        ("rate: -1Mbit", "-1Mbit is negative"),
        ("rate: [1]", "neither a text nor a number"),
        ("rate: true", "neither a text nor a number"),
        ("delay: -2ms", "cluster.links.delay: -2ms is negative"),
        ("delay: 2 parsec", "is not a duration"),
        ("loss: 100%", "leaves nothing that arrives"),
        ("loss: 2", "leaves nothing that arrives"),
        ("{delay: 1ms, jitter: 2ms}", "a jitter of 2 ms exceeds the delay of 1 ms"),
        ("nodes: {node1: {rat: 3}}", "cluster.links.nodes.node1: 'rat' is unknown"),
        ("nodes: {1: {}}", "no mapping of words"),
        ("nodes: [node1]", "no mapping of words"),
        ("racks: {left: [node0]}", "cluster.links.racks: no list"),
        ("racks: [{name: a, node: [node0]}]", r"racks\[0\]: 'node' is unknown"),
        ("racks: [{nodes: [node0]}]", r"racks\[0\]: .*missing required field `name`"),
        ("pairs: [{a: node0}]", r"pairs\[0\]: .*missing required field `b`"),
        ("pairs: [{a: node0, b: node1, with: 3}]", r"pairs\[0\]: 'with' is unknown"),
        ("method: netem", "cluster.links.method"),
        ("1Gbit", "no mapping of words"),
    ],
)
def test_what_is_no_link_is_refused_with_its_place_and_a_remedy(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said) as raised:
        parse(text)
    assert raised.value.remedy


def test_words_of_the_command_line_change_what_they_name_alone() -> None:
    none: dict[str, Any] = {"rate": None, "delay": None}
    stored = Links(default=Link(delay_s=0.002), nodes={"node1": Link()})
    assert with_default(None, none, "links") is None
    assert with_default(stored, none, "links") is stored
    changed = with_default(stored, {**none, "rate": "1Gbit"}, "links")
    assert changed == Links(
        default=Link(rate_bytes_per_s=GBIT, delay_s=0.002), nodes={"node1": Link()}
    )


def test_a_rate_takes_the_place_of_the_network_cards_and_the_other_way_round() -> None:
    nic = parse_link({"rate": "nic"}, "link")
    assert nic.nic and nic.rate_bytes_per_s is None
    figures = parse_link({"rate": "1Gbit"}, "link", base=nic)
    assert figures == Link(rate_bytes_per_s=GBIT)
    assert parse_link({"rate": "NIC"}, "link", base=figures) == nic
    assert parse_link({"rate": "unlimited"}, "link", base=figures) == Link()
