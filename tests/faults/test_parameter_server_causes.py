"""TensorFlow's tasks that die, hang, leave or lie: who it was is told, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml import wire
from simgrid_ml.backends.container import LABELS
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.engine import pools
from simgrid_ml.engine.ports import free_ports
from simgrid_ml.errors import PlacementError
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.spec.job import EnvironmentSpec, ParameterServer
from simgrid_ml.testing.pools import put_cluster
from simgrid_ml.testing.processes import RunProcesses, wait_until
from simgrid_ml.testing.runs import Runs, cause, evidence, log, story, until_written

SHARED = ParameterServer(nodes=2, workers=2, servers=1)
TASKS = ("ps-0", "worker-0", "worker-1")
SLOW_S = 240.0
"""For imports of TensorFlow on a host that has other things to do."""

# Each task does what its name is given as an argument, or goes on for ever.
LISTENS = """
    import json, os, socket, sys, time
    config = json.loads(os.environ["TF_CONFIG"])
    role, index = config["task"]["type"], config["task"]["index"]
    act = dict(word.split("=") for word in sys.argv[1:]).get("%s-%d" % (role, index))
    if act != "hang":
        port = int(config["cluster"][role][index].rpartition(":")[2])
        server = socket.create_server(("", port))
    print("up", flush=True)
    if act == "follow":
        for worker in config["cluster"]["worker"]:
            host, _, port = worker.rpartition(":")
            peer = socket.socket()
            while peer.connect_ex((host, int(port))):
                time.sleep(0.02)
                peer = socket.socket()
            peer.recv(1)  # until the worker ends
        os.abort()
    if act == "lead":
        connection = server.accept()
    if act == "fail":
        sys.exit(3)
    while act not in ("leave", "lead"):
        time.sleep(0.05)
"""

TRAINS = """
    import json, os, sys, time
    act = dict(word.split("=") for word in sys.argv[1:])
    config = json.loads(os.environ["TF_CONFIG"])
    role, index = config["task"]["type"], config["task"]["index"]
    act = act.get("%s-%d" % (role, index))
    if act == "hang":
        print("up", flush=True)
        time.sleep(600)
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_eager_execution()
    cluster = tf.train.ClusterSpec(config["cluster"])
    server = v1.train.Server(cluster, job_name=role, task_index=index)
    print("up", flush=True)
    if role == "ps" and act:
        while not os.path.exists("trained-0") or not os.path.exists("trained-1"):
            time.sleep(0.02)
        sys.exit(0) if act == "leave" else os._exit(3)
    if role == "ps":
        server.join()
    with v1.device("/job:ps/task:0"):
        w = v1.get_variable("w", (), initializer=v1.zeros_initializer())
    step = w.assign_add(1.0)
    ready = v1.report_uninitialized_variables()
    manager = v1.train.SessionManager(ready_op=ready, recovery_wait_secs=0.2)
    if index == 0:
        session = manager.prepare_session(server.target, init_op=w.initializer)
    else:
        session = manager.wait_for_session(server.target)
    for number in range(10**9):
        session.run(step)
        if number == 20:
            open("trained-%d" % index, "w").close()
            if act == "raise":
                raise ValueError("no step 21")
        time.sleep(0.01)
"""


def submitted(runs: Runs, script: str, *acts: str, **rest: Any) -> RunRecord:
    return runs.submit(script, *acts, **{"distribution": SHARED, **rest})


def until_up(record: RunRecord) -> None:
    until_written(record, "up\n", [f"-{task}" for task in TASKS], SLOW_S)


def until_trained(record: RunRecord) -> None:
    def both_trained() -> bool:
        assert not record.state.is_terminal, story(record)
        return all(os.path.exists(record.file(wire.WORK, f"trained-{n}")) for n in range(2))

    wait_until(both_trained, "both workers have trained", SLOW_S)


def failed(runs: Runs, record: RunRecord) -> str:
    """The first cause of a run that must fail."""
    runs.ended(record)
    assert record.state is RunState.FAILED, story(record)
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")
    return cause(record)


# -- refused -------------------------------------------------------------------------------
def test_more_servers_than_nodes_are_refused_at_submission(workspace: Runs) -> None:
    with pytest.raises(PlacementError, match="3 parameter servers on 2 nodes") as caught:
        submitted(workspace, LISTENS, distribution=ParameterServer(nodes=2, servers=3))
    assert "at most 2" in caught.value.remedy
    assert workspace.store.list() == []


@pytest.mark.parametrize("workers", [0, -1])
def test_a_job_without_workers_cannot_be_described(workers: int) -> None:
    with pytest.raises(ValueError, match=f"workers must be at least 1, not {workers}"):
        ParameterServer(nodes=2, workers=workers)


# -- who dies ------------------------------------------------------------------------------
def test_a_server_that_is_killed_is_the_cause_and_not_the_workers_that_lost_it(
    tensorflow_runs: Runs,
) -> None:
    record = submitted(tensorflow_runs, TRAINS)
    until_trained(record)
    os.kill(RunProcesses(record).task("ps-0"), signal.SIGKILL)
    told = failed(tensorflow_runs, record)
    assert told.startswith("parameter server 0 on node0 was ended by SIGKILL"), story(record)


def test_a_server_that_fails_is_the_cause_and_not_the_workers_that_lost_it(
    tensorflow_runs: Runs,
) -> None:
    record = submitted(tensorflow_runs, TRAINS, "ps-0=fail")
    told = failed(tensorflow_runs, record)
    assert told == "parameter server 0 on node0 exited with code 3", story(record)


def test_a_server_that_leaves_is_the_cause_when_workers_fail_without_it(
    tensorflow_runs: Runs,
) -> None:
    record = submitted(tensorflow_runs, TRAINS, "ps-0=leave")
    told = failed(tensorflow_runs, record)
    assert told.startswith("parameter server 0 on node0 ended with code 0, and worker ")
    error = record.error() or {}
    assert "server.join()" in error["remedy"]
    assert "UnavailableError" in error["evidence"], story(record)


def test_a_server_that_leaves_while_workers_wait_for_it_ends_the_run(workspace: Runs) -> None:
    job = ParameterServer(nodes=2, workers=2, servers=1, server_grace_s=0.5)
    record = submitted(workspace, LISTENS, "ps-0=leave", distribution=job)
    told = failed(workspace, record)
    assert told.startswith("parameter server 0 on node0 ended with code 0, and 0.5 s later")
    assert "worker-0, worker-1 still ran" in told
    assert "server.join()" in (record.error() or {})["remedy"]


def test_a_server_that_fails_is_not_said_to_have_left_however_short_the_grace(
    workspace: Runs,
) -> None:
    job = ParameterServer(nodes=2, workers=2, servers=1, server_grace_s=0)
    record = submitted(workspace, LISTENS, "ps-0=fail", distribution=job)
    assert failed(workspace, record) == "parameter server 0 on node0 exited with code 3"


def test_a_worker_that_fails_at_a_step_is_the_cause(tensorflow_runs: Runs) -> None:
    record = submitted(tensorflow_runs, TRAINS, "worker-1=raise")
    assert failed(tensorflow_runs, record) == "worker 1 on node1 exited with code 1", story(record)
    assert "ValueError: no step 21" in evidence(record)


@pytest.mark.parametrize(
    ("task", "who"),
    [("ps-0", "parameter server 0 on node0"), ("worker-1", "worker 1 on node1")],
)
@pytest.mark.parametrize("victim", ["program", "watcher"])
def test_what_is_killed_is_named_whatever_the_task(
    workspace: Runs, task: str, who: str, victim: str
) -> None:
    record = submitted(workspace, LISTENS)
    until_up(record)
    processes = RunProcesses(record)
    found = {"program": processes.task, "watcher": processes.watcher}[victim]
    os.kill(found(task), signal.SIGKILL)
    watched = "the process that watched " * (victim == "watcher")
    assert failed(workspace, record).startswith(f"{watched}{who} was ended by SIGKILL")


def test_a_worker_that_is_told_to_end_is_named_although_another_has_ended_well(
    workspace: Runs,
) -> None:
    record = submitted(workspace, LISTENS, "worker-0=leave")
    until_up(record)
    os.kill(RunProcesses(record).task("worker-1"), signal.SIGTERM)
    assert failed(workspace, record) == "worker 1 on node1 was ended by SIGTERM"


def test_a_server_that_crashes_once_its_workers_are_done_harms_nobody(workspace: Runs) -> None:
    record = submitted(workspace, LISTENS, "ps-0=follow", "worker-0=lead", "worker-1=lead")
    workspace.ended(record)
    assert record.state is RunState.COMPLETED, story(record)
    assert record.task_reports()["ps-0"][-1]["signal"] == signal.SIGABRT, story(record)


@pytest.mark.usefixtures("docker_engine")
def test_a_node_that_is_lost_is_named(workspace: Runs, docker_engine: Engine) -> None:
    record = submitted(workspace, LISTENS, cluster={"backend": "docker"})
    until_up(record)
    (container,) = (
        each["Id"]
        for each in docker_engine.containers(f"{LABELS.DIRECTORY}={record.path}")
        if each["Labels"][LABELS.NODE] == "node1"
    )
    docker_engine.kill(container, signal.SIGKILL)
    assert failed(workspace, record).startswith("node1 went away while its tasks were running")


# -- who hangs -----------------------------------------------------------------------------
def test_a_worker_that_hangs_at_its_start_is_named_when_the_run_is_cancelled(
    tensorflow_runs: Runs,
) -> None:
    record = submitted(tensorflow_runs, TRAINS, "worker-1=hang")
    until_up(record)
    waits = "still waiting for response from worker: /job:worker/replica:0/task:1"
    wait_until(lambda: waits in log(record, "-worker-0"), "worker 0 says so", SLOW_S)
    record.request_cancel()
    tensorflow_runs.ended(record)
    assert record.state is RunState.CANCELED, story(record)
    endpoint = record.document(wire.LAUNCH)["endpoints"]["worker-1"]
    assert record.states()[-1]["note"] == (
        f"cancelled by request; worker-1 on node1 ({endpoint}) never listened; "
        "the others may have waited for that"
    ), story(record)


@pytest.mark.parametrize("backend", ["process", "docker"])
def test_who_never_listened_is_told_when_the_time_is_up(
    workspace: Runs, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "docker":
        request.getfixturevalue("docker_engine")
    record = submitted(
        workspace, LISTENS, "worker-1=hang", cluster={"backend": backend}, max_run_s=4.0
    )
    workspace.ended(record)
    assert record.state is RunState.CANCELED, story(record)
    note = record.states()[-1]["note"]
    assert note.startswith("max_run_duration_seconds of 4 s exceeded; "), story(record)
    assert "worker-1 on node1 (" in note  # on a busy host others may not have listened either
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")


def test_a_run_that_is_cancelled_while_it_trains_leaves_nothing(tensorflow_runs: Runs) -> None:
    record = submitted(tensorflow_runs, TRAINS)
    until_trained(record)
    record.request_cancel()
    tensorflow_runs.ended(record)
    assert record.state is RunState.CANCELED, story(record)
    assert record.states()[-1]["note"] == "cancelled by request"
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")


@pytest.mark.usefixtures("docker_engine")
def test_a_preempted_job_begins_again_at_the_same_ports_of_nodes_that_are_warm(
    pooled: Runs, tensorflow: EnvironmentSpec
) -> None:
    low = put_cluster(pooled, name="low", max_nodes=2, vm_priority="lowpriority", backend="docker")
    record = submitted(pooled, TRAINS, environment=tensorflow, cluster=low)
    until_trained(record)
    pools.preempt(pooled.store, "low", "node1")
    wait_until(
        lambda: [move["state"] for move in record.states()].count("Running") == 2,
        "the second attempt runs",
        SLOW_S,
    )
    until_trained(record)
    for launch in (record.file(wire.ATTEMPTS, f"1/{wire.LAUNCH}"), record.file(wire.LAUNCH)):
        endpoints = json.loads(Path(launch).read_text())["endpoints"].values()
        assert [each.rpartition(":")[2] for each in endpoints] == ["2222", "2223", "2222"]
    record.request_cancel()  # while it trains: the next look finds nothing of it
    assert pooled.ended(record).state is RunState.CANCELED, story(record)
    assert record.states()[-1]["note"] == "cancelled by request"
    wait_until(lambda: not RunProcesses(record).all(), "nothing of it runs")


# -- who is in the way -----------------------------------------------------------------------
def test_a_port_of_this_host_that_is_taken_harms_nobody(
    workspace: Runs, odd_backends: Path
) -> None:
    record = submitted(
        workspace, LISTENS, "worker-0=leave", "worker-1=leave", cluster={"backend": "held"}
    )
    port = next(free_ports(f"{record.id}/1"))
    with socket.create_server(("", port)):
        odd_backends.touch()
        workspace.ended(record)
    assert record.state is RunState.COMPLETED, story(record)
    ports = [
        int(endpoint.rpartition(":")[2])
        for endpoint in record.document(wire.LAUNCH)["endpoints"].values()
    ]
    assert ports == [port + 1, port + 2, port + 3]


@pytest.mark.usefixtures("docker_engine")
def test_a_script_that_takes_its_own_port_is_shown_what_tensorflow_says(
    tensorflow_runs: Runs,
) -> None:
    script = """
        import json, os, socket, time
        config = json.loads(os.environ["TF_CONFIG"])
        if config["task"]["type"] == "worker":
            time.sleep(600)
        taken = socket.create_server(("", 2222))
        import tensorflow as tf
        tf.distribute.Server(config["cluster"], job_name="ps", task_index=0).join()
    """
    record = submitted(tensorflow_runs, script, cluster={"backend": "docker"})
    told = failed(tensorflow_runs, record)
    assert told == (
        "parameter server 0 on node0 exited with code 1; a port that it wanted is in use already"
    ), story(record)
    assert "Could not start gRPC server" in evidence(record), story(record)


# -- who lies --------------------------------------------------------------------------------
def test_a_script_that_changes_tf_config_is_shown_its_own_failure_and_the_record_stays(
    tensorflow_runs: Runs,
) -> None:
    script = """
        import json, os, time
        given = os.environ["TF_CONFIG"]
        config = json.loads(given)
        if config["task"] != {"type": "worker", "index": 1}:
            time.sleep(600)
        import tensorflow as tf

        def begin():
            resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
            tf.distribute.Server(
                resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id)

        for task in ({"type": "worker", "index": 7}, {"type": "trainer", "index": 0}):
            os.environ["TF_CONFIG"] = json.dumps({**config, "task": task})
            try:
                begin()
            except tf.errors.OpError as error:
                print("refused:", error)
        os.environ["TF_CONFIG"] = given[:-1]
        begin()
    """
    record = submitted(tensorflow_runs, script)
    assert failed(tensorflow_runs, record) == "worker 1 on node1 exited with code 1"
    said = log(record, "-worker-1")
    assert "JSONDecodeError" in evidence(record), said
    refused = [line for line in said.splitlines() if line.startswith("refused:")]
    assert len(refused) == 2, said
    assert "7" in refused[0] and "trainer" in refused[1]
    kept = record.document(wire.LAUNCH)["tasks"]["worker-1"]["environment"]["TF_CONFIG"]
    assert json.loads(kept)["task"] == {"type": "worker", "index": 1}
