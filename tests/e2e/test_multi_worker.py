"""``MultiWorkerMirroredStrategy``: workers without parameter servers, found by ``TF_CONFIG``."""

from __future__ import annotations

import json
import zipfile

import pytest

from simgrid_ml.azure import (
    AmlCompute,
    ComputeTarget,
    Experiment,
    Workspace,
)
from simgrid_ml.azure.dnn import TensorFlow
from simgrid_ml.azure.runconfig import TensorflowConfiguration
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.job import EnvironmentSpec, ParameterServer
from simgrid_ml.testing.runs import Runs, cause, log, story

WORKERS = ParameterServer(servers=0, workers=2, nodes=2)

HEAD = """
    import hashlib, json, os, signal, time
    import numpy as np
    import tensorflow as tf

    ring = tf.distribute.experimental.CommunicationImplementation.RING
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(
            implementation=ring))
    index = strategy.cluster_resolver.task_id
"""

TRAIN = """
    from sklearn.datasets import load_digits

    RATE, BATCH, STEPS, EPOCHS = 0.5, 240, 6, 2
    digits = load_digits()
    rows = (digits.data[: BATCH * STEPS] / 16).astype("float32")
    labels = digits.target[: BATCH * STEPS]

    def initial(index):
        return np.random.RandomState(index).normal(0, 0.1, (64, 10)).astype("float32")

    def alone(weights, bias):
        "The same training by one process with whole batches, and without TensorFlow."
        for step in range(STEPS * EPOCHS):
            batch = slice(step % STEPS * BATCH, (step % STEPS + 1) * BATCH)
            x, y = rows[batch], labels[batch]
            odds = np.exp(x @ weights + bias)
            slopes = (odds / odds.sum(1, keepdims=True) - np.eye(10)[y]) / BATCH
            weights, bias = weights - RATE * x.T @ slopes, bias - RATE * slopes.sum(0)
        return weights, bias

    with strategy.scope():  # which gives all workers what the first one begins with
        begin = tf.keras.initializers.Constant(initial(index))
        model = tf.keras.Sequential(
            [tf.keras.layers.Dense(10, input_shape=(64,), kernel_initializer=begin)])
        model.compile(
            tf.keras.optimizers.SGD(RATE),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = tf.data.Dataset.from_tensor_slices((rows, labels)).batch(BATCH)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    losses = model.fit(data.with_options(options), epochs=EPOCHS, verbose=0).history["loss"]
    weights = model.get_weights()
    by_one = alone(initial(0), np.zeros(10))
    # All of them have to save; what the others save is for nobody.
    model.save("outputs/model.keras" if index == 0 else os.environ["TMPDIR"] + "/model.keras")
    print(json.dumps({
        "config": json.loads(os.environ["TF_CONFIG"]),
        "replicas": strategy.num_replicas_in_sync,
        "node": os.uname().nodename,
        "losses": losses,
        "apart": float(max(abs(a - b).max() for a, b in zip(weights, by_one))),
        "weights": hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest(),
    }))
"""


def assert_trained_together(record: RunRecord) -> None:
    found = [json.loads(log(record, f"-worker-{n}").splitlines()[-1]) for n in range(2)]
    hosts = found[0]["config"]["cluster"]["worker"]
    assert len(set(hosts)) == 2
    for index, told in enumerate(found):
        assert told["config"] == {
            "cluster": {"worker": hosts},
            "task": {"type": "worker", "index": index},
            "environment": "cloud",
        }
        assert told["replicas"] == 2 and told["node"] == f"node{index}", story(record)
        assert told["apart"] < 1e-5 and told["losses"][1] < 0.9 * told["losses"][0], told
        assert told["weights"] == found[0]["weights"], "every worker has the same"
    assert zipfile.is_zipfile(record.artifact("outputs/model.keras").path)


def test_workers_of_an_estimator_train_one_model_as_one_process_would(
    tensorflow_runs: Runs, tensorflow: EnvironmentSpec
) -> None:
    workspace = Workspace.local()
    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=2)
    estimator = TensorFlow(
        tensorflow_runs.source({"train.py": HEAD + TRAIN}),
        compute_target=ComputeTarget.create(workspace, "cpucluster", config),
        entry_script="train.py",
        node_count=2,
        distributed_training=TensorflowConfiguration(worker_count=2, parameter_server_count=0),
        framework_version=tensorflow.framework_version,
        conda_packages=list(tensorflow.conda),
        pip_packages=list(tensorflow.pip),
    )
    run = Experiment(workspace, "mirrored").submit(estimator)
    record = tensorflow_runs.ended(RunStore.of_workspace("local").open(run.id))
    assert record.state is RunState.COMPLETED, story(record)
    assert_trained_together(record)


@pytest.mark.usefixtures("docker_engine")
def test_workers_in_containers_train_one_model_as_one_process_would(tensorflow_runs: Runs) -> None:
    docker = {"backend": "docker"}
    record = tensorflow_runs.completed(HEAD + TRAIN, distribution=WORKERS, cluster=docker)
    assert_trained_together(record)


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_is_killed_is_the_first_cause(tensorflow_runs: Runs, index: int) -> None:
    script = f"""
    ones = tf.ones(1000)
    @tf.function
    def step():
        return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", ones))
    step()
    if index == {index}:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        step()
    """
    record = tensorflow_runs.failed(HEAD + script, distribution=WORKERS)
    said = f"worker {index} on node{index} was ended by SIGKILL"
    assert cause(record).startswith(said), story(record)
