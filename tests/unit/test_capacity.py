"""What nodes have of a host: their VM size, or one share of it, never more than there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.errors import PlacementError, SpecError
from simgrid_ml.spec.capacity import (
    MIN_CPUS,
    MIN_MEMORY_BYTES,
    Capacity,
    size_nodes,
    usable_memory,
)
from simgrid_ml.spec.cluster import HOST_SIZE, ClusterSpec
from simgrid_ml.spec.placement import HostInventory
from simgrid_ml.spec.vm_sizes import VM_SIZES, vm_size

GIB = 2**30
SHM = 2 * GIB
BIG = HostInventory(64, 512 * GIB, enforces_sizes=True)
SMALL = HostInventory(2, 8 * GIB, enforces_sizes=True)

hosts = st.builds(
    HostInventory,
    cpus=st.integers(1, 256),
    memory_bytes=st.integers(GIB, 2**42),
    enforces_sizes=st.just(True),
)


def sized(
    size: str, nodes: int, host: HostInventory, scale: float | None = None, shm: int = SHM
) -> Capacity:
    cluster = ClusterSpec(name="c", vm_size=size, scale=scale, backend="docker")
    return size_nodes(cluster, nodes, host, shm)


def test_a_large_host_gives_the_size_as_it_is() -> None:
    given_out = sized("standard_d3_v2", 2, BIG)
    assert (given_out.scale, given_out.cpus, given_out.memory_bytes) == (1, 4, 14 * GIB)
    assert given_out.nic_bytes_per_s == 3e9 / 8
    assert given_out.shm_bytes == SHM
    assert given_out.describe() == "Standard_D3_v2: 4 cores, 14 GiB each"


def test_gpus_of_the_size_are_not_scaled() -> None:
    assert (sized("STANDARD_NC12", 1, BIG).gpus, sized("STANDARD_NC12", 1, SMALL).gpus) == (2, 2)


def test_a_small_host_scales_cores_memory_and_network_by_one_factor() -> None:
    given_out = sized("Standard_D2_v2", 2, HostInventory(1, 64 * GIB, enforces_sizes=True))
    assert given_out.scale == 1 / 4
    assert (given_out.cpus, given_out.memory_bytes) == (0.5, 7 * GIB // 4)
    assert given_out.nic_bytes_per_s == 1.5e9 / 8 / 4
    assert given_out.describe() == "Standard_D2_v2 scaled to 1/4: 0.5 cores, 1.75 GiB each"


def test_memory_decides_where_it_is_scarcer_than_cores() -> None:
    given_out = sized("Standard_D2_v2", 2, HostInventory(64, 8 * GIB, enforces_sizes=True))
    assert given_out.scale == 7 / 14
    assert (given_out.cpus, given_out.memory_bytes) == (1, 7 * GIB // 2)
    assert given_out.describe() == "Standard_D2_v2 scaled to 1/2: 1 core, 3.5 GiB each"


@given(st.sampled_from(sorted(VM_SIZES)), st.integers(1, 64), hosts)
def test_nodes_never_have_more_than_the_host_and_keep_their_proportions(
    name: str, nodes: int, host: HostInventory
) -> None:
    size = vm_size(name)
    try:
        given_out = sized(name, nodes, host)
    except PlacementError:
        return
    assert given_out.cpus is not None and given_out.memory_bytes is not None
    assert 0 < given_out.scale <= 1
    assert given_out.cpus * nodes <= host.cpus * (1 + 1e-9)
    assert given_out.memory_bytes * nodes <= usable_memory(host) < host.memory_bytes
    assert given_out.cpus == pytest.approx(size.vcpus * given_out.scale)
    assert given_out.memory_bytes == pytest.approx(size.memory_bytes * given_out.scale, abs=4096)
    assert given_out.cpus >= MIN_CPUS and given_out.memory_bytes > MIN_MEMORY_BYTES - 4096
    assert given_out.shm_bytes <= given_out.memory_bytes
    assert 1 <= given_out.cores(nodes, host) <= host.cpus
    assert Capacity.from_json(given_out.to_json()) == given_out


def test_shared_memory_is_at_most_the_memory_of_the_node() -> None:
    given_out = sized("Standard_D1_v2", 8, SMALL)
    assert given_out.memory_bytes is not None
    assert given_out.shm_bytes == given_out.memory_bytes < SHM
    assert sized("Standard_D1_v2", 8, SMALL, shm=2**26).shm_bytes == 2**26


def test_a_stated_scale_is_given_exactly() -> None:
    given_out = sized("Standard_D2_v2", 2, BIG, scale=0.3)
    assert (given_out.scale, given_out.cpus) == (0.3, 0.6)
    assert given_out.describe() == "Standard_D2_v2 scaled to 0.3: 0.6 cores, 2.1 GiB each"


def test_a_stated_scale_that_the_host_cannot_hold_is_refused_with_the_numbers() -> None:
    with pytest.raises(PlacementError) as caught:
        sized("Standard_D2_v2", 4, SMALL, scale=0.5)
    assert caught.value.cause == "4 nodes of Standard_D2_v2 at scale 0.5 need 4 cores and 14 GiB"
    assert caught.value.evidence == "this host has 2 cores and 7 GiB to give"
    assert "at most 0.25" in caught.value.remedy
    assert sized("Standard_D2_v2", 4, SMALL, scale=0.25).cpus == 0.5


def test_nodes_too_small_to_live_are_refused() -> None:
    with pytest.raises(PlacementError, match="64 nodes of Standard_D1_v2 do not fit") as caught:
        sized("Standard_D1_v2", 64, HostInventory(64, 2 * GIB, enforces_sizes=True))
    assert "a node needs 0.01 cores and 64 MiB" in caught.value.evidence
    with pytest.raises(PlacementError, match=r"would have 0\.006 cores"):
        sized("Standard_NC6", 1, BIG, scale=0.001)


def test_without_a_size_nodes_have_the_whole_host() -> None:
    given_out = sized(HOST_SIZE, 9, SMALL)
    assert (given_out.cpus, given_out.memory_bytes, given_out.scale) == (None, None, 1)
    assert given_out.cores(9, SMALL) == 2
    assert given_out.describe() == ""


def test_a_scale_of_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="no VM size") as caught:
        sized(HOST_SIZE, 1, SMALL, scale=0.5)
    assert caught.value.where == "cluster.scale"


def test_an_unknown_size_is_refused_whatever_the_backend() -> None:
    for host in (SMALL, HostInventory(2, 8 * GIB)):
        with pytest.raises(SpecError, match="Standard_NC7"):
            sized("Standard_NC7", 1, host)


def test_where_nodes_cannot_be_limited_it_is_said() -> None:
    given_out = sized("STANDARD_NC6", 100, HostInventory(2, 8 * GIB))
    assert (given_out.cpus, given_out.memory_bytes) == (None, None)
    assert given_out.describe() == "Standard_NC6 not enforced: process nodes share the whole host"


def test_a_scale_that_cannot_be_enforced_is_refused() -> None:
    with pytest.raises(PlacementError, match="gives every node the whole host"):
        sized("STANDARD_NC6", 1, HostInventory(2, 8 * GIB), scale=0.5)
