"""What is behind virtual GPUs: the best that the host has, never more than it has, and why."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.errors import PlacementError, SpecError
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.gpu_plan import plan_gpus
from simgrid_ml.spec.gpus import (
    CONTEXT_BYTES,
    RESERVE_BYTES,
    Backing,
    Frameworks,
    GpuPlan,
    GpuSharing,
    HostGpu,
    HostGpus,
    MigInstance,
    NcclChoice,
    gpu_model,
)
from simgrid_ml.spec.vm_sizes import VM_SIZES, vm_size

MIB, GIB = 2**20, 2**30
K80 = 11441 * MIB


def gpu(
    number: int, memory_bytes: int = 80 * GIB, mig: tuple[int, ...] = (), **other: Any
) -> HostGpu:
    """A GPU of the host; ``mig``: GiB of its instances."""
    instances = tuple(
        MigInstance(f"MIG-{number}-{n}", size * GIB, 14) for n, size in enumerate(mig)
    )
    given = {"sms": 108, "capability": (8, 0), "mig_enabled": bool(mig), **other}
    return HostGpu(f"GPU-{number}", "NVIDIA A100", memory_bytes, mig=instances, **given)


def gpus(count: int, memory_bytes: int = 80 * GIB, **other: Any) -> HostGpus:
    return HostGpus(tuple(gpu(n, memory_bytes) for n in range(count)), "580", "13.0", **other)


K80_BOX = HostGpus(
    tuple(gpu(n, K80, sms=13, capability=(3, 7)) for n in range(4)), "470.256.02", "11.4"
)
H200 = gpus(1, 143771 * MIB)
EIGHT = gpus(8)
MPS = {"mps_directory": "/mps"}


def plan(
    host: HostGpus,
    nodes: int = 2,
    size: str = "Standard_NC12",
    sharing: GpuSharing = GpuSharing.AUTO,
    nccl: NcclChoice = NcclChoice.AUTO,
    **other: Any,
) -> GpuPlan:
    cluster = ClusterSpec(name="c", vm_size=size, gpu_sharing=sharing, nccl=nccl)
    given = {"memory_bytes": 512 * GIB, **other}
    made = plan_gpus(cluster, [f"node{n}" for n in range(nodes)], host, **given)
    assert made is not None
    return made


def devices(made: GpuPlan) -> list[list[str | None]]:
    return [[share.device for share in node.shares] for node in made.nodes]


# -- the ladder ----------------------------------------------------------------------------


def test_enough_whole_gpus_are_given_whole_and_neighbours_stay_together() -> None:
    made = plan(EIGHT)
    assert made.backing is Backing.WHOLE
    assert devices(made) == [["GPU-0", "GPU-1"], ["GPU-2", "GPU-3"]]
    assert all(share.exclusive for node in made.nodes for share in node.shares)
    assert made.reason == "the host has 4 to give: nothing is better"


def test_a_larger_gpu_shows_what_the_vm_has_and_its_own_capability() -> None:
    share = plan(EIGHT).nodes[0].shares[0]
    assert (share.memory_bytes, share.capability, share.sms) == (K80, (8, 0), 108)
    assert share.process_bytes == K80 - CONTEXT_BYTES
    assert plan(EIGHT).advisory[1].startswith("memory: the device has more")


def test_a_gpu_of_the_vms_own_model_is_not_limited_and_said_to_be_old() -> None:
    made = plan(K80_BOX)
    share = made.nodes[1].shares[1]
    assert (made.backing, share.fraction, share.capability) == (Backing.WHOLE, 1.0, (3, 7))
    assert made.nodes[0].variables == {}
    assert "compute capability 3.7" in made.notes[0]


def test_instances_of_mig_come_after_whole_gpus_the_smallest_that_fit_and_spread() -> None:
    host = HostGpus((gpu(0, mig=(10, 20, 20, 20)), gpu(1, mig=(10, 40, 20))))
    made = plan(host, nodes=2)
    assert made.backing is Backing.MIG
    assert devices(made) == [["MIG-0-1", "MIG-1-2"], ["MIG-0-2", "MIG-1-1"]]
    assert [node.per_rank for node in made.nodes] == [True, True]
    assert made.reason == "no whole GPU: every GPU of the host is divided by MIG"


def test_a_divided_gpu_is_neither_given_whole_nor_sliced() -> None:
    host = HostGpus((gpu(0, mig=(10,)), gpu(1)))
    made = plan(host, nodes=1)
    assert made.backing is Backing.TIME_SLICED
    assert devices(made) == [["GPU-1", "GPU-1"]]
    assert "no whole GPU: 2 are needed and the host has 1" in made.reason
    assert "no MIG instance: 2 of 11.2 GiB are needed and there are 0" in made.reason


def test_mps_with_control_groups_comes_before_time_slices() -> None:
    made = plan(replace(H200, **MPS, mps_cgroups=True))
    assert made.backing is Backing.MPS_CGROUP
    assert {share.percent for node in made.nodes for share in node.shares} == {25}
    assert made.nodes[0].variables["CUDA_MPS_PIPE_DIRECTORY"] == "/mps"
    assert made.nodes[0].variables["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"


def test_mps_with_limits_per_process_is_for_those_who_ask() -> None:
    host = replace(H200, **MPS, why_no_cgroups="the driver is older than 615")
    unasked = plan(host)
    assert unasked.backing is Backing.TIME_SLICED
    assert "no MPS with limits per process: gpu_sharing=mps asks for it" in unasked.reason
    assert unasked.variables["CUDA_MPS_PIPE_DIRECTORY"] == "/nonexistent"
    asked = plan(host, sharing=GpuSharing.MPS, processes_per_node=4)
    assert asked.backing is Backing.MPS
    # The limit is of each process, and two share a virtual GPU.
    assert asked.nodes[0].variables["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=5720M"
    assert all(node.per_rank for node in asked.nodes)


def test_one_gpu_is_time_sliced_with_caps_and_says_why() -> None:
    made = plan(H200, frameworks=Frameworks((2, 13)))
    assert made.backing is Backing.TIME_SLICED
    assert made.reason == (
        "no whole GPU: 4 are needed and the host has 1; no MIG instance: there is none; "
        "no MPS with cgroup limits: no Multi-Process Service runs"
    )
    node = made.nodes[0]
    assert (devices(made)[0], node.per_rank) == (["GPU-0", "GPU-0"], True)
    fraction = (K80 - CONTEXT_BYTES) / (143771 * MIB)
    assert node.variables["PYTORCH_ALLOC_CONF"] == f"per_process_memory_fraction:{fraction:.4f}"
    assert node.variables["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert any(line.startswith("memory: frameworks limit") for line in made.advisory)


def test_a_torch_that_may_not_know_the_cap_is_not_told_it_by_variable() -> None:
    for known in (None, (2, 9, 1)):
        assert (
            "PYTORCH_ALLOC_CONF" not in plan(H200, frameworks=Frameworks(known)).nodes[0].variables
        )


def test_a_reserve_is_left_of_every_device() -> None:
    enough = 4 * K80 + RESERVE_BYTES
    assert plan(gpus(1, enough)).backing is Backing.TIME_SLICED
    assert plan(gpus(1, enough - 1)).backing is Backing.HOST_MEMORY


def test_what_does_not_fit_falls_to_host_memory_with_every_reason() -> None:
    made = plan(gpus(1, 16 * GIB))
    assert (made.backing, made.devices) == (Backing.HOST_MEMORY, ())
    assert made.reason.endswith(
        "no time-sliced GPU: 4 x 11.2 GiB are needed, and beside a reserve of 1 GiB there is "
        "room for 1"
    )
    assert made.nodes[0].shares[0].capability == (3, 7)


def test_processes_that_leave_each_other_no_room_do_not_get_slices() -> None:
    made = plan(H200, nodes=1, processes_per_node=32)
    assert made.backing is Backing.HOST_MEMORY
    assert "16 processes share a GPU of 11.2 GiB, and each needs 600 MiB" in made.reason


def test_a_host_without_gpus_uses_its_memory_and_says_if_it_has_less() -> None:
    made = plan(HostGpus(why_none="no NVIDIA driver"), memory_bytes=8 * GIB)
    assert (made.backing, made.reason) == (Backing.HOST_MEMORY, "no NVIDIA driver")
    assert made.variables == {}
    assert made.notes == (
        "the GPUs' 44.7 GiB are more than the host's 8 GiB: what scripts really put on them must "
        "fit into the host's memory",
    )
    assert plan(HostGpus(), memory_bytes=64 * GIB).notes == ()


def test_builds_for_the_cpu_get_host_memory_even_where_there_are_gpus() -> None:
    made = plan(EIGHT, frameworks=Frameworks.of({"torch": "2.13.0+cpu"}))
    assert (made.backing, made.reason) == (
        Backing.HOST_MEMORY,
        "torch 2.13.0+cpu is a build for the CPU",
    )


def test_more_processes_than_gpus_are_named() -> None:
    assert plan(HostGpus(), processes_per_node=3).notes == (
        "3 processes share 2 GPUs on a node: some have one in common, which NCCL refuses",
    )


# -- asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sharing", "host", "seen"),
    [
        (GpuSharing.EXCLUSIVE, H200, "no whole GPU: 4 are needed and the host has 1"),
        (GpuSharing.EXCLUSIVE, gpus(4, 8 * GIB), "4 are needed and 0 have 11.2 GiB of memory"),
        (GpuSharing.EXCLUSIVE, HostGpus(why_none="no driver"), "no driver"),
        (GpuSharing.MIG, EIGHT, "no MIG instance: there is none"),
        (GpuSharing.MIG, HostGpus((gpu(0, mig_enabled=True),)), "nobody has made an instance"),
        (GpuSharing.MPS, replace(EIGHT, why_no_mps="no daemon in /x"), "no daemon in /x"),
        (GpuSharing.MPS, replace(K80_BOX, **MPS), "compute capability 7.0"),
        (GpuSharing.TIME_SLICED, gpus(1, 16 * GIB), "room for 1"),
    ],
)
def test_what_is_asked_for_and_not_there_is_one_clear_error(
    sharing: GpuSharing, host: HostGpus, seen: str
) -> None:
    with pytest.raises(PlacementError) as caught:
        plan(host, sharing=sharing)
    error = caught.value
    assert error.cause == (
        f"gpu_sharing is {sharing.value}, but 4 GPUs of 11.2 GiB cannot be had that way"
    )
    assert seen in error.evidence
    assert all(one.uuid in error.evidence for one in host.gpus)
    assert error.remedy.endswith("gpu_sharing=auto takes what there is")
    assert (";" in error.remedy) == bool(host.gpus)  # what to do with a GPU helps nobody without


def test_builds_for_the_cpu_are_the_reason_why_what_is_asked_for_cannot_be() -> None:
    with pytest.raises(PlacementError) as caught:
        plan(EIGHT, sharing=GpuSharing.EXCLUSIVE, frameworks=Frameworks.of({"torch": "2.1+cpu"}))
    assert caught.value.evidence.startswith("torch 2.1+cpu is a build for the CPU\n")
    assert caught.value.remedy.startswith("ask for builds with CUDA: use_gpu")


@pytest.mark.parametrize(
    ("sharing", "backing"),
    [
        (GpuSharing.EMULATED, Backing.HOST_MEMORY),
        (GpuSharing.EXCLUSIVE, Backing.WHOLE),
        (GpuSharing.TIME_SLICED, Backing.TIME_SLICED),
    ],
)
def test_what_is_asked_for_and_there_is_given(sharing: GpuSharing, backing: Backing) -> None:
    made = plan(EIGHT, sharing=sharing)
    assert (made.backing, made.reason) == (backing, f"asked for: gpu_sharing is {sharing.value}")


def test_nodes_without_gpus_have_no_plan() -> None:
    for size, sharing in (("host", "auto"), ("Standard_D2_v2", "auto"), ("Standard_NC6", "none")):
        cluster = ClusterSpec(name="c", vm_size=size, gpu_sharing=GpuSharing(sharing))
        assert plan_gpus(cluster, ["node0"], EIGHT, memory_bytes=GIB) is None


def test_every_gpu_of_a_vm_size_is_of_a_known_model_and_others_are_named() -> None:
    for size in VM_SIZES.values():
        if size.gpu_model is not None:
            assert gpu_model(size.gpu_model).memory_bytes <= size.gpu_memory_bytes
    with pytest.raises(SpecError, match="no GPU model 'K81'") as caught:
        gpu_model("K81")
    assert "K80" in caught.value.remedy


# -- others' GPUs --------------------------------------------------------------------------


def test_what_others_have_is_avoided_but_never_changes_the_rung() -> None:
    others = {"GPU-0": 80 * GIB, "GPU-2": 80 * GIB}
    assert devices(plan(EIGHT, nodes=1, taken=others)) == [["GPU-1", "GPU-3"]]
    everything = {f"GPU-{n}": 80 * GIB for n in range(8)}
    assert plan(EIGHT, taken=everything).backing is Backing.WHOLE  # and waits for its turn
    assert plan(H200, taken={"GPU-0": 100 * GIB}).backing is Backing.TIME_SLICED
    slices = plan(
        gpus(2, 32 * GIB), 2, "Standard_NC6", GpuSharing.TIME_SLICED, taken={"GPU-0": K80}
    )
    assert devices(slices) == [["GPU-1"], ["GPU-0"]]


# -- NCCL ----------------------------------------------------------------------------------

MIG_HOST = HostGpus((gpu(0, mig=(20, 20, 20, 20)),))


@pytest.mark.parametrize(
    ("host", "choice", "version", "carrier", "identity"),
    [
        (HostGpus(), NcclChoice.AUTO, None, "gloo", False),
        (EIGHT, NcclChoice.AUTO, None, "nccl", False),
        (EIGHT, NcclChoice.STAGED, None, "gloo", False),
        (MIG_HOST, NcclChoice.AUTO, (2, 31), "nccl", False),
        (MIG_HOST, NcclChoice.AUTO, (2, 29, 7), "nccl", True),
        (MIG_HOST, NcclChoice.AUTO, None, "nccl", True),
        (H200, NcclChoice.AUTO, (2, 30, 7), "gloo", False),
        (H200, NcclChoice.REAL, (2, 30, 7), "nccl", False),
        (H200, NcclChoice.REAL, (2, 28, 9), "nccl", True),
    ],
)
def test_collectives_are_ncclss_where_it_can_and_the_hosts_where_a_gpu_is_shared(
    host: HostGpus, choice: NcclChoice, version: Any, carrier: str, identity: bool
) -> None:
    made = plan(host, nccl=choice, frameworks=Frameworks(nccl=version))
    assert (made.collectives, made.host_identity) == (carrier, identity)
    several = made.variables.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1"
    assert several == (host is H200 and choice is NcclChoice.REAL and version >= (2, 30))
    assert ("NCCL_NET" in made.variables) == bool(host.gpus)
    assert made.collectives_reason


def test_slices_of_different_gpus_are_distinct_for_nccl() -> None:
    made = plan(gpus(2, 32 * GIB), 1, sharing=GpuSharing.TIME_SLICED)
    assert (made.collectives, made.nodes[0].per_rank) == ("nccl", False)


def test_nccl_cannot_be_real_in_host_memory() -> None:
    with pytest.raises(PlacementError, match="live in host memory"):
        plan(HostGpus(), nccl=NcclChoice.REAL)


# -- whatever the host ---------------------------------------------------------------------

sizes = st.sampled_from(sorted(key for key, size in VM_SIZES.items() if size.gpus))
memories = st.integers(2, 160).map(lambda gib: gib * GIB)
hosts = st.builds(
    lambda parts, mps, cgroups: HostGpus(
        tuple(
            gpu(n, memory, tuple(mig) if divided else (), capability=capability)
            for n, (memory, mig, divided, capability) in enumerate(parts)
        ),
        mps_directory="/mps" if mps else None,
        mps_cgroups=cgroups,
    ),
    st.lists(
        st.tuples(
            memories,
            st.lists(st.sampled_from([5, 10, 12, 20, 24, 40]), max_size=7),
            st.booleans(),
            st.sampled_from([(3, 7), (7, 0), (9, 0)]),
        ),
        max_size=9,
    ),
    st.booleans(),
    st.booleans(),
)


@given(hosts, sizes, st.integers(1, 8), st.sampled_from(GpuSharing), st.integers(1, 9), st.data())
def test_no_device_is_given_twice_or_beyond_its_memory(
    host: HostGpus, size: str, nodes: int, sharing: GpuSharing, processes: int, data: Any
) -> None:
    uuids = [one.uuid for one in host.gpus] + [one.uuid for g in host.gpus for one in g.mig]
    taken = data.draw(st.dictionaries(st.sampled_from(uuids), memories) if uuids else st.just({}))
    given = {"sharing": sharing, "processes_per_node": processes, "taken": taken}
    if sharing is GpuSharing.NONE:
        return
    try:
        made = plan(host, nodes, size, **given)
    except PlacementError:
        assert sharing not in (GpuSharing.AUTO, GpuSharing.EMULATED)
        return
    assert made == plan(host, nodes, size, **given)
    assert json.dumps(made.to_json())
    wanted = vm_size(size).gpus
    assert [len(node.shares) for node in made.nodes] == [wanted] * nodes
    assert len({uuid for node in made.nodes for uuid in node.ids}) == nodes * wanted
    memory = {one.uuid: one.memory_bytes for one in host.gpus if not one.mig_enabled}
    memory.update({one.uuid: one.memory_bytes for each in host.gpus for one in each.mig})
    shares = [share for node in made.nodes for share in node.shares if share.device]
    uses = Counter(share.device for share in shares)
    for share in shares:
        assert share.device is not None
        if share.exclusive:
            assert uses[share.device] == 1
            assert share.memory_bytes <= memory[share.device]
        assert 0 < share.fraction <= 1
        # What one process takes with its context, times those that share the GPU.
        if not share.exclusive:
            sharing_it = -(-processes // wanted)
            assert (share.process_bytes + CONTEXT_BYTES) * max(1, sharing_it) <= share.memory_bytes
    for device in uses:
        parts = [share for share in shares if share.device == device and not share.exclusive]
        if parts:
            total = sum(share.memory_bytes for share in parts)
            assert total <= memory[device or ""] - RESERVE_BYTES
            assert sum(share.percent or 1 for share in parts) <= 100


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 6))
def test_a_node_never_has_a_device_twice_if_that_can_be_avoided(
    rooms: list[int], nodes: int
) -> None:
    host = HostGpus(tuple(gpu(n, room * K80 + RESERVE_BYTES) for n, room in enumerate(rooms)))
    try:
        made = plan(host, nodes, sharing=GpuSharing.TIME_SLICED)
    except PlacementError:
        assert sum(rooms) < 2 * nodes
        return
    avoidable = sum(min(room, nodes) for room in rooms) >= 2 * nodes
    apart = all(len(set(own)) == len(own) for own in devices(made))
    assert apart or not avoidable
