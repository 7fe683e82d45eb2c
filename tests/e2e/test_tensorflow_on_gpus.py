"""TensorFlow on nodes whose GPUs live in host memory: who pins, who does not, what is equal."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from msgspec import structs

from simgrid_ml.spec.job import EnvironmentSpec, Mpi, ParameterServer
from simgrid_ml.testing.runs import Runs, cause, evidence, log, story

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}
TWO_K80 = {"vm_size": "Standard_NC12"}


@pytest.fixture
def legacy(tensorflow: EnvironmentSpec) -> EnvironmentSpec:
    """As an estimator of 2019 asks for it."""
    return structs.replace(tensorflow, framework_version="1.13")


def snippet_of_docs(words: str) -> str:
    """The only code block of docs/tensorflow.md with these words in it."""
    text = (Path(__file__).parents[2] / "docs" / "tensorflow.md").read_text()
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", text, re.S) if words in one)
    return str(block)


KERAS = """
    import hashlib
    import horovod.tensorflow.keras as hvd
    import numpy as np

    print("sees", [gpu.name for gpu in tf.config.list_logical_devices("GPU")])

    tf.keras.utils.set_random_seed(1)
    data = np.random.RandomState(hvd.rank())
    images, labels = data.rand(256, 12, 12, 1).astype("f"), data.randint(0, 10, 256)
    model = tf.keras.Sequential([
        tf.keras.layers.Conv2D(8, 3, activation="relu", input_shape=(12, 12, 1)),
        tf.keras.layers.MaxPooling2D(), tf.keras.layers.Dropout(0.2, seed=3),
        tf.keras.layers.Flatten(), tf.keras.layers.Dense(10, activation="softmax")])
    optimizer = hvd.DistributedOptimizer(tf.keras.optimizers.Adam(0.001 * hvd.size()))
    model.compile(optimizer, "sparse_categorical_crossentropy", experimental_run_tf_function=False)
    callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(0),
                 hvd.callbacks.MetricAverageCallback()]
    history = model.fit(images, labels, 32, epochs=3, verbose=0, shuffle=False, callbacks=callbacks)
    weights = b"".join(array.tobytes() for array in model.get_weights())
    print("trained", history.history["loss"], hashlib.sha256(weights).hexdigest())
    print("on", model.weights[0].device.rpartition("/")[2])
"""


def test_pinned_ranks_train_to_the_digits_of_a_host_without_gpus(tensorflow_runs: Runs) -> None:
    script = snippet_of_docs("set_visible_devices(gpus[hvd.local_rank()]") + textwrap.dedent(KERAS)
    found = {}
    for size in ("Standard_NC12", "host"):
        record = tensorflow_runs.completed(
            script, mpi=(1, 2), cluster={"vm_size": size}, variables=QUIET
        )
        found[size] = [log(record, rank) for rank in (0, 1)]
    for with_gpus, without in zip(found["Standard_NC12"], found["host"], strict=True):
        assert "sees ['/device:GPU:0']" in with_gpus
        assert "on device:GPU:0" in with_gpus
        assert "sees []" in without
        assert "on device:CPU:0" in without
        trained = [re.findall("^trained .*", text, re.M) for text in (with_gpus, without)]
        assert len(trained[0]) == 1
        assert trained[0] == trained[1]


@pytest.mark.parametrize(
    ("growth", "said"),
    [
        ("false", "CUDA_ERROR_OUT_OF_MEMORY: out of memory; total memory reported: "),
        ("true", "UnknownError: ncclCommInitRank failed: invalid usage\nDuplicate GPU detected : "),
    ],
)
def test_ranks_that_pin_nothing_fail_as_in_the_cloud(
    tensorflow_runs: Runs, growth: str, said: str
) -> None:
    record = tensorflow_runs.failed(
        """
        import horovod.tensorflow as hvd
        import tensorflow as tf
        hvd.init()
        hvd.allreduce(tf.ones(3), name="together")
        """,
        mpi=(1, 2),
        cluster=TWO_K80,
        variables={**QUIET, "TF_FORCE_GPU_ALLOW_GROWTH": growth},
    )
    assert "exited with code 1" in cause(record), story(record)
    assert said in evidence(record)
    assert "tf.config.set_visible_devices(gpus[hvd.local_rank()], 'GPU')" in evidence(record)


WORKERS = """
    import numpy as np
    import tensorflow as tf

    words = tf.distribute.experimental
    nccl = words.CommunicationOptions(implementation=words.CommunicationImplementation.NCCL)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=nccl)
    print("replicas", strategy.num_replicas_in_sync, strategy.extended.worker_devices)
    with strategy.scope():
        model = tf.keras.Sequential([tf.keras.layers.Dense(
            1, input_shape=(4,), kernel_initializer=tf.constant_initializer(0.5))])
        model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    x = np.random.RandomState(0).rand(64, 4).astype("f")
    dataset = tf.data.Dataset.from_tensor_slices((x, x.sum(1) / 2)).batch(16)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    history = model.fit(dataset.with_options(options), epochs=3, verbose=0)
    print("trained", history.history["loss"], model.get_weights()[0].ravel().tolist())
    weight = np.full(4, 0.5), 0.0
    for _ in range(3):
        for first in range(0, 64, 16):
            rows = x[first : first + 16]
            slope = 2 * (rows @ weight[0] + weight[1] - rows.sum(1) / 2) / 16
            weight = weight[0] - 0.1 * rows.T @ slope, weight[1] - 0.1 * slope.sum()
    print("apart", np.abs(weight[0] - model.get_weights()[0].ravel()).max() < 1e-5)
"""


def test_workers_mirror_over_the_gpus_of_all_nodes(tensorflow_runs: Runs) -> None:
    record = tensorflow_runs.completed(
        WORKERS,
        distribution=ParameterServer(nodes=2, workers=2, servers=0),
        cluster=TWO_K80,
        variables=QUIET,
    )
    texts = [log(record, name) for name in ("-worker-0", "-worker-1")]
    for number, text in enumerate(texts):
        task = f"/job:worker/replica:0/task:{number}/device:GPU"
        assert f"replicas 4 ('{task}:0', '{task}:1')" in text, story(record)
        assert "apart True" in text, "as by one process"
    trained = [re.findall("^trained .*", text, re.M) for text in texts]
    assert trained[0] == trained[1]


REPLICATED = """
    import json, os, time
    import numpy as np
    import tensorflow as tf

    config = json.loads(os.environ["TF_CONFIG"])
    job, index = config["task"]["type"], config["task"]["index"]
    cluster = tf.train.ClusterSpec(config["cluster"])
    gpu_options = tf.GPUOptions(allow_growth=True)
    server = tf.train.Server(cluster, job_name=job, task_index=index,
                             config=tf.ConfigProto(gpu_options=gpu_options))
    if job == "ps":
        server.join()
    worker_device = "/job:worker/task:%d/gpu:%d" % (index, index % 2)
    with tf.device(tf.train.replica_device_setter(
            worker_device=worker_device, ps_device="/job:ps/cpu:0", cluster=cluster)):
        step = tf.Variable(0, name="global_step", trainable=False)
        weights = tf.get_variable("weights", [4, 1])
        x, y = tf.placeholder(tf.float32, [None, 4]), tf.placeholder(tf.float32, [None, 1])
        product = tf.matmul(x, weights)
        loss = tf.reduce_mean(tf.square(product - y))
        train = tf.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=step)
        init = tf.global_variables_initializer()
    print("placed", weights.device, product.device)
    supervisor = tf.train.Supervisor(
        is_chief=index == 0, init_op=init, global_step=step, recovery_wait_secs=1)
    filters = ["/job:ps", "/job:worker/task:%d" % index]
    session = supervisor.prepare_or_wait_for_session(
        server.target, config=tf.ConfigProto(device_filters=filters))
    rows = np.random.RandomState(index).rand(64, 4)
    batch = {x: rows, y: rows.sum(1, keepdims=True) / 2}
    seen = tf.RunMetadata()
    first = session.run(loss, batch)
    for _ in range(100):
        session.run(train, batch)
    session.run([train, product], batch, run_metadata=seen,
                options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE))
    for device in seen.step_stats.dev_stats:
        for node in device.node_stats:
            if node.node_name in ("MatMul", "weights"):
                print("ran", node.node_name, device.device)
    print("learnt", session.run(loss, batch) < 0.5)
    open("outputs/%d-is-done" % index, "w").close()
    while not all(os.path.exists("outputs/%d-is-done" % worker) for worker in range(2)):
        time.sleep(0.05)
"""


def test_workers_of_tensorflow_1_compute_on_gpus_and_parameter_servers_hold_variables(
    tensorflow_runs: Runs, legacy: EnvironmentSpec
) -> None:
    record = tensorflow_runs.completed(
        REPLICATED,
        environment=legacy,
        distribution=ParameterServer(nodes=2, workers=2, servers=1),
        cluster=TWO_K80,
        variables=QUIET,
    )
    for index in range(2):
        text = log(record, f"-worker-{index}")
        gpu = f"/job:worker/task:{index}/device:GPU:{index}"
        assert f"placed /job:ps/task:0/device:CPU:0 {gpu}" in text, story(record)
        ran = set(re.findall(r"^ran (\S+) (\S+)$", text, re.M))
        assert ran == {
            ("weights", "/job:ps/replica:0/task:0/device:CPU:0"),
            ("MatMul", gpu.replace("/task", "/replica:0/task")),
        }
        assert "learnt True" in text
    assert "parameter server 0 sees GPUs" in log(record, "-ps-0")


GRAPH = """
    import numpy as np
    import tensorflow as tf
    import horovod.tensorflow as hvd

    hvd.init()
    config = tf.ConfigProto(log_device_placement=True)
    config.gpu_options.allow_growth = True
    config.gpu_options.visible_device_list = str(hvd.local_rank())
    data = np.random.RandomState(7).rand(64, 4)
    x, y = tf.placeholder(tf.float32, [None, 4]), tf.placeholder(tf.float32, [None, 1])
    with tf.device("/gpu:0"):
        w = tf.get_variable("w", [4, 1], initializer=tf.constant_initializer(hvd.rank() + 1.0))
        loss = tf.losses.mean_squared_error(y, tf.matmul(x, w))
    optimizer = hvd.DistributedOptimizer(tf.train.AdamOptimizer(0.05 * hvd.size()))
    train = optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())
    hooks = [hvd.BroadcastGlobalVariablesHook(0), tf.train.StopAtStepHook(last_step=20)]
    own = data[hvd.rank()::hvd.size()]
    batch = {x: own, y: own.sum(axis=1, keepdims=True) / 2}
    with tf.train.MonitoredTrainingSession(hooks=hooks, config=config) as session:
        while not session.should_stop():
            weights, _ = session.run([w, train], batch)
    print("trained", weights.ravel().tolist(), w.device)
"""


def test_a_script_of_tensorflow_1_chooses_by_visible_device_list(
    tensorflow_runs: Runs, legacy: EnvironmentSpec
) -> None:
    record = tensorflow_runs.completed(
        GRAPH, environment=legacy, distribution=Mpi(nodes=1, processes_per_node=2), cluster=TWO_K80
    )
    texts = [log(record, rank) for rank in (0, 1)]
    trained = [re.findall("^trained .*", text, re.M) for text in texts]
    assert len(trained[0]) == 1, story(record)
    assert trained[0][0].endswith(" /device:GPU:0")
    assert trained[0] == trained[1]
    for rank, text in enumerate(texts):
        assert f"/device:GPU:0 -> device: {rank}, name: Tesla K80, pci bus id: " in text
        assert "\nMatMul: (MatMul): /job:localhost/replica:0/task:0/device:GPU:0\n" in text
