"""Trains one model by Horovod or by parameter servers; tells what its steps took and carried.

Each worker prints one line of JSON. The first steps do not count, and counting begins when all
workers have made them.
"""

import argparse
import json
import os
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()
v1.logging.set_verbosity(v1.logging.ERROR)

INPUTS, CLASSES, BATCH, RATE = 64, 10, 16, 0.02


def by_allreduce(given):
    import horovod.tensorflow as hvd

    hvd.init()
    variables, loss = model(given, hvd.rank())
    train = hvd.DistributedOptimizer(v1.train.GradientDescentOptimizer(RATE)).minimize(loss)
    hooks = [hvd.BroadcastGlobalVariablesHook(0)]
    with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
        return {**steps(given, session, train, loss), **sizes(variables)}


def by_servers(given):
    config = json.loads(os.environ["TF_CONFIG"])
    cluster, task = tf.train.ClusterSpec(config["cluster"]), config["task"]
    server = v1.train.Server(cluster, job_name=task["type"], task_index=task["index"])
    if task["type"] == "ps":
        server.join()
    workers, me = cluster.num_tasks("worker"), f"/job:worker/task:{task['index']}"
    optimizer, hooks = v1.train.GradientDescentOptimizer(RATE), []
    if given.how == "synchronous":
        optimizer = v1.train.SyncReplicasOptimizer(optimizer, workers, workers)
        # No token before the first step: nobody is ahead, so no gradient comes too late to count.
        hooks.append(optimizer.make_session_run_hook(task["index"] == 0, num_tokens=0))
    with v1.device(v1.train.replica_device_setter(worker_device=me, cluster=cluster)):
        variables, loss = model(given, task["index"])  # equal layers, server after server
        ready = v1.get_variable("ready", (), tf.int32, v1.zeros_initializer(), trainable=False)
        now_ready = ready.assign_add(1, read_value=False)
        train = optimizer.minimize(loss, global_step=v1.train.get_or_create_global_step())
    # Without filters a session asks all other workers, also those that have ended.
    settings = v1.ConfigProto(device_filters=["/job:ps", me])
    is_chief = task["index"] == 0
    if not is_chief:
        wait_for_chief(server.target, settings)
    with v1.train.MonitoredTrainingSession(
        server.target,
        is_chief=is_chief,
        hooks=hooks,
        config=settings,
        stop_grace_period_secs=0,  # the chief's thread waits for gradients of one more step
    ) as session:

        def when_all_are_ready():
            bare(session, now_ready)
            while bare(session, ready) < workers:
                time.sleep(0.05)

        return {**steps(given, session, train, loss, when_all_are_ready), **sizes(variables)}


def bare(session, what):
    """Evaluate without hooks, which count steps."""
    return session.run_step_fn(lambda step_context: step_context.session.run(what))


def wait_for_chief(target, settings):
    """The monitored session would look for its variables every 30 seconds only."""
    missing = v1.report_uninitialized_variables(v1.global_variables())
    with v1.Session(target, config=settings) as session:
        while session.run(missing).size:
            time.sleep(0.05)


def model(given, seed):
    """A residual network of equal layers; its variables, and the loss on the worker's own data."""
    chance = np.random.default_rng(seed)
    x = chance.standard_normal((BATCH, INPUTS)).astype(np.float32)
    labels = (x[:, :CLASSES]).argmax(axis=1)
    shapes = [(INPUTS, given.width), *[(given.width, given.width)] * given.layers]
    shapes.append((given.width, CLASSES))
    variables = [
        v1.get_variable(f"layer{number}", shape, initializer=v1.random_normal_initializer(0, 0.02))
        for number, shape in enumerate(shapes)
    ]
    hidden = tf.matmul(x, variables[0])
    for weights in variables[1:-1]:
        hidden += tf.nn.relu(tf.matmul(hidden, weights))
    logits = tf.matmul(hidden, variables[-1])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return variables, tf.reduce_mean(losses)


def steps(given, session, train, loss, when_all_are_ready=lambda: None):
    first = session.run([train, loss])[1]
    for _ in range(given.warm_up - 1):
        session.run(train)
    when_all_are_ready()
    carried, begun = network(), time.time()
    for _ in range(given.steps):
        session.run(train)
    ended, now = time.time(), network()
    return {
        "begun": begun,
        "ended": ended,
        "steps": given.steps,
        "received": now[0] - carried[0],
        "sent": now[1] - carried[1],
        "losses": [float(first), float(session.run([train, loss])[1])],
    }


def sizes(variables):
    """Bytes of all variables, and of those that lie on each server."""
    servers = {}
    for one in variables:
        servers[one.device] = servers.get(one.device, 0) + one.shape.num_elements() * 4
    on_servers = {device: held for device, held in servers.items() if "/job:ps" in device}
    return {"bytes": sum(servers.values()), "servers": on_servers}


def network():
    """Bytes that the node has received and sent, by all its interfaces but its own loopback.

    A step has ended when its last byte is in a buffer of the kernel, which still has to send it.
    """
    time.sleep(0.2)
    received = sent = 0
    with open("/proc/net/dev", encoding="ascii") as stream:
        for line in stream.readlines()[2:]:
            name, _, counters = line.partition(":")
            if name.strip() != "lo":
                received += int(counters.split()[0])
                sent += int(counters.split()[8])
    return received, sent


parser = argparse.ArgumentParser()
parser.add_argument("how", choices=("allreduce", "synchronous", "asynchronous"))
parser.add_argument("--layers", type=int, default=12)
parser.add_argument("--width", type=int, default=192)
parser.add_argument("--warm-up", type=int, default=5)
parser.add_argument("--steps", type=int, default=15)
asked = parser.parse_args()
print(json.dumps(by_allreduce(asked) if asked.how == "allreduce" else by_servers(asked)))
