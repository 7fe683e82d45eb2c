"""What the Docker backend decides before it asks an engine for anything."""

from __future__ import annotations

import os

import pytest

from simgrid_ml.backends import docker
from simgrid_ml.backends.docker import DockerBackend
from simgrid_ml.backends.image_python import outermost
from simgrid_ml.errors import HostError
from simgrid_ml.network import choose
from simgrid_ml.network.choose import Abilities
from simgrid_ml.spec.capacity import Capacity


def test_a_user_who_can_neither_switch_nor_relay_is_told_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(docker, "can_switch", lambda: False)
    monkeypatch.setattr(
        choose, "abilities", lambda _: Abilities(no_networks="no tun here", no_htb="not root")
    )
    with pytest.raises(HostError) as caught:
        DockerBackend().choose_links(None, ("node0",), Capacity(1.0, None, None, 2**26))
    assert caught.value.cause == "containers cannot be connected by this user"
    assert "no tun here" in caught.value.evidence
    assert "chmod 666 /dev/net/tun" in caught.value.remedy


def test_what_is_mounted_are_the_outermost_folders_and_never_the_root() -> None:
    usr = [folder for folder in ("/usr", "/usr/bin") if os.path.exists(folder)]
    assert outermost(["/", "/none", *usr, "/usr/"]) == ["/usr"]
