"""TensorFlow's parameter servers: who holds the variables, who trains, and how such a run ends."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml import wire
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.job import ParameterServer
from simgrid_ml.spec.links import Link, Links
from simgrid_ml.testing.runs import Runs, log, story

BETWEEN_GRAPHS = """
    import json, os, threading, time
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits

    v1 = tf.compat.v1
    v1.disable_eager_execution()
    config = json.loads(os.environ["TF_CONFIG"])
    role, index = config["task"]["type"], config["task"]["index"]
    me = "/job:%s/task:%d" % (role, index)
    workers, servers = (len(config["cluster"][each]) for each in ("worker", "ps"))
    cluster = tf.train.ClusterSpec(config["cluster"])
    server = v1.train.Server(cluster, job_name=role, task_index=index)
    only = lambda *tasks: v1.ConfigProto(device_filters=list(tasks))


    def variables():
        return [v1.get_variable("w1", (64, 32)), v1.get_variable("b1", (32,)),
                v1.get_variable("w2", (32, 10)), v1.get_variable("b2", (10,))]


    def flag(ps):
        with v1.device("/job:ps/task:%d" % ps):
            return v1.get_variable("flag%d" % ps, (), initializer=v1.zeros_initializer())


    def tell(**what):
        told = {"config": config, "environment": dict(os.environ), **what}
        with open("outputs/%s-%d.json" % (role, index), "w") as stream:
            json.dump(told, stream)


    def look():
        # Sees no other task than itself: what it finds is in this very process.
        with tf.Graph().as_default(), v1.device(me):
            mine, done = variables(), flag(index)
            missing = v1.report_uninitialized_variables()
            has_flag = v1.is_variable_initialized(done)
            session = v1.Session(server.target, config=only(me))
            while not session.run(has_flag) or session.run(done) < workers:
                time.sleep(0.05)
            away = {name.decode() for name in session.run(missing)}
            norms = {each.op.name: float(np.linalg.norm(session.run(each)))
                     for each in mine if each.op.name not in away}
            tell(holds=norms)
            session.run(done.assign_add(1))


    if role == "ps":
        threading.Thread(target=look, daemon=True).start()
        server.join()

    with v1.device(v1.train.replica_device_setter(worker_device=me, cluster=cluster)):
        step = v1.train.get_or_create_global_step()
        w1, b1, w2, b2 = trained = variables()
        x, y = v1.placeholder(tf.float32, (None, 64)), v1.placeholder(tf.int64, (None,))
        logits = tf.matmul(tf.nn.relu(tf.matmul(x, w1) + b1), w2) + b2
        wrong = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        loss = tf.reduce_mean(wrong)
        train = v1.train.GradientDescentOptimizer(0.3).minimize(loss, global_step=step)
    flags = [flag(ps) for ps in range(servers)]
    finish = [each.assign_add(1, use_locking=True) for each in flags]
    digits = load_digits()
    images, labels = digits.data / 16, digits.target
    batch = {x: images[index::workers], y: labels[index::workers]}
    manager = v1.train.SessionManager(
        ready_op=v1.report_uninitialized_variables(), recovery_wait_secs=0.2)
    if index == 0:
        session = manager.prepare_session(
            server.target, init_op=v1.global_variables_initializer(), config=only("/job:ps", me))
    else:
        session = manager.wait_for_session(server.target, config=only("/job:ps", me))
    for _ in range(40):
        session.run(train, batch)
    seen = v1.RunMetadata()
    full = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
    session.run(train, batch, options=full, run_metadata=seen)
    reached = session.run(loss, {x: images, y: labels})
    ran = sorted({(node.node_name.split("/")[-1].split(":")[0], each.device)
                  for each in seen.step_stats.dev_stats for node in each.node_stats})
    session.run(finish)
    while min(session.run(flags)) <= workers:
        time.sleep(0.05)
    tell(loss=float(reached), ran=ran, steps=int(session.run(step)),
         placed={each.op.name: each.device for each in trained},
         norms={each.op.name: float(np.linalg.norm(session.run(each))) for each in trained})
"""


def told(record: RunRecord) -> dict[str, dict[str, Any]]:
    """What each task wrote, by its name."""
    found = {}
    for task in record.document(wire.PLACEMENT)["tasks"]:
        name = task["name"]
        with open(record.artifact(f"outputs/{name}.json").path) as stream:
            found[name] = json.load(stream)
    return found


def assert_trained_on_servers(record: RunRecord, servers: int, workers: int) -> None:
    """Each variable is in one parameter server, all have some, and the digits were learnt."""
    assert [event["event"] for event in record.events()].count("all-listen") == 1, story(record)
    said = told(record)
    names = [f"worker-{number}" for number in range(workers)]
    steps = [said[name]["steps"] for name in names]
    assert steps == [41 * workers] * workers, "each worker counts the steps of all"
    held: dict[str, str] = {}
    for number in range(servers):
        holds = said[f"ps-{number}"]["holds"]
        assert holds, story(record)
        for variable, norm in holds.items():
            assert variable not in held, "one server holds it"
            held[variable] = f"/job:ps/task:{number}"
            assert all(math.isclose(said[name]["norms"][variable], norm) for name in names)
    for number, name in enumerate(names):
        assert said[name]["placed"] == held
        # Untrained it is log(10) or more; a worker that begins late finds it low already.
        assert said[name]["loss"] < 0.6 * math.log(10), said[name]
        ran: dict[str, set[str]] = {}
        for what, device in said[name]["ran"]:
            ran.setdefault(what, set()).add(device.partition("/device")[0])
        assert ran["MatMul"] == {f"/job:worker/replica:0/task:{number}"}
        assert ran["ResourceApplyGradientDescent"] == {
            f"/job:ps/replica:0/task:{ps}" for ps in range(servers)
        }


def process_lines(record: RunRecord, what: str) -> list[dict[str, Any]]:
    with open(record.artifact(f"azureml-logs/process_{what}.json").path) as stream:
        return [json.loads(line) for line in stream]


def test_two_nodes_share_a_server_and_two_workers(tensorflow_runs: Runs) -> None:
    record = tensorflow_runs.completed(
        BETWEEN_GRAPHS, distribution=ParameterServer(nodes=2, workers=2, servers=1)
    )
    assert_trained_on_servers(record, servers=1, workers=2)
    said = told(record)
    clusters = [each["config"]["cluster"] for each in said.values()]
    assert clusters == [clusters[0]] * 3
    for name, each in said.items():
        role, _, index = name.partition("-")
        assert each["config"].keys() == {"cluster", "task", "environment"}
        assert each["config"]["task"] == {"type": role, "index": int(index)}
        assert each["config"]["environment"] == "cloud"
        environment = each["environment"]
        assert environment["AZ_BATCHAI_TASK_TYPE"] == role
        assert environment["AZ_BATCHAI_TASK_INDEX"] == index
        assert environment["AZ_BATCHAI_PS_HOSTS"] == ",".join(clusters[0]["ps"])
        assert environment["AZ_BATCHAI_WORKER_HOSTS"] == ",".join(clusters[0]["worker"])
    info = {line["process_name"]: line for line in process_lines(record, "info")}
    assert {name: line["log"] for name, line in info.items()} == {
        f"{role}_{index}": f"azureml-logs/70_driver_log-{role}-{index}.txt"
        for role, index in [("ps", 0), ("worker", 0), ("worker", 1)]
    }
    assert info["ps_0"]["private_ip"] == info["worker_0"]["private_ip"] != ""
    assert {line["process_name"]: line["status"] for line in process_lines(record, "status")} == {
        "ps_0": "Terminated",
        "worker_0": "Completed",
        "worker_1": "Completed",
        "*": "Completed",
    }


@pytest.mark.usefixtures("docker_engine")
def test_containers_have_the_service_s_ports_and_folders_of_their_own(
    tensorflow_runs: Runs,
) -> None:
    record = tensorflow_runs.completed(
        BETWEEN_GRAPHS,
        distribution=ParameterServer(nodes=3, workers=3, servers=1),
        cluster={"backend": "docker", "era": "E3"},
    )
    assert_trained_on_servers(record, servers=1, workers=3)
    nodes = record.document(wire.PLACEMENT)["node_info"]
    first, second, third = (nodes[f"node{number}"]["address"] for number in range(3))
    for each in told(record).values():
        assert each["config"]["cluster"] == {
            "ps": [f"{first}:2222"],
            "worker": [f"{first}:2223", f"{second}:2222", f"{third}:2222"],
        }
        assert "AZ_BATCHAI_PS_HOSTS" not in each["environment"]
    logs = [each.name for each in record.artifacts() if each.name.startswith("user_logs/")]
    assert sorted(logs) == [
        "user_logs/std_log_node_00_ps.txt",
        "user_logs/std_log_node_00_worker.txt",
        "user_logs/std_log_node_01_worker.txt",
        "user_logs/std_log_node_02_worker.txt",
    ]


@pytest.mark.usefixtures("shaped_links")
def test_two_servers_and_three_workers_behind_links_have_a_node_each_and_share_the_variables(
    tensorflow_runs: Runs,
) -> None:
    record = tensorflow_runs.completed(
        BETWEEN_GRAPHS,
        distribution=ParameterServer(nodes=5, workers=3, servers=2),
        cluster={"links": Links(default=Link(delay_s=0.001))},
    )
    endpoints = record.document(wire.LAUNCH)["endpoints"].values()
    assert [each.rpartition(":")[2] for each in endpoints] == ["2222"] * 5
    assert record.document(wire.PLACEMENT)["network"], "behind links"
    assert_trained_on_servers(record, servers=2, workers=3)
    tasks = record.document(wire.PLACEMENT)["tasks"]
    assert [(task["name"], task["node"]) for task in tasks] == [
        ("ps-0", "node0"),
        ("ps-1", "node1"),
        ("worker-0", "node2"),
        ("worker-1", "node3"),
        ("worker-2", "node4"),
    ]


COORDINATED = """
    import json, os
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    role, index = resolver.task_type, resolver.task_id
    if role in ("worker", "ps"):
        tf.distribute.Server(resolver.cluster_spec(), job_name=role, task_index=index).join()

    from sklearn.datasets import load_digits

    shards = tf.distribute.experimental.partitioners.FixedShardsPartitioner(1)
    strategy = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=shards)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    digits = load_digits()
    images, labels = (digits.data / 16).astype("float32"), digits.target
    with strategy.scope():
        w = tf.Variable(tf.zeros((64, 10)))
        b = tf.Variable(tf.zeros((10,)))


    def loss_of(x, y):
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=tf.matmul(x, w) + b))


    @tf.function
    def step(part):
        x, y = (tf.gather(each, tf.range(part, len(images), 8)) for each in (images, labels))
        with tf.GradientTape() as tape:
            loss = loss_of(x, y)
        for variable, gradient in zip((w, b), tape.gradient(loss, (w, b))):
            variable.assign_sub(0.3 * gradient)
        tf.print("stepped")  # where it runs


    first = float(loss_of(images, labels))
    for number in range(60):
        coordinator.schedule(step, args=(number % 8,))
    coordinator.join()
    last = float(loss_of(images, labels))
    with open("outputs/chief-0.json", "w") as stream:
        json.dump({"loss": [first, last], "holds": sorted({w.device, b.device})}, stream)
"""


def test_a_coordinator_ends_the_run_that_its_workers_and_server_never_would(
    tensorflow_runs: Runs,
) -> None:
    record = tensorflow_runs.completed(
        COORDINATED,
        distribution=ParameterServer(nodes=2, workers=3, servers=1, coordinator=True),
    )
    with open(record.artifact("outputs/chief-0.json").path) as stream:
        found = json.load(stream)
    assert found["holds"] == ["/job:ps/replica:0/task:0/device:CPU:0"]
    steps = [log(record, f"-worker-{number}").count("stepped") for number in range(3)]
    assert sum(steps) >= 60 and sum(map(bool, steps)) > 1, steps
    assert "stepped" not in log(record, "-chief-0") + log(record, "-ps-0")
    first, last = found["loss"]
    assert last < 0.6 * first
    status = {line["process_name"]: line["status"] for line in process_lines(record, "status")}
    assert status == {
        **dict.fromkeys(["ps_0", "worker_0", "worker_1", "worker_2"], "Terminated"),
        **dict.fromkeys(["chief_0", "*"], "Completed"),
    }
    assert all(
        finding["verdict"] == "pass"
        for finding in json.loads(Path(record.file(wire.VERDICTS)).read_text())
        if finding["check"].startswith("ranks")
    )
