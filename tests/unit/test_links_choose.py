"""Which way a wish for links is honoured, or why it cannot be."""

from __future__ import annotations

import pytest

from simgrid_ml.errors import PlacementError
from simgrid_ml.network import relay
from simgrid_ml.network.choose import (
    HTB_CEILING_BYTES_PER_S,
    Abilities,
    Choice,
    check_rate,
    choose,
)
from simgrid_ml.spec.links import Link, Links, Pair, Rack

GBIT = 125e6
NODES = ("node0", "node1")
PROCESSES = Abilities(no_htb="that needs nodes whose network is made from outside")
CONTAINERS = Abilities()
NOTHING = Abilities(no_networks="this user may not open /dev/net/tun", no_htb="only root may")


@pytest.fixture(autouse=True)
def ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was verified may change; what follows from it does not."""
    monkeypatch.setattr(relay, "ceiling_bits_per_s", {"c": 5e9, "python": 1e9}.__getitem__)


def rate(gbit: float) -> Links:
    return Links(default=Link(rate_bytes_per_s=gbit * GBIT))


def chosen(links: Links | None, host: Abilities) -> Choice:
    choice, note = choose(links, NODES, None, host)
    assert choice is not None and note == ""
    return choice


def refused(links: Links, host: Abilities) -> PlacementError:
    with pytest.raises(PlacementError) as raised:
        choose(links, NODES, None, host)
    assert raised.value.remedy
    return raised.value


def test_the_relay_does_what_it_was_verified_for() -> None:
    everything = Links(
        default=Link(rate_bytes_per_s=5 * GBIT, delay_s=0.002, jitter_s=0.001, loss=0.01),
        pairs=(Pair(a="node0", b="node1", link=Link(delay_s=0.1)),),
        racks=(Rack(name="left", nodes=("node0",)),),
    )
    for host in (PROCESSES, CONTAINERS):
        choice = chosen(everything, host)
        assert (choice.method, choice.program) == ("relay", "c")
        assert choice.ceiling_bytes_per_s == 5 * GBIT
        assert choice.links.of("node1") == everything.default


def test_a_link_without_a_rate_is_the_relays() -> None:
    assert chosen(Links(), PROCESSES).method == "relay"


def test_the_kernel_shapes_bare_rates_that_the_relay_cannot_reach() -> None:
    assert chosen(rate(8), CONTAINERS).method == "htb"
    assert chosen(rate(2), CONTAINERS._replace(program="python")).method == "htb"
    assert chosen(rate(1), CONTAINERS._replace(no_networks="no TUN")).method == "htb"


def test_processes_get_no_rate_above_the_relays_ceiling() -> None:
    error = refused(rate(8), PROCESSES)
    assert "node0 is to have 8 Gbit/s, and the compiled relay was verified up to 5 Gbit/s" in (
        error.cause
    )
    assert "htb could not help: that needs nodes" in error.cause


def test_without_a_compiler_the_remedy_is_one() -> None:
    error = refused(rate(2), PROCESSES._replace(program="python"))
    assert "the relay in Python was verified up to 1 Gbit/s" in error.cause
    assert "install a C compiler" in error.remedy and "5 Gbit/s" in error.remedy


@pytest.mark.parametrize(
    ("link", "word"),
    [
        (Link(rate_bytes_per_s=8 * GBIT, delay_s=0.001), "delay"),
        (Link(rate_bytes_per_s=8 * GBIT, loss=0.1), "lose"),
    ],
)
def test_delays_and_losses_at_rates_beyond_the_relay_are_refused(link: Link, word: str) -> None:
    assert f"it cannot {word} packets" in refused(Links(default=link), CONTAINERS).cause


def test_racks_and_pairs_beyond_the_relay_are_refused() -> None:
    fast = Link(rate_bytes_per_s=8 * GBIT)
    racks = Links(default=fast, racks=(Rack(name="left", nodes=("node0",)),))
    pairs = Links(default=fast, pairs=(Pair(a="node0", b="node1", link=Link()),))
    assert "it knows no racks" in refused(racks, CONTAINERS).cause
    assert "it cannot tell pairs apart" in refused(pairs, CONTAINERS).cause


def test_rates_beyond_both_ways_are_refused() -> None:
    error = refused(rate(40), CONTAINERS)
    assert "40 Gbit/s, and htb was verified up to 10 Gbit/s only" in error.cause


def test_a_host_without_namespaces_or_tun_is_told_what_to_do() -> None:
    error = refused(Links(default=Link(delay_s=0.001)), NOTHING)
    assert "may not open /dev/net/tun" in error.cause
    assert "chmod 666 /dev/net/tun" in error.remedy


def test_a_method_that_is_named_is_that_or_an_error() -> None:
    def by(method: str, link: Link) -> Links:
        return Links(default=link, method=method)  # type: ignore[arg-type]

    assert chosen(by("htb", Link(rate_bytes_per_s=GBIT)), CONTAINERS).method == "htb"
    assert "by htb, and it cannot delay" in refused(by("htb", Link(delay_s=1)), CONTAINERS).cause
    assert "by htb, and that needs" in refused(by("htb", Link()), PROCESSES).cause
    assert "5 Gbit/s only" in refused(by("relay", rate(8).default), CONTAINERS).cause
    without = CONTAINERS._replace(no_networks="no TUN")
    assert "no TUN" in refused(by("relay", Link()), without).cause


def test_a_network_card_that_is_too_fast_is_no_wish_and_no_error() -> None:
    assert choose(None, NODES, 3 * GBIT, CONTAINERS) == (None, "")
    choice, note = choose(None, NODES, 3 * GBIT, CONTAINERS, shapes_nic=True)
    assert choice is not None and note == ""
    assert choice.links.of("node1") == Link(rate_bytes_per_s=3 * GBIT)
    choice, note = choose(None, NODES, 30 * GBIT, CONTAINERS, shapes_nic=True)
    assert choice is None
    assert note.startswith("the network is as fast as this host's: ") and "30 Gbit/s" in note


def test_a_live_link_keeps_to_the_way_that_was_chosen() -> None:
    relayed, htb = chosen(rate(1), PROCESSES), chosen(rate(8), CONTAINERS)
    check_rate(relayed, "node0", Link(rate_bytes_per_s=5 * GBIT, delay_s=1))
    check_rate(htb, "node0", Link(rate_bytes_per_s=HTB_CEILING_BYTES_PER_S))
    check_rate(htb, "node0", Link())
    with pytest.raises(PlacementError, match="5 Gbit/s only"):
        check_rate(relayed, "node0", Link(rate_bytes_per_s=6 * GBIT))
    with pytest.raises(PlacementError, match="does rates alone"):
        check_rate(htb, "node0", Link(delay_s=0.001))
