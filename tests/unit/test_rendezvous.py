"""How tasks find each other: TF_CONFIG and torch's variables, for every shape of job."""

import json
import socket
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.engine.ports import free_ports
from simgrid_ml.launch import rendezvous
from simgrid_ml.spec.cluster import ClusterSpec, Era
from simgrid_ml.spec.job import Distribution, JobSpec, ParameterServer, TorchDistributed
from simgrid_ml.spec.placement import HostInventory, Placement, place

SHAPES = st.builds(
    ParameterServer,
    nodes=st.integers(4, 12),
    workers=st.integers(1, 12),
    servers=st.integers(0, 4),
)


def placed(distribution: Distribution) -> Placement:
    job = JobSpec(source="/s", entry_script="t.py", distribution=distribution)
    return place(job, ClusterSpec(name="c", max_nodes=100), HostInventory(2, 2**30))


def seen(distribution: Distribution, era: Era = Era.E2, own: bool = True) -> list[dict[str, str]]:
    """The variables of every task."""
    placement = placed(distribution)
    addresses = {node: f"10.0.0.{n + 4}" for n, node in enumerate(placement.nodes)}
    listening = rendezvous.endpoints(
        distribution, placement, addresses, placement.nodes if own else (), count(20_000)
    )
    return [
        rendezvous.variables(era, distribution, placement, task, listening, "/shared/init")
        for task in placement.tasks
    ]


def cluster_of(distribution: Distribution) -> dict[str, Any]:
    configs = [json.loads(each["TF_CONFIG"]) for each in seen(distribution)]
    assert all(config.keys() == {"cluster", "task", "environment"} for config in configs)
    assert {json.dumps(config["cluster"]) for config in configs} == {
        json.dumps(configs[0]["cluster"])
    }
    found: dict[str, Any] = configs[0]["cluster"]
    return found


def test_three_nodes_are_shared_as_the_service_shared_them() -> None:
    assert cluster_of(ParameterServer(nodes=3, workers=3, servers=1)) == {
        "ps": ["10.0.0.4:2222"],
        "worker": ["10.0.0.4:2223", "10.0.0.5:2222", "10.0.0.6:2222"],
    }


def test_two_nodes_are_shared_as_the_service_shared_them() -> None:
    assert cluster_of(ParameterServer(nodes=2, workers=2, servers=1)) == {
        "ps": ["10.0.0.4:2222"],
        "worker": ["10.0.0.4:2223", "10.0.0.5:2222"],
    }


def test_where_there_are_enough_nodes_every_task_has_one() -> None:
    assert cluster_of(ParameterServer(nodes=5, workers=3, servers=2)) == {
        "ps": ["10.0.0.4:2222", "10.0.0.5:2222"],
        "worker": ["10.0.0.6:2222", "10.0.0.7:2222", "10.0.0.8:2222"],
    }


def test_without_parameter_servers_the_cluster_has_workers_alone() -> None:
    first = seen(ParameterServer(nodes=2, workers=2, servers=0))[0]
    assert json.loads(first["TF_CONFIG"])["cluster"].keys() == {"worker"}
    assert first["AZ_BATCHAI_PS_HOSTS"] == ""


def test_a_coordinator_is_the_chief_and_everybody_else_serves_it() -> None:
    job = ParameterServer(nodes=2, workers=2, servers=1, coordinator=True)
    assert cluster_of(job)["chief"] == ["10.0.0.4:2224"]
    assert [task.serves for task in placed(job).tasks] == [True, True, True, False]


def test_worker_0_can_be_called_master_in_its_own_task_alone() -> None:
    configs = [
        json.loads(each["TF_CONFIG"])
        for each in seen(ParameterServer(nodes=2, workers=2, first_worker="master"))
    ]
    assert [config["task"] for config in configs] == [
        {"type": "ps", "index": 0},
        {"type": "master", "index": 0},
        {"type": "worker", "index": 1},
    ]
    assert configs[1]["cluster"].keys() == {"ps", "worker"}


def test_the_batch_service_s_variables_are_of_the_first_two_eras() -> None:
    job = ParameterServer(nodes=2, workers=2, servers=1)
    assert seen(job)[1]["AZ_BATCHAI_WORKER_HOSTS"] == "10.0.0.4:2223,10.0.0.5:2222"
    assert seen(job, Era.E3)[1].keys() == {"TF_CONFIG"}


@given(SHAPES, st.booleans())
def test_no_two_tasks_get_one_endpoint(distribution: ParameterServer, own: bool) -> None:
    placement = placed(distribution)
    addresses = {node: f"10.0.0.{n + 4}" for n, node in enumerate(placement.nodes)}
    found = rendezvous.endpoints(
        distribution, placement, addresses, placement.nodes if own else (), count(20_000)
    )
    assert found.keys() == {task.name for task in placement.tasks}
    assert len(set(found.values())) == len(found)
    if not own:  # all listen on the host's own addresses
        ports = [endpoint.rpartition(":")[2] for endpoint in found.values()]
        assert len(set(ports)) == len(ports)


@given(st.integers(1, 8), st.integers(1, 8))
def test_torch_s_ranks_meet_at_the_first(nodes: int, per_node: int) -> None:
    found = seen(TorchDistributed(nodes=nodes, processes_per_node=per_node))
    assert {(each["MASTER_ADDR"], each["MASTER_PORT"]) for each in found} == {("10.0.0.4", "6105")}
    assert [each["RANK"] for each in found] == [str(rank) for rank in range(nodes * per_node)]
    assert [(each["NODE_RANK"], each["LOCAL_RANK"]) for each in found] == [
        (str(node), str(local)) for node in range(nodes) for local in range(per_node)
    ]
    assert {each["WORLD_SIZE"] for each in found} == {str(nodes * per_node)}


@pytest.mark.parametrize("address", ["127.3.2.1", "0.0.0.0"])
def test_a_port_that_somebody_listens_to_is_not_given(address: str) -> None:
    port = next(free_ports("seed"))
    with socket.socket() as taken:
        taken.bind((address, port))
        taken.listen()
        assert next(free_ports("seed")) != port
    assert next(free_ports("seed")) == port
