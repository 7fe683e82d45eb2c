"""What ``doctor`` says about links between nodes: which way they would be made, and how fast."""

from __future__ import annotations

from collections.abc import Iterator

from simgrid_ml.units import format_rate

__all__ = ["links_checks"]

_COMPILER = "apt-get install g++"
_TUN = (
    "`modprobe tun`, and as a user `chmod 666 /dev/net/tun`; in a container, --device /dev/net/tun"
)


def links_checks() -> Iterator[tuple[str, str, str, str]]:
    """(check, answer, found, remedy); runs that ask for no links need none of it."""
    from simgrid_ml.backends.process import wanted_isolation
    from simgrid_ml.network.choose import HTB_CEILING_BYTES_PER_S, abilities
    from simgrid_ml.network.relay import ceiling_bits_per_s

    host, containers = abilities(wanted_isolation()), abilities(None)
    if host.no_networks:
        yield "shaped links", "limited", f"none: {host.no_networks}", _TUN
    else:
        verified = format_rate(ceiling_bits_per_s(host.program) / 8)
        found = f"rate, delay, jitter and loss, rates verified up to {verified}"
        if host.program == "c":
            yield "shaped links", "yes", found, ""
        else:
            faster = format_rate(ceiling_bits_per_s("c") / 8)
            found += f"; no C compiler, with which it would be {faster}"
            yield "shaped links", "limited", found, _COMPILER
    if containers.no_htb:
        found = f"not in the kernel (htb): {containers.no_htb}"
        yield "faster links", "limited", found, "run as root, with iproute2 and the module sch_htb"
    else:
        verified = format_rate(HTB_CEILING_BYTES_PER_S)
        found = f"bare rates of containers, by the kernel (htb), verified up to {verified}"
        yield "faster links", "yes", found, ""
