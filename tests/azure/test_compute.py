"""``ComputeTarget`` and ``AmlCompute``."""

import sys
from datetime import datetime, timezone

import pytest

from simgrid_ml.azure import AmlCompute, ComputeTarget, Workspace
from simgrid_ml.azure.compute import stored_spec
from simgrid_ml.azure.compute_status import AmlComputeStatus
from simgrid_ml.azure.errors import ComputeTargetException, UserErrorException
from simgrid_ml.engine import pools
from simgrid_ml.errors import NotEmulated
from simgrid_ml.record.run import RunState
from simgrid_ml.spec.cluster import ClusterSpec, Era, WorkingDirectory
from simgrid_ml.spec.gpus import GpuSharing, NcclChoice
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs

S = RunState


@pytest.fixture
def ws():
    return Workspace.local()


@pytest.fixture
def gpu(ws):
    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=4)
    return ComputeTarget.create(ws, "gpucluster", config)


def test_a_missing_target_is_an_exception_that_begins_as_azures(ws):
    with pytest.raises(ComputeTargetException) as caught:
        ComputeTarget(workspace=ws, name="gpucluster")
    assert caught.value.message.startswith("ComputeTargetNotFound")


def test_find_or_create_gives_an_amlcompute(ws, gpu):
    found = ComputeTarget(workspace=ws, name="gpucluster")
    assert isinstance(found, AmlCompute)
    assert type(AmlCompute(ws, "gpucluster")) is AmlCompute
    assert (found.name, found.type, found.vm_size) == ("gpucluster", "AmlCompute", "STANDARD_NC6")
    assert [target.name for target in ComputeTarget.list(ws)] == ["gpucluster"]


def test_a_cluster_without_minimum_is_complete_at_once(gpu, capsys):
    gpu.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
    assert capsys.readouterr().out == (
        "Creating.\nSucceeded\nAmlCompute wait for completion finished\n\n"
        "Minimum number of nodes requested have been provisioned\n"
    )
    gpu.wait_for_completion()
    assert capsys.readouterr().out == ""


def test_more_nodes_than_the_minimum_come_with_runs_only_and_a_timeout_does_not_raise(gpu, capsys):
    gpu.wait_for_completion(show_output=True, min_node_count=2, timeout_in_minutes=0.002)
    out = capsys.readouterr().out
    assert "Wait timeout has been reached\n" in out
    assert '"Succeeded" and current node count is "0"' in out


def test_the_status_has_the_services_keys(gpu):
    found = gpu.get_status().serialize()
    times = ("allocationStateTransitionTime", "creationTime", "modifiedTime")
    assert all(found.pop(key).startswith("20") for key in times)
    assert found == {
        "currentNodeCount": 0,
        "targetNodeCount": 0,
        "nodeStateCounts": {
            "preparingNodeCount": 0,
            "runningNodeCount": 0,
            "idleNodeCount": 0,
            "unusableNodeCount": 0,
            "leavingNodeCount": 0,
            "preemptedNodeCount": 0,
        },
        "allocationState": "Steady",
        "errors": None,
        "provisioningState": "Succeeded",
        "provisioningStateTransitionTime": None,
        "scaleSettings": {
            "minNodeCount": 0,
            "maxNodeCount": 4,
            "nodeIdleTimeBeforeScaleDown": "PT1800S",
        },
        "vmPriority": "Dedicated",
        "vmSize": "STANDARD_NC6",
    }


def test_nodes_that_leave_are_no_longer_counted_as_current():
    now = datetime.now(timezone.utc)
    states = ("preparing", "idle", "running", "leaving")
    told = {**pools.NO_POOL, "nodes": [{"state": state, "since": 1.0} for state in states]}
    status = AmlComputeStatus(ClusterSpec(name="four"), now, now, told)
    assert (status.current_node_count, status.node_state_counts.leaving_node_count) == (2, 1)
    assert status.allocation_state == "Resizing"


WAITS = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"


def test_nodes_and_runs_are_counted_while_they_are_there(ws, tmp_path):
    config = AmlCompute.provisioning_configuration(max_nodes=3)
    target = ComputeTarget.create(ws, "three", config)
    runs = Runs(str(tmp_path), EnvironmentSpec(interpreter=sys.executable))
    runs.store = ws._store
    cluster = vars_of(stored_spec(ws, "three"))
    go = tmp_path / "go"
    first = runs.submit(WAITS, str(go), nodes=2, cluster=cluster)
    wait_until(lambda: first.state is S.RUNNING, "it runs")
    second = runs.submit(WAITS, str(go), nodes=2, cluster=cluster)
    wait_until(lambda: target.get_status().allocation_state == "Resizing", "more are wanted")
    status = target.get_status()
    assert (status.target_node_count, status.node_state_counts.running_node_count) == (3, 2)
    nodes = [n for n in target.list_nodes() if n["nodeState"] == "running"]
    assert [node["runId"] for node in nodes] == [first.id] * 2
    assert len({node["privateIpAddress"] for node in nodes}) == 2
    assert {run.id for run in target.get_active_runs()} == {first.id, second.id}
    go.touch()
    for record in (first, second):
        assert runs.ended(record).state is S.COMPLETED
    status = target.get_status()
    counts = status.node_state_counts
    assert (counts.running_node_count, counts.idle_node_count) == (0, status.current_node_count)
    assert (status.allocation_state, status.errors) == ("Steady", None)
    assert list(target.get_active_runs()) == []


def vars_of(spec):
    return {name: getattr(spec, name) for name in type(spec).__struct_fields__}


def test_waiting_for_completion_waits_for_the_minimum(ws, capsys):
    config = AmlCompute.provisioning_configuration(min_nodes=2, max_nodes=4)
    target = ComputeTarget.create(ws, "warm", config)
    target.wait_for_completion(show_output=True)
    assert "Minimum number of nodes requested have been provisioned" in capsys.readouterr().out
    status = target.get_status()
    assert (status.current_node_count, status.node_state_counts.idle_node_count) == (2, 2)
    assert [node["nodeState"] for node in target.list_nodes()] == ["idle", "idle"]
    target.delete()
    wait_until(lambda: pools.status(ws._store, "warm") is None, "they have ended")


def test_a_preempted_node_is_counted_until_it_is_replaced(ws):
    config = AmlCompute.provisioning_configuration(
        vm_priority="lowpriority", min_nodes=1, max_nodes=2
    )
    target = ComputeTarget.create(ws, "low", config)
    target.wait_for_completion()
    before = [node["privateIpAddress"] for node in target.list_nodes()]
    pools.preempt(ws._store, "low", "node0")
    wait_until(
        lambda: target.list_nodes() and target.list_nodes()[0]["nodeState"] == "idle",
        "it is replaced",
    )
    assert target.get_status().node_state_counts.preempted_node_count == 0
    assert [node["privateIpAddress"] for node in target.list_nodes()] == before
    assert target.list_nodes()[0]["nodeId"].endswith("_p")


def test_the_scale_can_be_changed(ws, gpu):
    gpu.update(min_nodes=1, max_nodes=8, idle_seconds_before_scaledown=60)
    again = ComputeTarget(ws, "gpucluster").scale_settings
    assert again.serialize() == {
        "minNodeCount": 1,
        "maxNodeCount": 8,
        "nodeIdleTimeBeforeScaleDown": "PT60S",
    }
    gpu.update()
    with pytest.raises(ComputeTargetException):
        gpu.update(max_nodes=0)
    assert ComputeTarget(ws, "gpucluster").scale_settings.maximum_node_count == 8


def test_a_deleted_target_is_gone_and_cannot_be_detached_before(ws, gpu):
    with pytest.raises(ComputeTargetException, match="Detach is not supported"):
        gpu.detach()
    gpu.delete()
    for gone in (gpu.delete, gpu.refresh_state, gpu.get_status):
        with pytest.raises(ComputeTargetException):
            gone()


@pytest.mark.parametrize("name", ["amlcompute", "LOCAL", "ContainerInstance"])
def test_reserved_names_are_refused(ws, name):
    with pytest.raises(UserErrorException, match="reserved name"):
        ComputeTarget.create(ws, name, AmlCompute.provisioning_configuration(max_nodes=1))


@pytest.mark.parametrize("name", ["", "a", "1abc", "a_b", "x" * 25, "a/b", "../x", "gpu-"])
def test_names_outside_the_rule_are_refused(ws, name):
    with pytest.raises(ComputeTargetException, match="cannot name"):
        ComputeTarget.create(ws, name, AmlCompute.provisioning_configuration(max_nodes=1))


@pytest.mark.parametrize("name", ["gpu", "cpu-cluster", "gpu-4x", "abc-1-d", "x" * 24, "c-1"])
def test_names_inside_either_rule_are_taken(ws, name):
    config = AmlCompute.provisioning_configuration(max_nodes=1)
    assert ComputeTarget.create(ws, name, config).name == name


SSH = {"admin_username": "me", "admin_user_ssh_key": "k"}


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({}, "max nodes count is mandatory"),
        ({"max_nodes": -1}, "greater than or equal to 0"),
        ({"max_nodes": 1, "min_nodes": 2}, "equal to min nodes count"),
        ({"max_nodes": 1, "vnet_name": "v"}, "virtual net"),
        ({"max_nodes": 1, "admin_user_password": "aB1"}, "admin username"),
        ({"max_nodes": 1, "admin_username": "me"}, "no password or key"),
        ({"max_nodes": 1, "admin_username": "me", "admin_user_password": "aB"}, "3 of the"),
        ({"max_nodes": 1, "identity_type": "Other"}, "identity_type"),
        ({"max_nodes": 1, "identity_id": ["x"]}, "identity_id"),
        ({"max_nodes": 1, "identity_type": "UserAssigned"}, "identity_id"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(kwargs, says):
    with pytest.raises(ComputeTargetException, match=says):
        AmlCompute.provisioning_configuration(**kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"max_nodes": 0},
        {"max_nodes": 1, "min_nodes": None},
        {"max_nodes": 1, **SSH},
        {"max_nodes": 1, "admin_username": "me", "admin_user_password": "aB1"},
        {"max_nodes": 1, "vnet_name": "v", "vnet_resourcegroup_name": "g", "subnet_name": "s"},
        {"max_nodes": 1, "vm_priority": "lowpriority"},
    ],
)
def test_a_configuration_that_fits_is_taken(kwargs):
    AmlCompute.provisioning_configuration(**kwargs)


def test_a_cluster_without_nodes_cannot_be_emulated(ws):
    with pytest.raises(ComputeTargetException, match="max_nodes"):
        ComputeTarget.create(ws, "none", AmlCompute.provisioning_configuration(max_nodes=0))


def test_tags_choose_what_is_emulated(ws):
    config = AmlCompute.provisioning_configuration(
        max_nodes=2,
        tags={
            "team": "x",
            "simgrid-ml.era": "E3",
            "simgrid-ml.backend": "process",
            "simgrid-ml.scale": "0.25",
            "simgrid-ml.gpu-sharing": "emulated",
            "simgrid-ml.nccl": "real",
            "simgrid-ml.working_directory": "shared",
        },
    )
    assert ComputeTarget.create(ws, "tagged", config).tags["team"] == "x"
    spec = stored_spec(ws, "tagged")
    assert (spec.era, spec.working_directory) == (Era.E3, WorkingDirectory.SHARED)
    assert spec.scale == 0.25
    assert (spec.gpu_sharing, spec.nccl) == (GpuSharing.EMULATED, NcclChoice.REAL)


@pytest.mark.parametrize(
    "tags",
    [
        {"simgrid-ml.era": "E9"},
        {"simgrid-ml.colour": "red"},
        {"simgrid-ml.gpu_sharing": "all of them"},
        {"simgrid-ml.scale": "small"},
        {"simgrid-ml.scale": "2"},
    ],
)
def test_a_tag_of_ours_that_is_wrong_is_refused(ws, tags):
    config = AmlCompute.provisioning_configuration(max_nodes=2, tags=tags)
    with pytest.raises(ComputeTargetException):
        ComputeTarget.create(ws, "tagged", config)


def test_a_password_is_not_kept(ws):
    config = AmlCompute.provisioning_configuration(
        max_nodes=1, admin_username="me", admin_user_password="Secret1"
    )
    ComputeTarget.create(ws, "gpu", config)
    assert "Secret1" not in str(ws._store.clusters())


def test_sizes_are_listed_as_the_service_lists_them(ws):
    sizes = {size["name"].lower(): size for size in AmlCompute.supported_vmsizes(ws)}
    assert sizes["standard_nc6"] == {
        "name": "Standard_NC6",
        "vCPUs": 6,
        "gpus": 1,
        "memoryGB": 56,
        "maxResourceVolumeMB": 340 * 1024,
    }


def test_what_cannot_be_attached_says_so(ws):
    with pytest.raises(NotEmulated):
        ComputeTarget.attach(ws, "vm", object())
    with pytest.raises(NotEmulated, match="object"):
        ComputeTarget.create(ws, "vm", object())


def test_the_description_of_a_target_is_the_services(gpu):
    found = gpu.serialize()
    assert found["properties"]["computeType"] == "AmlCompute"
    assert found["properties"]["properties"]["vmSize"] == "STANDARD_NC6"
    assert gpu.get()["name"] == "gpucluster"
