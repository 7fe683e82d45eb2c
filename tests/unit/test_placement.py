"""Which task runs where: nothing lost, nothing doubled, everything in order."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.errors import PlacementError
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import JobSpec, Mpi, ParameterServer, Plain
from simgrid_ml.spec.placement import HostInventory, Placement, Task, place

counts = st.integers(1, 40)


def placed(nodes: int, per_node: int, cpus: int = 2, max_nodes: int = 100) -> Placement:
    job = JobSpec(
        source="/s",
        entry_script="t.py",
        distribution=Mpi(nodes=nodes, processes_per_node=per_node),
    )
    return place(job, ClusterSpec(name="c", max_nodes=max_nodes), HostInventory(cpus, 2**30))


@given(counts, counts, st.integers(1, 64))
def test_no_rank_is_lost_or_doubled(nodes: int, per_node: int, cpus: int) -> None:
    placement = placed(nodes, per_node, cpus)
    assert [task.rank for task in placement.tasks] == list(range(nodes * per_node))
    assert len({task.name for task in placement.tasks}) == placement.world_size == nodes * per_node
    assert Counter(task.node for task in placement.tasks) == dict.fromkeys(
        placement.nodes, per_node
    )
    assert placement.nodes == tuple(f"node{n}" for n in range(nodes))


@given(counts, counts)
def test_ranks_of_a_node_are_contiguous_and_local_ranks_count_from_zero(
    nodes: int, per_node: int
) -> None:
    placement = placed(nodes, per_node)
    for number, node in enumerate(placement.nodes):
        tasks = placement.on(node)
        assert [task.local_rank for task in tasks] == list(range(per_node))
        first = number * per_node
        assert [task.rank for task in tasks] == list(range(first, first + per_node))


@given(counts, counts, st.integers(1, 64))
def test_ranks_yield_exactly_when_they_outnumber_cores(
    nodes: int, per_node: int, cpus: int
) -> None:
    assert placed(nodes, per_node, cpus).shares_cores == (nodes * per_node > cpus)


@given(st.integers(1, 30), st.integers(1, 30))
def test_more_nodes_than_the_cluster_may_have_are_refused(nodes: int, maximum: int) -> None:
    if nodes <= maximum:
        placed(nodes, 1, max_nodes=maximum)
        return
    with pytest.raises(PlacementError) as caught:
        placed(nodes, 1, max_nodes=maximum)
    assert f"Requested {nodes} nodes" in str(caught.value)
    assert f"only has {maximum} maximum nodes" in str(caught.value)


def test_more_nodes_than_the_host_has_room_for_are_refused() -> None:
    job = JobSpec(source="/s", entry_script="t.py", distribution=Plain(nodes=4))
    cluster = ClusterSpec(name="c", max_nodes=9, backend="docker")
    assert len(place(job, cluster, HostInventory(1, 1, max_nodes=4)).nodes) == 4
    with pytest.raises(PlacementError, match="docker backend has room for 3 nodes, not for 4"):
        place(job, cluster, HostInventory(1, 1, max_nodes=3))


def test_a_plain_job_has_one_task_per_node() -> None:
    job = JobSpec(source="/s", entry_script="t.py", distribution=Plain(nodes=3))
    placement = place(job, ClusterSpec(name="c", max_nodes=3), HostInventory(1, 1))
    assert [(task.node, task.rank, task.local_rank) for task in placement.tasks] == [
        ("node0", 0, 0),
        ("node1", 1, 0),
        ("node2", 2, 0),
    ]


SHAPES = st.builds(
    ParameterServer,
    nodes=st.integers(1, 12),
    workers=st.integers(1, 12),
    servers=st.integers(1, 12),
    coordinator=st.booleans(),
)


@given(SHAPES)
def test_tensorflow_s_tasks_have_a_node_each_or_share_counted_round(job: ParameterServer) -> None:
    spec = JobSpec(source="/s", entry_script="t.py", distribution=job)
    cluster, host = ClusterSpec(name="c", max_nodes=12), HostInventory(2, 2**30)
    if job.servers > job.nodes:
        with pytest.raises(PlacementError, match="a node has at most one"):
            place(spec, cluster, host)
        return
    tasks = place(spec, cluster, host).tasks
    roles = Counter(task.role for task in tasks)
    assert (roles["ps"], roles["worker"], roles["chief"]) == (
        *(job.servers, job.workers, job.coordinator),
    )
    assert {task.name for task in tasks} == {f"{task.role}-{task.index}" for task in tasks}
    on = {task.name: int(task.node[len("node") :]) for task in tasks}
    servers = [on[f"ps-{n}"] for n in range(job.servers)]
    workers = [on[f"worker-{n}"] for n in range(job.workers)]
    assert servers == list(range(job.servers)), "one on a node, from the first"
    if job.nodes >= len(tasks):
        assert len(set(on.values())) == len(tasks), "a node each"
    else:
        assert workers == [n % job.nodes for n in range(job.workers)]
    decides = "chief" if job.coordinator else "worker"
    assert {task.role for task in tasks if not task.serves} == {decides}


def test_nodes_without_a_task_are_not_asked_for() -> None:
    job = ParameterServer(nodes=9, workers=2, servers=1)
    spec = JobSpec(source="/s", entry_script="t.py", distribution=job)
    placement = place(spec, ClusterSpec(name="c", max_nodes=9), HostInventory(2, 2**30))
    assert placement.nodes == ("node0", "node1", "node2")


@given(st.permutations(range(6)))
def test_a_placement_out_of_order_cannot_be_made(order: list[int]) -> None:
    tasks = placed(3, 2).tasks
    shuffled = tuple(tasks[index] for index in order)
    if shuffled == tasks:
        Placement(shuffled, 2)
    else:
        with pytest.raises(PlacementError):
            Placement(shuffled, 2)


def test_a_placement_with_a_missing_or_doubled_rank_cannot_be_made() -> None:
    first, second = placed(1, 2).tasks
    for tasks in [(second,), (first, first), (first, Task("rank-2", "node0", 2, 1))]:
        with pytest.raises(PlacementError):
            Placement(tasks, 1)


@pytest.mark.parametrize("kind", [Plain, Mpi])
@pytest.mark.parametrize("count", [0, -1])
def test_a_job_without_nodes_cannot_be_described(kind: type, count: int) -> None:
    with pytest.raises(ValueError, match="nodes must be at least 1"):
        kind(nodes=count)


def test_more_tasks_than_a_host_can_run_are_refused_at_once() -> None:
    many = ParameterServer(nodes=2, workers=10**9)
    job = JobSpec(source="/s", entry_script="t.py", distribution=many)
    with pytest.raises(PlacementError, match="1000000001 tasks are more than one host can run"):
        place(job, ClusterSpec(name="c", max_nodes=2), HostInventory(2, 2**30))
