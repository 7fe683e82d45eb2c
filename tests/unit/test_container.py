"""What the engine is asked for: limits, labels, and nothing that user code could abuse."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from simgrid_ml.backends.base import NodesRequest
from simgrid_ml.backends.container import LABELS, container_body, container_name
from simgrid_ml.backends.image import NodeImage
from simgrid_ml.node.config import Config
from simgrid_ml.spec.capacity import Capacity

REQUEST = NodesRequest(
    run_id="r_1",
    run_dir="/runs/r_1",
    nodes=("node0", "node1"),
    socket="/runs/r_1/control.sock",
    capacity=Capacity(0.5, 0.25, 2**30, 2**26),
)
IMAGE = NodeImage(
    "an/image:1", "sha256:1", "host", ("/usr/bin/python3", "-I"), (("/a", "/b", True),)
)


def body(request: NodesRequest = REQUEST, **config: Any) -> dict[str, Any]:
    said = Config(
        socket=request.socket,
        nodes=("node1",),
        contained=True,
        uid=1000,
        gid=1000,
        addresses={"node0": "10.0.0.1", "node1": "10.0.0.2"},
        **config,
    )
    return container_body(request, IMAGE, said, "n1")


def test_limits_are_those_of_the_capacity() -> None:
    host = body()["HostConfig"]
    assert host["CpuQuota"] / host["CpuPeriod"] == 0.25
    assert (host["Memory"], host["MemorySwap"], host["ShmSize"]) == (2**30, 2**30, 2**26)


def test_without_limits_the_node_sees_the_whole_host() -> None:
    unlimited = dataclasses.replace(REQUEST, capacity=Capacity(1.0, None, None, 2**26))
    host = body(unlimited)["HostConfig"]
    assert not {"CpuQuota", "CpuPeriod", "Memory", "MemorySwap", "NanoCpus"} & set(host)


def test_the_smallest_share_of_a_core_is_what_the_kernel_can_count() -> None:
    tiny = dataclasses.replace(REQUEST, capacity=Capacity(0.001, 0.001, None, 2**26))
    assert body(tiny)["HostConfig"]["CpuQuota"] == 1000


def test_nothing_is_privileged_and_the_root_is_read_only() -> None:
    host = body()["HostConfig"]
    assert "Privileged" not in host
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert "Devices" not in host


def test_what_an_image_brings_never_runs_with_the_rights_to_leave_a_network() -> None:
    host = body()["HostConfig"]
    assert (host["NetworkMode"], "MaskedPaths" in host) == ("none", False)
    assert set(host["CapAdd"]) == {"DAC_OVERRIDE", "SETGID", "SETUID", "SYS_PTRACE"}
    assert body()["Healthcheck"] == {"Test": ["NONE"]}
    shaped = body(relay="/runs/r_1/tmp/relay.sock")["HostConfig"]
    assert "SYS_ADMIN" not in shaped["CapAdd"]
    assert shaped["Sysctls"]["net.ipv4.tcp_congestion_control"] == "cubic"


def test_an_agent_that_leaves_the_hosts_network_may_and_does_not_show_it() -> None:
    host = body(unshare=True)["HostConfig"]
    assert host["NetworkMode"] == "host"
    assert {"SYS_ADMIN", "NET_ADMIN"} <= set(host["CapAdd"])
    assert {"/sys/class/net", "/sys/devices/virtual/net"} <= set(host["MaskedPaths"])


def test_only_a_node_with_shaped_links_gets_the_tun_device() -> None:
    devices = body(relay="/runs/r_1/tmp/relay.sock")["HostConfig"]["Devices"]
    assert [device["PathOnHost"] for device in devices] == ["/dev/net/tun"]


def test_labels_name_the_run_the_node_and_the_request() -> None:
    labels = body()["Labels"]
    assert labels == {
        LABELS.RUN: "r_1",
        LABELS.NODE: "node1",
        LABELS.DIRECTORY: "/runs/r_1",
        LABELS.REQUEST: "n1",
    }


def test_the_run_directory_has_the_same_path_and_tmp_is_the_nodes_own() -> None:
    mounts = {m["Target"]: (m["Source"], m["ReadOnly"]) for m in body()["HostConfig"]["Mounts"]}
    assert mounts["/runs/r_1"] == ("/runs/r_1", False)
    assert mounts["/tmp"] == ("/runs/r_1/tmp/node1", False)
    assert mounts["/b"] == ("/a", True)


def test_nodes_are_found_by_their_names() -> None:
    assert body()["Hostname"] == "node1"
    assert body()["HostConfig"]["ExtraHosts"] == ["node0:10.0.0.1", "node1:10.0.0.2"]


def test_the_agent_is_the_first_process_and_is_told_who_it_becomes() -> None:
    *python, _, told = body()["Entrypoint"]
    assert python == ["/usr/bin/python3", "-I"]
    config = json.loads(told)
    assert (config["nodes"], config["uid"], config["contained"]) == (["node1"], 1000, True)
    assert body()["HostConfig"]["Init"] is False


@pytest.mark.parametrize("run_dir", ["/runs/a b", "/runs/new\nline", "/runs/żółć", "/runs/_x"])
def test_any_run_directory_gives_a_name_that_engines_accept(run_dir: str) -> None:
    name = container_name(run_dir, "node0")
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def test_runs_of_one_id_in_two_workspaces_have_different_names() -> None:
    assert container_name("/a/r_1", "node0") != container_name("/b/r_1", "node0")
