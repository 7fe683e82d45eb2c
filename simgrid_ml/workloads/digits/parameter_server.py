"""Handwritten digits on a parameter server: TensorFlow between graphs, logged to Azure ML.

The network's variables live on the parameter servers. Every worker reads them, computes gradients
on its share of the pictures, and has them applied where the variables are, without waiting for the
other workers: asynchronous training. Every task finds the others in the variable ``TF_CONFIG``.
"""

import argparse
import json
import os
import time

import digits
import numpy as np
import tensorflow as tf

v1 = tf.compat.v1  # graphs and sessions, as TensorFlow 1 had them


class Graph:
    """The network: variables on the parameter servers, everything else on this worker."""

    def __init__(self, cluster, worker, learning_rate):
        with v1.device(v1.train.replica_device_setter(worker_device=worker, cluster=cluster)):
            self.pictures = v1.placeholder(tf.float32, (None, 8, 8))
            self.labels = v1.placeholder(tf.int64, (None,))
            hidden = tf.nn.relu(layer("hidden", tf.reshape(self.pictures, (-1, 64)), 64, 128))
            logits = layer("digits", hidden, 128, 10)
            self.loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=self.labels, logits=logits)
            )
            correct = tf.equal(tf.argmax(logits, 1), self.labels)
            self.accuracy = tf.reduce_mean(tf.cast(correct, tf.float32))
            self.weights = v1.trainable_variables()
            self.train = v1.train.GradientDescentOptimizer(learning_rate).minimize(self.loss)
            # Workers count themselves in a variable of their own making: so they can meet.
            self.arrivals = v1.get_variable("arrivals", (), tf.int32, v1.zeros_initializer())
            self.arrive = self.arrivals.assign_add(1)
            self.variables = v1.global_variables()
            self.initialize = v1.global_variables_initializer()
            self.missing = v1.report_uninitialized_variables()


def layer(name, inputs, width, units):
    weights = v1.get_variable(name + "/weights", (width, units))
    bias = v1.get_variable(name + "/bias", (units,), initializer=v1.zeros_initializer())
    return tf.matmul(inputs, weights) + bias


def wait_until(condition):
    while not condition():
        time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32, help="per worker")
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    config = json.loads(os.environ["TF_CONFIG"])
    role, index = config["task"]["type"], config["task"]["index"]
    cluster = tf.train.ClusterSpec(config["cluster"])
    workers = cluster.num_tasks("worker")
    print(f"{role} {index} on {os.uname().nodename}: {cluster.as_dict()}", flush=True)
    # A parameter server would take the memory of GPUs that a worker beside it needs.
    settings = v1.ConfigProto(device_count={"GPU": 0} if role == "ps" else {})
    server = tf.distribute.Server(cluster, job_name=role, task_index=index, config=settings)
    if role == "ps":
        server.join()  # never returns: the run ends it when all workers have ended

    v1.disable_eager_execution()
    v1.set_random_seed(args.seed)
    worker = f"/job:worker/task:{index}"
    graph = Graph(cluster, worker, args.learning_rate)
    first = index == 0
    if first:
        for variable in graph.variables:
            print(f"{variable.name} lives on {variable.device}", flush=True)

    train, test = digits.load_data()
    test = {graph.pictures: test[0], graph.labels: test[1]}
    # Sees the parameter servers and itself alone, so other workers may end whenever they like.
    settings = v1.ConfigProto(device_filters=["/job:ps", worker], intra_op_parallelism_threads=1)
    with v1.Session(server.target, config=settings) as session:
        if first:
            session.run(graph.initialize)
        wait_until(lambda: session.run(graph.missing).size == 0)
        session.run(graph.arrive)
        wait_until(lambda: session.run(graph.arrivals) >= workers)

        report = digits.Report(args.epochs) if first else None
        for epoch in range(1, args.epochs + 1):
            began, losses = time.time(), []
            share = digits.batches(train, args.batch_size, index, workers, args.seed + epoch)
            for pictures, labels in share:
                batch = {graph.pictures: pictures, graph.labels: labels}
                loss, _ = session.run([graph.loss, graph.train], batch)
                losses.append(loss)
            loss = float(np.mean(losses))
            digits.note(f"worker-{index}", f"epoch {epoch}: own loss {loss:.4f}")
            if report:
                test_loss, accuracy = session.run([graph.loss, graph.accuracy], test)
                report.epoch(loss, float(test_loss), float(accuracy), time.time() - began)

        session.run(graph.arrive)
        print(f"worker {index} has seen its share {args.epochs} times", flush=True)
        if report:  # with what all workers have taught it
            wait_until(lambda: session.run(graph.arrivals) >= 2 * workers)
            weights = session.run({variable.op.name: variable for variable in graph.weights})
            np.savez("outputs/model.npz", **weights)
            report.end("outputs/model.npz", float(session.run(graph.accuracy, test)))


if __name__ == "__main__":
    main()
