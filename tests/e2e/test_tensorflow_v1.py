"""Scripts written for TensorFlow 1, unedited: on parameter servers, with Horovod, and alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
from msgspec import structs

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.environments.build import ensure
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.job import EnvironmentSpec, Mpi, ParameterServer
from simgrid_ml.testing.runs import Runs, log, story

HOOKS = os.path.join(os.path.dirname(simgrid_ml.__file__), "shim", "hooks")
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}


@pytest.fixture
def legacy(tensorflow: EnvironmentSpec) -> EnvironmentSpec:
    """As an estimator of 2019 asks for it."""
    return structs.replace(tensorflow, framework_version="1.13")


def run_with_hooks(
    environment: EnvironmentSpec, folder: Path, script: str
) -> subprocess.CompletedProcess[str]:
    """``script`` as a task of a run in ``environment`` would run it, without nodes."""
    built = ensure(environment)
    path = folder / "python"
    path.mkdir()
    (path / "simgrid_ml").symlink_to(os.path.dirname(simgrid_ml.__file__))
    (path / "sitecustomize.py").symlink_to(os.path.join(HOOKS, "sitecustomize.py"))
    program = folder / "script.py"
    program.write_text(textwrap.dedent(script))
    variables = {"PYTHONPATH": str(path), wire.HOOKS_VARIABLE: ",".join(built.hooks), **QUIET}
    return subprocess.run(
        [built.python, str(program)], env=variables, capture_output=True, text=True, cwd=folder
    )


REPLICATED = """
    from __future__ import absolute_import, division, print_function

    import json
    import math
    import os
    import tempfile
    import time

    import tensorflow as tf
    from tensorflow.examples.tutorials.mnist import input_data

    flags = tf.app.flags
    flags.DEFINE_integer("hidden_units", 50, "Number of units in the hidden layer")
    flags.DEFINE_integer("train_steps", 200, "Number of (global) training steps")
    flags.DEFINE_boolean("sync_replicas", False, "Aggregate the gradients of all workers")
    FLAGS = flags.FLAGS


    def main(unused_argv):
        config = json.loads(os.environ["TF_CONFIG"])
        job_name, task_index = config["task"]["type"], config["task"]["index"]
        is_chief = job_name == "worker" and task_index == 0

        data_root = os.path.join("outputs", "MNIST")
        complete = os.path.join(data_root, "complete.txt")
        if is_chief:
            mnist = input_data.read_data_sets(data_root, one_hot=True)
            with open(complete, "w") as f:
                f.write("download complete")
        else:
            while not os.path.exists(complete):
                time.sleep(0.01)
            mnist = input_data.read_data_sets(data_root, one_hot=True)

        cluster = tf.train.ClusterSpec(config["cluster"])
        server = tf.train.Server(cluster, job_name=job_name, task_index=task_index)
        if job_name == "ps":
            server.join()
        num_workers = cluster.num_tasks("worker")

        with tf.device(tf.train.replica_device_setter(
                worker_device="/job:worker/task:%d" % task_index,
                ps_device="/job:ps/cpu:0", cluster=cluster)):
            global_step = tf.Variable(0, name="global_step", trainable=False)
            hid_w = tf.Variable(tf.truncated_normal(
                [784, FLAGS.hidden_units], stddev=1.0 / 28), name="hid_w")
            hid_b = tf.Variable(tf.zeros([FLAGS.hidden_units]), name="hid_b")
            sm_w = tf.Variable(tf.truncated_normal(
                [FLAGS.hidden_units, 10], stddev=1.0 / math.sqrt(FLAGS.hidden_units)), name="sm_w")
            sm_b = tf.Variable(tf.zeros([10]), name="sm_b")
            x = tf.placeholder(tf.float32, [None, 784])
            y_ = tf.placeholder(tf.float32, [None, 10])
            hid = tf.nn.relu(tf.nn.xw_plus_b(x, hid_w, hid_b))
            y = tf.nn.softmax(tf.nn.xw_plus_b(hid, sm_w, sm_b))
            loss = -tf.reduce_mean(
                tf.reduce_sum(y_ * tf.log(tf.clip_by_value(y, 1e-10, 1.0)), 1))
            opt = tf.train.AdamOptimizer(0.01)
            local_init_op = ready_for_local_init_op = None
            if FLAGS.sync_replicas:
                opt = tf.train.SyncReplicasOptimizer(
                    opt, replicas_to_aggregate=num_workers, total_num_replicas=num_workers,
                    name="mnist_sync_replicas")
            train_step = opt.minimize(loss, global_step=global_step)
            if FLAGS.sync_replicas:
                local_init_op = opt.chief_init_op if is_chief else opt.local_step_init_op
                ready_for_local_init_op = opt.ready_for_local_init_op
                chief_queue_runner = opt.get_chief_queue_runner()
                sync_init_op = opt.get_init_tokens_op()
            init_op = tf.global_variables_initializer()

        sv = tf.train.Supervisor(
            is_chief=is_chief, logdir=tempfile.mkdtemp(), init_op=init_op,
            local_init_op=local_init_op, ready_for_local_init_op=ready_for_local_init_op,
            recovery_wait_secs=1, global_step=global_step)
        sess_config = tf.ConfigProto(
            allow_soft_placement=True, log_device_placement=False,
            device_filters=["/job:ps", "/job:worker/task:%d" % task_index])
        sess = sv.prepare_or_wait_for_session(server.target, config=sess_config)
        if FLAGS.sync_replicas and is_chief:
            sess.run(sync_init_op)
            sv.start_queue_runners(sess, [chief_queue_runner])

        trace = tf.RunMetadata()
        sess.run([v.op for v in tf.trainable_variables()], run_metadata=trace,
                 options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE))
        for device in trace.step_stats.dev_stats:
            for node in device.node_stats:
                if node.node_name in ("hid_w", "hid_b", "sm_w", "sm_b"):
                    print("%s is on %s" % (node.node_name, device.device))

        validation = {x: mnist.validation.images, y_: mnist.validation.labels}
        before = sess.run(loss, feed_dict=validation)
        step = local_step = 0
        while step < FLAGS.train_steps:
            batch_xs, batch_ys = mnist.train.next_batch(50)
            _, step = sess.run([train_step, global_step], feed_dict={x: batch_xs, y_: batch_ys})
            local_step += 1
        print("%d local steps, loss from %f to %f" % (
            local_step, before, sess.run(loss, feed_dict=validation)))
        if not is_chief:
            open(os.path.join(data_root, "worker-%d-is-done" % task_index), "w").close()
        if is_chief and FLAGS.sync_replicas:
            sess.run(sync_init_op)  # tokens for those whose last ones this worker has taken
        while is_chief and len(tf.gfile.Glob(data_root + "/*-is-done")) < num_workers - 1:
            time.sleep(0.1)  # the others' last steps need the queues that run here


    if __name__ == "__main__":
        tf.app.run()
"""


def replicated_steps(record: RunRecord, servers: int) -> int:
    """Check what REPLICATED has left of two workers; gives their steps together."""
    steps, losses = 0, []
    for worker in ("-worker-0", "-worker-1"):
        text = log(record, worker)
        assert "generated pictures of digits, not MNIST" in text
        on = set(re.findall(r"^(\w+) is on (\S+)$", text, re.M))
        assert {name for name, _ in on} == {"hid_w", "hid_b", "sm_w", "sm_b"}, story(record)
        wanted = {f"/job:ps/replica:0/task:{index}/device:CPU:0" for index in range(servers)}
        assert {device for _, device in on} == wanted
        ((local, before, after),) = re.findall(r"(\d+) local steps, loss from (\S+) to (\S+)", text)
        assert int(local) > 0
        steps += int(local)
        losses += [(float(before), float(after))]
    # One may begin when the other has nearly finished; who trains first has seen no training.
    assert 2 < max(before for before, _ in losses) < 3
    assert max(after for _, after in losses) < 0.6
    names = {artifact.name for artifact in record.artifacts()}
    assert "outputs/MNIST/complete.txt" in names
    return steps


def test_a_replicated_script_trains_asynchronously_on_parameter_servers(
    tensorflow_runs: Runs, legacy: EnvironmentSpec
) -> None:
    record = tensorflow_runs.completed(
        REPLICATED,
        environment=legacy,
        distribution=ParameterServer(nodes=2, workers=2, servers=2),
        variables=QUIET,
    )
    # Each worker's step is one of the model; some more are under way when the last is seen.
    assert 200 <= replicated_steps(record, servers=2) <= 210
    kept = record.document(wire.ENVIRONMENT)
    assert kept["hooks"] == ["tensorflow_v1", "numpy_aliases"]
    assert any("1.13" in json.dumps(one) for one in kept["substitutions"])


def test_a_replicated_script_trains_synchronously_in_containers(
    tensorflow_runs: Runs, legacy: EnvironmentSpec, docker_engine: object
) -> None:
    record = tensorflow_runs.completed(
        REPLICATED,
        "--sync_replicas=True",
        "--train_steps=100",
        environment=legacy,
        distribution=ParameterServer(nodes=2, workers=2),
        cluster={"backend": "docker"},
        variables=QUIET,
    )
    # Two workers' steps make one of the model.
    assert 200 <= replicated_steps(record, servers=1) <= 210


ESTIMATOR = """
    import os
    import time

    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits

    tf.logging.set_verbosity(tf.logging.INFO)


    def model_fn(features, labels, mode):
        net = tf.layers.dense(features["x"], 64, activation=tf.nn.relu)
        logits = tf.layers.dense(net, 10)
        loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
        if mode == tf.estimator.ModeKeys.EVAL:
            accuracy = tf.metrics.accuracy(labels, tf.argmax(logits, 1))
            return tf.estimator.EstimatorSpec(
                mode, loss=loss, eval_metric_ops={"accuracy": accuracy})
        optimizer = tf.train.AdamOptimizer(0.01)
        train_op = optimizer.minimize(loss, global_step=tf.train.get_global_step())
        for variable in tf.trainable_variables():
            tf.logging.info("%s is on %s", variable.op.name, variable.device)
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


    # Nobody makes a second step before the other worker is ready for its first.
    class Together(tf.train.SessionRunHook):
        def after_create_session(self, session, coord):
            open(os.path.join("outputs", run_config.task_type), "w").close()

        def after_run(self, run_context, run_values):
            while not os.path.exists(os.path.join("outputs", "worker")):
                time.sleep(0.1)


    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    labels = digits.target.astype(np.int)
    train_input_fn = tf.estimator.inputs.numpy_input_fn(
        {"x": images}, labels, batch_size=64, num_epochs=None, shuffle=True)
    eval_input_fn = tf.estimator.inputs.numpy_input_fn(
        {"x": images}, labels, num_epochs=1, shuffle=False)
    run_config = tf.estimator.RunConfig(
        model_dir=os.path.join("outputs", "model"), log_step_count_steps=50)
    print("is the chief:", run_config.is_chief)
    tf.estimator.train_and_evaluate(
        tf.estimator.Estimator(model_fn, config=run_config),
        tf.estimator.TrainSpec(train_input_fn, max_steps=150, hooks=[Together()]),
        tf.estimator.EvalSpec(eval_input_fn))
"""


def snippet_of_docs(line: str) -> str:
    """The only code block of docs/tensorflow.md with this in it."""
    text = (Path(__file__).parents[2] / "docs" / "tensorflow.md").read_text()
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", text, re.S) if line in one)
    return str(block)


def test_an_estimator_trains_on_parameter_servers(
    tensorflow_runs: Runs, legacy: EnvironmentSpec
) -> None:
    first_worker_is_chief = snippet_of_docs('os.environ["TF_CONFIG"] = ')
    record = tensorflow_runs.completed(
        first_worker_is_chief + textwrap.dedent(ESTIMATOR),
        environment=legacy,
        distribution=ParameterServer(nodes=2, workers=2, first_worker="master"),
        variables=QUIET,
    )
    chief, worker = log(record, "-worker-0"), log(record, "-worker-1")
    assert ("is the chief: True" in chief, "is the chief: True" in worker) == (True, False)
    for text in (chief, worker):
        on = set(re.findall(r"(dense\S+) is on (\S+)", text))
        assert {name for name, _ in on} >= {"dense/kernel", "dense_1/bias"}, story(record)
        assert {device for _, device in on} == {"/job:ps/task:0"}
    first = float(re.findall(r"loss = (\S+), step = 0", chief)[0])
    last = float(re.findall(r"Loss for final step: ([\d.]+\d)", chief)[0])
    assert 2 < first < 4
    assert last < first / 2
    assert "Loss for final step: None" not in worker, "it has not made a step"
    assert "Loss for final step: " in worker
    assert any(one.name.startswith("outputs/model/model.ckpt-") for one in record.artifacts())


HOROVOD = """
    import numpy as np
    import tensorflow as tf
    import horovod.tensorflow as hvd
    import horovod.tensorflow.keras as keras_hvd

    hvd.init()
    keras_hvd.init()
    data = np.random.RandomState(7).rand(64, 4).astype(np.float)
    x = tf.placeholder(tf.float32, [None, 4])
    y = tf.placeholder(tf.float32, [None, 1])
    # Begun differently on each rank, so that they agree only if they are told to.
    w = tf.get_variable("w", [4, 1], initializer=tf.constant_initializer(hvd.rank() + 1.0))
    loss = tf.losses.mean_squared_error(y, tf.matmul(x, w))
    opt = hvd.DistributedOptimizer(tf.train.AdamOptimizer(0.05 * hvd.size()))
    global_step = tf.train.get_or_create_global_step()
    train_op = opt.minimize(loss, global_step=global_step)
    total = hvd.allreduce(tf.constant([hvd.rank() + 1.0]), average=False)
    hooks = [hvd.BroadcastGlobalVariablesHook(0), tf.train.StopAtStepHook(last_step=40)]
    with tf.train.MonitoredTrainingSession(hooks=hooks) as session:
        print("sum", session.run(total))
        own = data[hvd.rank()::hvd.size()]
        losses = []
        while not session.should_stop():
            value, weights, _ = session.run(
                [loss, w, train_op], {x: own, y: own.sum(axis=1, keepdims=True) / 2})
            losses.append(value)
    print("graph", losses[0], losses[-1], weights.ravel().tolist())

    tf.keras.backend.clear_session()
    model = tf.keras.Sequential([tf.keras.layers.Dense(
        1, input_shape=(4,), kernel_initializer=tf.constant_initializer(-1.0 * hvd.rank()))])
    model.compile(keras_hvd.DistributedOptimizer(tf.keras.optimizers.Adam(lr=0.01)), "mse")
    history = model.fit(
        own, own.sum(axis=1), epochs=3, verbose=0, batch_size=8,
        callbacks=[keras_hvd.callbacks.BroadcastGlobalVariablesCallback(0),
                   keras_hvd.callbacks.MetricAverageCallback(),
                   keras_hvd.callbacks.LearningRateWarmupCallback(warmup_epochs=2, verbose=1),
                   keras_hvd.callbacks.LearningRateScheduleCallback(lambda epoch: 1.0, 2),
                   ]).history["loss"]
    print("keras", history[0], history[-1], model.get_weights()[0].ravel().tolist())
"""


def test_horovod_trains_graphs_and_keras_models_of_tensorflow_1(
    tensorflow_runs: Runs, legacy: EnvironmentSpec
) -> None:
    record = tensorflow_runs.completed(
        HOROVOD,
        environment=legacy,
        distribution=Mpi(nodes=2),
        variables=QUIET,
    )
    texts = [log(record, rank) for rank in (0, 1)]
    for text in texts:
        assert "sum [3.]" in text, story(record)
        for what in ("graph", "keras"):
            ((first, last),) = re.findall(rf"^{what} (\S+) (\S+) \[", text, re.M)
            assert float(last) < float(first)
    ends = [re.findall(r"^(?:graph|keras) .*(\[.*\])$", text, re.M) for text in texts]
    assert "finished gradual learning rate warmup to 0.01." in texts[0], "the optimizer's"
    assert len(ends[0]) == 2
    assert ends[0] == ends[1], "ranks that train together have one model"


ALONE = """
    import keras
    from keras import backend as K
    from keras.layers.core import Dense
    from keras.utils import np_utils

    import numpy as np
    import tensorflow as tf
    import tensorflow.keras.backend
    from tensorflow.keras.layers import Dense as TensorflowDense
    from tensorflow.python.client import device_lib

    if tf.__version__ >= "2":
        raise SystemExit("this script was written for TensorFlow 1")
    if int(tf.VERSION.split(".")[0]) != 1 or hasattr(tf, "contrib"):
        raise SystemExit("not TensorFlow 1, or one with contrib")
    assert tensorflow.keras.backend.get_session is tf.keras.backend.get_session
    assert device_lib.list_local_devices()[0].device_type == "CPU"
    assert not tf.executing_eagerly()
    assert tf.gfile.Exists(__file__) and tf.GraphKeys.GLOBAL_VARIABLES == "variables"

    x = tf.placeholder(tf.float32, shape=(None, 3))
    assert x.get_shape()[1].value == 3
    with tf.variable_scope("scope", reuse=tf.AUTO_REUSE):
        v = tf.get_variable("v", shape=(3, 2))
    assert v.dtype._is_ref_dtype
    cell = tf.nn.rnn_cell.BasicLSTMCell(4)
    outputs, _ = tf.nn.dynamic_rnn(cell, tf.zeros((2, 5, 3)), dtype=tf.float32)
    iterator = tf.data.Dataset.from_tensor_slices(np.arange(6)).batch(2).make_one_shot_iterator()
    element = iterator.get_next()
    session_config = tf.ConfigProto()
    session_config.gpu_options.allow_growth = True
    with tf.Session(config=session_config) as sess:
        sess.run(tf.global_variables_initializer())
        assert sess.run(outputs).shape == (2, 5, 4)
        assert sess.run(element).tolist() == [0, 1] and sess.run(element).tolist() == [2, 3]
        assert sess.run(tf.matmul(x, v), {x: np.ones((4, 3), np.float)}).shape == (4, 2)

    K.set_session(tf.Session(config=session_config))
    model = keras.models.Sequential([Dense(8, input_shape=(3,)), TensorflowDense(2)])
    model.compile(optimizer=keras.optimizers.Adadelta(lr=1.0), loss="mse", metrics=["accuracy"])
    data = np.random.rand(64, 3)
    history = model.fit(data, np_utils.to_categorical(data[:, 0] > 0.5), epochs=20, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert len(K.get_session().graph.get_operations()) > 50

    for statement in ("tf.contrib.layers", "import tensorflow.contrib.slim as slim",
                      "from tensorflow.contrib import slim", "from tensorflow import contrib"):
        try:
            exec(statement)
        except (AttributeError, ImportError) as error:
            print(error)
    print("complete")
"""


def test_a_script_for_one_process_finds_the_names_and_the_behaviour_of_then(
    legacy: EnvironmentSpec, tmp_path: Path
) -> None:
    done = run_with_hooks(legacy, tmp_path, ALONE)
    *contrib, end = done.stdout.splitlines()
    assert end == "complete", done.stderr
    assert len(contrib) == 4
    assert len(set(contrib)) == 1
    assert re.match(r"TensorFlow 1 .* by TensorFlow 2\.15\.1, .* no tf\.contrib. Try: ", contrib[0])
    assert "simgrid-ml:" not in done.stderr


MNIST = """
    import gzip, hashlib, os, struct, sys
    import numpy as np
    sys.path.insert(0, os.path.join(sys.argv[1], "tensorflow_1", "examples", "tutorials", "mnist"))
    import input_data


    def write(name, magic, values):
        with gzip.open(os.path.join("files", name), "wb") as f:
            f.write(struct.pack(">%dI" % (1 + values.ndim), magic, *values.shape))
            f.write(values.astype(np.uint8).tobytes())


    def refused(kind, word, **options):
        try:
            input_data.read_data_sets("files", **options)
        except kind as error:
            assert word in str(error), error
        else:
            raise AssertionError("not refused: " + word)


    os.mkdir("files")
    for name, count in ("train", 60), ("t10k", 20):
        pictures = np.arange(count)[:, None, None] * np.ones((1, 28, 28))
        write(name + "-images-idx3-ubyte.gz", 2051, pictures)
        write(name + "-labels-idx1-ubyte.gz", 2049, np.arange(count) % 10)

    mnist = input_data.read_data_sets("files", validation_size=10, dtype=np.uint8)
    assert [each.num_examples for each in mnist] == [50, 10, 20]
    assert mnist.validation.images[:, 783].tolist() == list(range(10))
    assert mnist.train.images.dtype == mnist.train.labels.dtype == np.uint8
    order = mnist.train.images[:, 0].tolist()
    assert mnist.train.next_batch(7, shuffle=False)[0][:, 0].tolist() == order[:7]
    seen = []
    mnist = input_data.read_data_sets("files", validation_size=10, dtype=np.uint8, seed=5)
    while mnist.train.epochs_completed < 2:
        images, labels = mnist.train.next_batch(8)
        assert (images[:, 0] % 10 == labels).all() and len(labels) == 8
        seen += images[:, 0].tolist()
    assert sorted(seen[:50]) == sorted(seen[50:100]) == sorted(order)
    assert seen[:50] != seen[50:100] != order
    assert len(mnist.train.next_batch(120)[0]) == 120
    again = input_data.read_data_sets("files", validation_size=10, dtype=np.uint8, seed=5)
    assert again.train.next_batch(50)[0][:, 0].tolist() == seen[:50]

    mnist = input_data.read_data_sets("files", True, one_hot=True)
    assert np.shape(mnist.test.next_batch(3)[0]) == (3, 784)
    mnist = input_data.read_data_sets("files", False, True, reshape=False, validation_size=0)
    assert mnist.test.images.shape == (20, 28, 28, 1) and mnist.test.images.dtype == np.float32
    assert abs(mnist.test.images[19, 0, 0, 0] - 19 / 255) < 1e-6
    assert mnist.train.labels.shape == (60, 10) and mnist.train.labels[13].argmax() == 3
    mnist = input_data.read_data_sets("files", validation_size=0)
    assert mnist.train.num_examples == 60 and mnist.validation.images.shape == (0, 784)
    assert len(mnist.validation.next_batch(3)[0]) == 0
    refused(ValueError, "validation_size")
    os.rename("files/t10k-labels-idx1-ubyte.gz", "other")
    refused(OSError, "t10k-labels-idx1-ubyte.gz")
    os.rename("files/t10k-images-idx3-ubyte.gz", "files/t10k-labels-idx1-ubyte.gz")
    os.rename("other", "files/t10k-images-idx3-ubyte.gz")
    refused(ValueError, "t10k-images-idx3-ubyte.gz")
    whole = open("files/train-images-idx3-ubyte.gz", "rb").read()
    picture = gzip.decompress(whole)[:-1]
    for content in b"<html>", b"", whole[:-9], gzip.compress(picture), gzip.compress(b"ab"):
        with open("files/t10k-images-idx3-ubyte.gz", "wb") as f:
            f.write(content)
        refused(ValueError, "t10k-images-idx3-ubyte.gz is not a file of MNIST")

    print("-- from here on without files", file=sys.stderr)
    mnist = input_data.read_data_sets("none/of them", one_hot=True)
    assert os.listdir("none/of them") == []
    assert [each.num_examples for each in mnist] == [5500, 500, 1000]
    assert mnist.train.images.dtype == np.float32 and mnist.train.images.shape == (5500, 784)
    assert 0 == mnist.train.images.min() and 0.9 < mnist.train.images.max() <= 1
    assert mnist.test.labels.sum(0).min() > 50
    assert not np.array_equal(mnist.validation.images, mnist.test.images[:500])
    # Straight lines between the classes tell most of them, but not all.
    ones = np.ones((5500, 1))
    line = np.linalg.lstsq(
        np.hstack([mnist.train.images, ones]), mnist.train.labels, rcond=None)[0]
    guess = np.hstack([mnist.test.images, ones[:1000]]).dot(line).argmax(1)
    right = (guess == mnist.test.labels.argmax(1)).mean()
    assert 0.7 < right < 0.99, right
    print(hashlib.sha256(mnist.train.images.tobytes()).hexdigest())
"""


def test_mnist_is_read_where_its_files_are_and_replaced_by_pictures_where_not(
    tensorflow: EnvironmentSpec, tmp_path: Path
) -> None:
    digests = set()
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        done = subprocess.run(
            [ensure(tensorflow).python, "-c", textwrap.dedent(MNIST), HOOKS],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        before, after = done.stderr.split("-- from here on without files\n")
        assert before == ""
        assert after.startswith("simgrid-ml: none/of them has none of MNIST's files")
        assert "generated pictures of digits, not MNIST" in after
        assert after.count("\n") == 1
        digests.add(done.stdout)
    assert len(digests) == 1, "every task has the same pictures"
