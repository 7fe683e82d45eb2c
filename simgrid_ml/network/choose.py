"""Which way a wish for links is honoured, or why it cannot be: decided before anything starts.

Two ways are there. The *relay* (``relay.py``) does all that a link can be asked for, without any
rights, up to a rate that depends on whether its program could be compiled. *htb*, the kernel's
token bucket, does nothing but rates, needs root and nodes whose network is made from outside; it
is taken only where the relay is too slow, because its bucket lets what comes after a pause pass
unshaped. netem is not used: many kernels do not have it, and none was to be had to verify it.

``abilities`` asks the host, ``choose`` is pure.
"""

from __future__ import annotations

import functools
import operator
import os
import subprocess
import sys
from typing import NamedTuple

from simgrid_ml.errors import PlacementError
from simgrid_ml.native import PACKAGE
from simgrid_ml.network import relay
from simgrid_ml.network.switch import can_switch
from simgrid_ml.spec.links import Link, Links, links_for, resolved, targets
from simgrid_ml.units import format_rate

__all__ = ["HTB_CEILING_BYTES_PER_S", "Abilities", "Choice", "abilities", "check_rate", "choose"]

HTB_CEILING_BYTES_PER_S = 10e9 / 8
"""The highest rate that htb was seen to keep within 1 % on two cores."""

_TUN = "/dev/net/tun"
_TRY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from simgrid_ml.node import isolation
have, refused = isolation.enter(isolation.FULL)
if "mount" not in have:
    sys.exit("; ".join(refused))
isolation.unshare_network()
isolation.open_tun("eth0", "10.0.0.1", "255.255.255.0", relay=True)
child = os.fork()
if child:
    sys.exit(os.waitpid(child, 0)[1] and "no own mounts")
isolation.enter_mounts(2**20, "/etc/hosts", "/tmp")
"""
"""What an agent does that joins the relay."""

_COMPILER = "install a C compiler (`apt-get install g++`): the relay then reaches "


class Abilities(NamedTuple):
    """What a host can do for the nodes of one backend; an empty text means that it can.

    Attributes:
        program: of the relay, ``c`` or ``python``.
        no_networks: why nodes cannot have network namespaces with a TUN device of their own.
        no_htb: why the kernel cannot shape.
    """

    program: str = "c"
    no_networks: str = ""
    no_htb: str = ""


class Choice(NamedTuple):
    """How the links of a run are emulated.

    Attributes:
        method: ``relay`` or ``htb``.
        program: of the relay, ``c`` or ``python``; ``kernel`` for htb.
        links: what is emulated, every node by name and every rate in figures.
        ceiling_bytes_per_s: the highest rate that this way was verified for.
    """

    method: str
    program: str
    links: Links
    ceiling_bytes_per_s: float


def choose(
    asked: Links | None,
    nodes: tuple[str, ...],
    nic_bytes_per_s: float | None,
    host: Abilities,
    *,
    shapes_nic: bool = False,
) -> tuple[Choice | None, str]:
    """How the links are emulated, and a sentence on what is not.

    Args:
        asked: None: nothing in particular.
        nodes: of the run.
        nic_bytes_per_s: what the VM size says, scaled; None: nothing.
        host: what it can do.
        shapes_nic: the backend gives nodes the rate of their VM size unasked. That is no wish:
            where it cannot be had, the nodes go without, and the sentence says so.

    Returns:
        None: the nodes' network is left as fast as it is.

    Raises:
        PlacementError: the wish cannot be honoured.
    """
    links = links_for(asked, nic_bytes_per_s, shapes_nic=shapes_nic)
    if links is None:
        return None, ""
    try:
        return _choose(resolved(links, nodes, nic_bytes_per_s), host), ""
    except PlacementError as error:
        if asked is not None:
            raise
        return None, f"the network is as fast as this host's: {error.cause}"


def _choose(links: Links, host: Abilities) -> Choice:
    ceiling = relay.ceiling_bits_per_s(host.program) / 8
    by_relay = Choice("relay", host.program, links, ceiling)
    by_htb = Choice("htb", "kernel", links, HTB_CEILING_BYTES_PER_S)
    fastest = _fastest(links)
    why_not_htb = host.no_htb or _beyond_htb(links)
    if links.method == "htb":
        if why_not_htb:
            raise PlacementError(
                f"links are to be emulated by htb, and {why_not_htb}",
                remedy="use `method: auto`, which takes the relay",
            )
        _refuse_faster(by_htb, fastest, "")
        return by_htb
    fits = fastest is None or fastest[0] <= ceiling
    if fits and not host.no_networks:
        return by_relay
    if links.method == "auto" and not why_not_htb:
        _refuse_faster(by_htb, fastest, "")
        return by_htb
    if host.no_networks:
        raise PlacementError(
            f"links are asked for, and {host.no_networks}",
            remedy="unset SIMGRID_ML_ISOLATION if it is set; run as root, or allow user namespaces "
            "and open /dev/net/tun (`modprobe tun`; `chmod 666 /dev/net/tun`); `simgrid-ml doctor` "
            "checks both",
        )
    _refuse_faster(by_relay, fastest, f"; htb could not help: {why_not_htb}")
    return by_relay


def check_rate(choice: Choice, target: str, link: Link) -> None:
    """Whether a link of a live run can be changed so.

    Raises:
        PlacementError: not in the way that was chosen when the run began.
    """
    rate = link.rate_bytes_per_s
    _refuse_faster(choice, None if rate is None else (rate, target), "")
    if choice.method == "htb" and (link.delay_s or link.jitter_s or link.loss):
        raise PlacementError(
            f"{target} is shaped by htb, which does rates alone",
            remedy="`method: relay` in the links of the cluster, and a rate of at most "
            f"{format_rate(relay.ceiling_bits_per_s('c') / 8)}",
        )


def _fastest(links: Links) -> tuple[float, str] | None:
    """The highest rate and whose it is."""
    return max(
        (
            (link.rate_bytes_per_s, target)
            for target, link in targets(links, links.nodes).items()
            if link.rate_bytes_per_s is not None
        ),
        key=operator.itemgetter(0),
        default=None,
    )


def _refuse_faster(choice: Choice, fastest: tuple[float, str] | None, more: str) -> None:
    if fastest is None or fastest[0] <= choice.ceiling_bytes_per_s:
        return
    rate, target = fastest
    way = {"c": "the compiled relay", "python": "the relay in Python"}.get(choice.program, "htb")
    lower = f"ask for at most {format_rate(choice.ceiling_bytes_per_s)}, or for `unlimited`"
    compiled = _COMPILER + format_rate(relay.ceiling_bits_per_s("c") / 8)
    raise PlacementError(
        f"the link of {target} is to have {format_rate(rate)}, and {way} was verified up to "
        f"{format_rate(choice.ceiling_bytes_per_s)} only{more}",
        remedy=f"{lower}; or {compiled}" if choice.program == "python" else lower,
    )


def _beyond_htb(links: Links) -> str:
    if links.pairs:
        return "it cannot tell pairs apart"
    if links.racks:
        return "it knows no racks"
    for target, link in targets(links, links.nodes).items():
        for word, value in (("delay", link.delay_s), ("jitter", link.jitter_s)):
            if value:
                return f"it cannot {word} packets, as asked for {target}"
        if link.loss:
            return f"it cannot lose packets, as asked for {target}"
    return ""


# -- asking the host -----------------------------------------------------------------------


def abilities(wanted: tuple[str, ...] | None) -> Abilities:
    """What this host can do.

    Args:
        wanted: the isolation that process nodes are to have; None: they are containers.
    """
    program = relay.relay_program()[0]
    if wanted is not None:
        return Abilities(
            program,
            _no_networks(wanted),
            "that needs nodes whose network is made from outside, as of the backend docker",
        )
    no_tun = "" if os.path.exists(_TUN) else f"this host has no {_TUN}"
    return Abilities(program, no_tun, _no_htb())


@functools.cache
def _no_networks(wanted: tuple[str, ...]) -> str:
    if not os.path.exists(_TUN):
        return f"this host has no {_TUN}"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"this user may not open {_TUN}"
    if "mount" not in wanted:
        return "nodes are not to have namespaces here (SIMGRID_ML_ISOLATION)"
    packages = os.path.dirname(PACKAGE)
    argv = [sys.executable, "-I", "-S", "-c", _TRY, packages]
    said = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=30)
    if said.returncode == 0:
        return ""
    last = said.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return f"this host allows nodes no network of their own: {''.join(last)}"


@functools.cache
def _no_htb() -> str:
    """Try it in a network namespace that is gone at once."""
    if not can_switch():
        return "only root may shape in the kernel"
    argv = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "htb", "default", "1"]
    try:
        done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=30)
    except FileNotFoundError as error:
        return f"there is no program `{error.filename}` (package iproute2 or util-linux)"
    if done.returncode != 0:
        return "the kernel refuses htb: " + done.stderr.decode("utf-8", "replace").strip()
    return ""
