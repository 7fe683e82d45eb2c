"""Links that are up: what nodes are started with, and changes; what ``doctor`` says of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.cli.doctor_links import links_checks
from simgrid_ml.errors import NotFoundError, PlacementError, SpecError
from simgrid_ml.network import choose as choosing
from simgrid_ml.network.choose import HTB_CEILING_BYTES_PER_S, Abilities, Choice
from simgrid_ml.network.wires import MTU, Wires, wires
from simgrid_ml.spec.links import Link, Links

GBIT = 125e6
NODES = ("node0", "node1")


class Rates:
    """A switch that only keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float | None]] = []

    async def set_rate(self, node: str, rate_bytes_per_s: float | None) -> None:
        self.told.append((node, rate_bytes_per_s))


def by_htb(folder: Path, links: Links) -> Any:
    choice = Choice("htb", "kernel", links, HTB_CEILING_BYTES_PER_S)
    log = str(folder / "log")
    return wires(choice, run_id="run_1", nodes=NODES, folder=str(folder), log=log)


def test_by_htb_nodes_with_a_rate_have_it_from_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        links = Links(nodes={"node0": Link(rate_bytes_per_s=GBIT), "node1": Link()})
        async with by_htb(tmp_path, links) as up:
            assert up.relay is None
            assert up.rates == {"node0": GBIT}
            assert set(up.addresses) == set(NODES)
            assert await up.counters() == {}

    asyncio.run(main())


def test_a_change_reaches_the_switch_and_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    async def main(up: Wires, switch: Rates) -> None:
        up.through(switch)
        assert await up.set("node0", {"rate": "2Gbit"}) == Link(rate_bytes_per_s=2 * GBIT)
        assert await up.set("node1", {"rate": "unlimited"}) == Link()
        for target, words, error in (
            ("node2", {"rate": "1Gbit"}, NotFoundError),
            ("node0", {"delay": "1ms"}, PlacementError),
            ("node0", {"rate": "900Gbit"}, PlacementError),
            ("node0", {"rate": "nic"}, SpecError),
            ("node0", {"speed": "1Gbit"}, SpecError),
        ):
            with pytest.raises(error):
                await up.set(target, words)
        assert switch.told == [("node0", 2 * GBIT), ("node1", None)]
        told = up.to_json()
        assert told["method"] == "htb" and told["mtu"] == MTU
        texts = {target: link["text"] for target, link in told["links"].items()}
        assert texts == {"node0": "2 Gbit/s", "node1": "unlimited"}

    async def entered() -> None:
        async with by_htb(tmp_path, Links(default=Link(rate_bytes_per_s=GBIT))) as up:
            await main(up, Rates())

    asyncio.run(entered())


@pytest.mark.parametrize(
    ("host", "answers", "said"),
    [
        (Abilities(), ["yes", "yes"], "verified up to 5 Gbit/s"),
        (Abilities(program="python"), ["limited", "yes"], "no C compiler"),
        (Abilities(no_networks="no TUN", no_htb="no root"), ["limited", "limited"], "none: no TUN"),
    ],
)
def test_doctor_says_how_links_would_be_made(
    monkeypatch: pytest.MonkeyPatch, host: Abilities, answers: list[str], said: str
) -> None:
    monkeypatch.setattr(choosing, "abilities", lambda _: host)
    monkeypatch.setattr(
        "simgrid_ml.network.relay.ceiling_bits_per_s", {"c": 5e9, "python": 1e9}.__getitem__
    )
    rows = list(links_checks())
    assert [answer for _, answer, _, _ in rows] == answers
    assert said in rows[0][2]
    assert all(bool(remedy) == (answer != "yes") for _, answer, _, remedy in rows)
