"""TensorFlow's view of GPUs that live in host memory: one process that looks at all of it.

Programs run in TensorFlow's environment with the hooks of a run and a ledger, but without nodes.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.environments.build import ensure
from simgrid_ml.node.gpu_ledger import Gpu, Ledger, create
from simgrid_ml.spec.job import EnvironmentSpec

HOOKS = os.path.join(os.path.dirname(simgrid_ml.__file__), "shim", "hooks")
MIB = 2**20
K80_BYTES = 11441 * MIB


class Node:
    """A node with two K80, without the node.

    Attributes:
        ledger: path of its ledger.
    """

    def __init__(self, folder: Path, python: str) -> None:
        self._folder = folder
        self._python = python
        self._path = folder / "python"
        self._path.mkdir()
        (self._path / "simgrid_ml").symlink_to(os.path.dirname(simgrid_ml.__file__))
        (self._path / "sitecustomize.py").symlink_to(os.path.join(HOOKS, "sitecustomize.py"))
        self.ledger = str(folder / "ledger")
        gpus = [
            Gpu("Tesla K80", f"GPU-{i}", f"00000001:0{i}:00.0", K80_BYTES, 13, (3, 7))
            for i in range(2)
        ]
        create(self.ledger, gpus, driver="470.256.02", cuda="11.4", node="node0")

    def run(
        self, script: str, *arguments: str, hooks: str = "virtual_tensorflow"
    ) -> tuple[str, str]:
        """What ``script``, which has to end well, wrote to stdout and stderr."""
        program = self._folder / f"{uuid.uuid4().hex}.py"
        program.write_text(textwrap.dedent(script))
        variables = {
            "PYTHONPATH": str(self._path),
            wire.HOOKS_VARIABLE: hooks,
            wire.GPU_LEDGER_VARIABLE: self.ledger,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "HOME": str(self._folder),
        }
        done = subprocess.run(
            [self._python, str(program), *arguments],
            env=variables,
            capture_output=True,
            text=True,
            cwd=self._folder,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout[-500:] + done.stderr[-6000:]
        assert "failed, and the script goes on" not in done.stderr, "a hook did not"
        assert "this TensorFlow has no " not in done.stderr
        return done.stdout, done.stderr


def together(*runs: Callable[[], tuple[str, str]]) -> list[tuple[str, str]]:
    with ThreadPoolExecutor(len(runs)) as pool:
        return [run.result() for run in [pool.submit(one) for one in runs]]


@pytest.fixture
def node(tensorflow: EnvironmentSpec, tmp_path: Path) -> Node:
    return Node(tmp_path, ensure(tensorflow).python)


@pytest.fixture
def occupied(node: Node) -> Iterator[Ledger]:
    """Another process of the node has half of the first GPU: the one of this test."""
    ledger = Ledger(node.ledger)
    ledger.claim(rank=0, visible=[0])
    ledger.put(0, K80_BYTES // 2)
    yield ledger
    ledger.close()


SURFACE = """
    import os, tempfile, threading
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.client import device_lib
    from simgrid_ml.node.gpu_ledger import Ledger

    HERE = "/job:localhost/replica:0/task:0/device:"
    MIB = 2**20

    def last(tensor):
        assert tensor.device.startswith(HERE), tensor.device
        return tensor.device[len(HERE):]

    def refused(kind, words, function, *arguments):
        try:
            function(*arguments)
        except kind as error:
            assert words in str(error), error
            return str(error)
        raise AssertionError("not refused: " + words)

    # -- what there is, before anything is used -------------------------------------------------
    cpus, gpus = (tf.config.list_physical_devices(kind) for kind in ("CPU", "GPU"))
    assert [gpu.name for gpu in gpus] == ["/physical_device:GPU:0", "/physical_device:GPU:1"]
    assert tf.config.list_physical_devices() == cpus + gpus and len(cpus) == 1
    assert tf.config.get_visible_devices("GPU") == gpus
    assert tf.config.experimental.get_memory_growth(gpus[0]) is None
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        assert details == {"device_name": "Tesla K80", "compute_capability": (3, 7)}
    assert tf.config.experimental.get_device_details(cpus[0]) == {}
    assert not list(Ledger(os.environ["SIMGRID_ML_GPU_LEDGER"]).rows()), "nothing is used yet"

    # -- where operations are -------------------------------------------------------------------
    assert [(one.name, one.device_type) for one in tf.config.list_logical_devices()] == [
        ("/device:CPU:0", "CPU"), ("/device:GPU:0", "GPU"), ("/device:GPU:1", "GPU")]
    x = tf.constant([1.0, 2.0])
    assert last(x) == last(x + 1) == last(tf.Variable(x)) == "GPU:0", "unplaced"
    assert last(tf.constant("text")) == "CPU:0", "no GPU holds text"
    for scope, device in (("/GPU:1", "GPU:1"), ("gpu:0", "GPU:0"), ("/cpu:0", "CPU:0"),
                          (tf.config.list_logical_devices()[2], "GPU:1")):
        with tf.device(scope):
            made = [tf.constant([1.0]), x * 2, tf.Variable(x), tf.random.normal([2])]
            assert {last(one) for one in made} == {device}, scope
            with tf.device(None):
                assert last(x + 1) == "GPU:0"
        assert made[1].backing_device == HERE + device
    assert last(x.gpu(1)) == "GPU:1" and last(x.cpu()) == "CPU:0"
    with tf.device("/gpu:1"):
        assert last(tf.identity(made[0])) == "GPU:1"
    assert (made[0] + x.gpu(1)).numpy().tolist() == [2.0, 3.0]

    @tf.function
    def placed(a):
        with tf.device("/gpu:1"):
            b = a + 1
        with tf.device("/cpu:0"):
            c = b * 2
        assert (b.device, c.device, c.op.device) == ("/device:GPU:1", "/device:CPU:0", c.op.device)
        return b, c

    assert [one.numpy().tolist() for one in placed(x)] == [[2, 3], [4, 6]]
    graph = placed.get_concrete_function(x).graph.as_graph_def()
    assert {node.name: node.device for node in graph.node if node.name in ("add", "mul")} == {
        "add": "/device:GPU:1", "mul": "/device:CPU:0"}
    seen = []
    thread = threading.Thread(target=lambda: seen.append(last(tf.ones(2) + 1)))
    thread.start()
    thread.join()
    assert seen == ["GPU:0"], "in every thread"
    with tf.GradientTape() as tape, tf.device("/gpu:1"):
        weights = tf.Variable([1.0, 2.0])
        square = tf.reduce_sum(weights * weights)
    assert tape.gradient(square, weights).numpy().tolist() == [2.0, 4.0]

    # -- GPUs that are not there ----------------------------------------------------------------
    with tf.device("/GPU:7"):
        assert last(x + 1) == "GPU:0", "as soft placement has it"
        x + 2
    tf.config.set_soft_device_placement(False)
    with tf.device("/GPU:7"):
        said = refused(tf.errors.InvalidArgumentError, "Could not satisfy device specification",
                       lambda: x + 1)
    assert "GPU:7" in said, said
    assert all(HERE + name in said for name in ("CPU:0", "GPU:0", "GPU:1")), said
    assert "CPU:1" not in said, "names of ours"
    tf.config.set_soft_device_placement(True)

    # -- once in use ----------------------------------------------------------------------------
    for change in (
        lambda: tf.config.set_visible_devices(gpus[0], "GPU"),
        lambda: tf.config.experimental.set_memory_growth(gpus[0], True),
        lambda: tf.config.set_logical_device_configuration(
            gpus[0], [tf.config.LogicalDeviceConfiguration(memory_limit=100)]),
    ):
        refused(RuntimeError, "cannot be modified after being initialized", change)
    refused(ValueError, "Unrecognized device", tf.config.experimental.get_memory_growth,
            tf.config.PhysicalDevice("/physical_device:GPU:2", "GPU"))
    assert tf.test.gpu_device_name() == "/device:GPU:0"
    assert tf.test.is_gpu_available() and tf.test.is_gpu_available(True, (3, 0))
    assert not tf.test.is_gpu_available(True, (5, 0))
    local = device_lib.list_local_devices()
    assert [one.name for one in local] == ["/device:CPU:0", "/device:GPU:0", "/device:GPU:1"]
    assert [one.device_type for one in local] == ["CPU", "GPU", "GPU"]
    assert local[2].physical_device_desc == (
        "device: 1, name: Tesla K80, pci bus id: 00000001:01:00.0, compute capability: 3.7")
    assert 0.9 < local[2].memory_limit / (11441 * MIB) < 0.95

    # -- memory ---------------------------------------------------------------------------------
    (row,) = Ledger(os.environ["SIMGRID_ML_GPU_LEDGER"]).rows()
    assert row.pid == os.getpid() and row.visible == row.used == (0, 1)
    assert all(0.9 < taken / (11441 * MIB) < 0.95 for taken in row.bytes), "without growth"
    before = tf.config.experimental.get_memory_info("GPU:0")
    large = tf.ones([64 * MIB // 4])
    after = tf.config.experimental.get_memory_info("GPU:0")
    # Of several GPUs each counts as much as the others.
    assert 32 * MIB <= after["current"] - before["current"] < 40 * MIB, (before, after)
    del large
    assert tf.config.experimental.get_memory_info("GPU:1")["peak"] >= 32 * MIB
    tf.config.experimental.reset_memory_stats("GPU:0")
    assert tf.config.experimental.get_memory_info("GPU:0")["peak"] < 32 * MIB
    said = refused(tf.errors.ResourceExhaustedError, "on " + HERE + "GPU:0 by allocator GPU_0_bfc",
                   lambda: tf.ones([30 * 2**30 // 4]))
    assert "OOM when allocating tensor with shape[8053063680]" in said and "[simgrid-ml]" in said

    # -- strategies -----------------------------------------------------------------------------
    def replicas(strategy):
        with strategy.scope():
            weight = tf.Variable(2.0)

        @tf.function
        def step():
            context = tf.distribute.get_replica_context()
            own = tf.cast(context.replica_id_in_sync_group + 1, tf.float32) * weight
            return context.all_reduce("SUM", own), own

        total, own = strategy.run(step)
        return ([last(one) for one in strategy.experimental_local_results(weight)],
                [float(one) for one in strategy.experimental_local_results(total)],
                float(strategy.reduce("MEAN", own, axis=None)))

    mirrored, both = tf.distribute.MirroredStrategy, ["/gpu:0", "/gpu:1"]
    assert mirrored().extended.worker_devices == (HERE + "GPU:0", HERE + "GPU:1")
    for strategy in (mirrored(), mirrored(both), mirrored(None, tf.distribute.NcclAllReduce()),
                     mirrored(both, tf.distribute.HierarchicalCopyAllReduce())):
        assert replicas(strategy) == (["GPU:0", "GPU:1"], [6.0, 6.0], 3.0), strategy
    with tf.distribute.OneDeviceStrategy("/gpu:1").scope():
        assert last(tf.Variable(1.0)) == "GPU:1"
    central = tf.distribute.experimental.CentralStorageStrategy()
    with central.scope():
        assert last(tf.Variable(1.0)) == "CPU:0"
    assert len(central.extended.worker_devices) == 2
    dataset = tf.data.Dataset.range(8).map(lambda n: 2 * n)
    for element in dataset.apply(tf.data.experimental.prefetch_to_device("/gpu:1")):
        assert last(element) == "GPU:1"

    # -- what GPUs do otherwise -----------------------------------------------------------------
    assert tf.test.is_built_with_cuda()
    pictures, kernel = tf.random.normal([2, 8, 8, 3]), tf.random.normal([3, 3, 3, 4])
    turned = tf.transpose(pictures, [0, 3, 1, 2])
    first = tf.nn.conv2d(turned, kernel, 1, "SAME", data_format="NCHW")
    last_one = tf.nn.conv2d(pictures, kernel, 1, "SAME")
    assert np.allclose(tf.transpose(first, [0, 2, 3, 1]), last_one, atol=1e-4)
    sequence = tf.ones([2, 3, 4])
    for layer in (tf.keras.layers.LSTM(5), tf.keras.layers.GRU(5)):
        assert np.allclose(layer(sequence), tf.function(layer)(sequence), atol=1e-6)

    # -- kept and read again --------------------------------------------------------------------
    folder = tempfile.mkdtemp(dir=os.getcwd())
    with tf.device("/gpu:1"):
        weights = tf.Variable([5.0])
    kept = tf.train.Checkpoint(weights=weights).save(folder + "/checkpoint")
    weights.assign([0.0])
    tf.train.Checkpoint(weights=weights).restore(kept)
    assert weights.numpy() == 5.0 and last(weights) == "GPU:1"
    module = tf.Module()
    module.go = tf.function(lambda a: placed(a)[1], input_signature=[tf.TensorSpec([2])])
    tf.saved_model.save(module, folder + "/model")
    assert tf.saved_model.load(folder + "/model").go(x).numpy().tolist() == [4.0, 6.0]

    # -- what is where, as TensorFlow tells -----------------------------------------------------
    tf.debugging.set_log_device_placement(True)
    with tf.device("/gpu:1"):
        tf.matmul([[1.0]], [[2.0]])
    tf.debugging.set_log_device_placement(False)
    tf.matmul([[1.0]], [[3.0]])
    print("complete")
"""


def test_a_process_finds_configures_and_uses_two_gpus(node: Node) -> None:
    out, err = node.run(SURFACE)
    assert out.endswith("complete\n")
    said = [line for line in err.splitlines() if line.startswith("[simgrid-ml] ")]
    assert len(said) == 1, "once, however often"
    assert "device:GPU:7'): this process sees GPU:0, GPU:1. With soft placement" in said[0]
    assert err.count("Executing op MatMul in device") == 1
    assert "MatMul in device /job:localhost/replica:0/task:0/device:GPU:1\n" in err


LIMITS = """
    import os
    import tensorflow as tf
    from simgrid_ml.node.gpu_ledger import Ledger

    Limit = tf.config.LogicalDeviceConfiguration
    ledger = Ledger(os.environ["SIMGRID_ML_GPU_LEDGER"])
    try:
        tf.constant(1.0)
    except tf.errors.InternalError as error:
        assert "CUDA_ERROR_OUT_OF_MEMORY: out of memory; total memory reported: 11996758016" in (
            str(error)), error
        assert "have 5720 MiB of this GPU, a Tesla K80" in str(error)
    else:
        raise AssertionError("taken twice")
    assert [row.bytes[1] for row in ledger.rows()] == [0, 0], "given back"

    gpus, (cpu,) = tf.config.list_physical_devices("GPU"), tf.config.list_physical_devices("CPU")
    tf.config.set_visible_devices(gpus[1], "GPU")
    tf.config.set_logical_device_configuration(gpus[1], [Limit(memory_limit=100), Limit(200)])
    tf.config.set_logical_device_configuration(cpu, [Limit(), Limit()])
    for words, change in (
        ("when virtual devices", lambda: tf.config.experimental.set_memory_growth(gpus[1], True)),
        ("memory limit is required",
         lambda: tf.config.set_logical_device_configuration(gpus[0], [Limit()])),
    ):
        try:
            change()
        except ValueError as error:
            assert words in str(error)
        else:
            raise AssertionError("not refused: " + words)
    names = ["/device:CPU:0", "/device:CPU:1", "/device:GPU:0", "/device:GPU:1"]
    assert [one.name for one in tf.config.list_logical_devices()] == names
    for name in names:
        with tf.device(name):
            assert tf.ones(3).device == "/job:localhost/replica:0/task:0" + name
    (own,) = (row for row in ledger.rows() if row.pid == os.getpid())
    assert own.visible == (1,) and own.bytes == (0, 300 * 2**20)
    tf.ones([100 * 2**18])
    try:
        tf.ones([400 * 2**18])
    except tf.errors.ResourceExhaustedError as error:
        assert "this process may take 300 MiB of its 2 GPUs" in str(error)
    else:
        raise AssertionError("more than the limit")
    print("complete")
"""

GROWTH = """
    import os, subprocess, sys, time
    os.environ["CUDA_VISIBLE_DEVICES"] = "1,0"  # a script may choose
    import tensorflow as tf
    from simgrid_ml.node.gpu_ledger import Ledger

    second, first = tf.config.list_physical_devices("GPU")
    tf.config.experimental.set_memory_growth(first, True)
    try:
        tf.config.list_logical_devices()
    except ValueError as error:
        assert "Memory growth cannot differ between GPU devices" in str(error)
    tf.config.set_visible_devices(first, "GPU")
    large = tf.ones([64 * 2**18])
    assert large.device.endswith("/device:GPU:0")
    ledger = Ledger(os.environ["SIMGRID_ML_GPU_LEDGER"])
    for _ in range(200):
        (own,) = (row for row in ledger.rows() if row.pid == os.getpid())
        if own.bytes[0] >= 64 * 2**20:
            break
        time.sleep(0.05)
    assert own.visible == (0,) and 64 * 2**20 <= own.bytes[0] < 80 * 2**20, own
    if len(sys.argv) == 1:
        assert os.environ["TF_CPU_BFC_MEM_LIMIT_IN_MB"] == "11441"
        strict = {**os.environ, "SIMGRID_ML_GPU_STRICT": "0"}
        subprocess.run([sys.executable, __file__, "child"], check=True, env=strict)
    else:
        assert int(os.environ["TF_CPU_BFC_MEM_LIMIT_IN_MB"]) > 2**20, "neither its parent's"
    print("complete")
"""


def test_a_gpu_that_another_process_has_is_not_to_be_had_without_growth_or_a_limit(
    node: Node, occupied: Ledger
) -> None:
    # One after the other: the first asks for all of the second GPU too.
    assert node.run(LIMITS)[0] == "complete\n"
    assert node.run(GROWTH)[0] == "complete\n" * 2
    assert occupied.peaks()[0] >= K80_BYTES // 2 + 64 * MIB
    assert [row.pid for row in occupied.rows()] == [os.getpid()], "they have ended"


HIDDEN = """
    import os
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf
    from tensorflow.python.client import device_lib

    assert tf.config.list_physical_devices("GPU") == [] == tf.config.list_logical_devices("GPU")
    assert [one.name for one in tf.config.list_logical_devices()] == ["/device:CPU:0"]
    assert [one.name for one in device_lib.list_local_devices()] == ["/device:CPU:0"]
    assert not tf.test.is_gpu_available() and tf.test.gpu_device_name() == ""
    for name in ("/gpu:0", "/cpu:0", None):
        with tf.device(name):
            assert (tf.ones(2) + 1).device == "/job:localhost/replica:0/task:0/device:CPU:0"
    print("complete")
"""

GRAPH = """
    import os
    import tensorflow as tf
    from tensorflow.python.client import device_lib
    from simgrid_ml.node.gpu_ledger import Ledger

    HERE = "/job:localhost/replica:0/task:0/device:"

    def refused(kind, words, **options):
        try:
            tf.Session(config=tf.ConfigProto(gpu_options=tf.GPUOptions(**options)))
        except kind as error:
            assert words in str(error), error
        else:
            raise AssertionError("not refused: " + words)

    with tf.device("/gpu:0"):
        a = tf.get_variable("a", (3, 3))
        product = tf.matmul(a, a, name="product")
    with tf.device("/device:CPU:0"):
        b = tf.get_variable("b", (3, 3))
        total = tf.add(product, b, name="total")
    double = tf.multiply(total, 2, name="double")
    assert (a.device, product.device, b.device, total.device, double.device) == (
        "/device:GPU:0", "/device:GPU:0", "/device:CPU:0", "/device:CPU:0", "")
    setter = tf.train.replica_device_setter(worker_device="/job:worker/task:1/gpu:1", ps_tasks=2)
    with tf.Graph().as_default(), tf.device(setter):
        assert tf.get_variable("c", ()).device == "/job:ps/task:0"
        assert tf.ones(1).device == "/job:worker/task:1/device:GPU:1"
    tf.train.Saver(sharded=True)
    graph = tf.get_default_graph().as_graph_def()

    refused(tf.errors.InvalidArgumentError, "listed an invalid Device id '2' but visible device "
            "count is 2", visible_device_list="2")
    refused(tf.errors.InvalidArgumentError, "Could not parse entry", visible_device_list="a")
    refused(tf.errors.InvalidArgumentError, "duplicate entry: 1", visible_device_list="1,1")
    assert not list(Ledger(os.environ["SIMGRID_ML_GPU_LEDGER"]).rows()), "the saver took nothing"

    options = tf.GPUOptions(visible_device_list="1", per_process_gpu_memory_fraction=0.25)
    config = tf.ConfigProto(log_device_placement=True, gpu_options=options)
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        seen = tf.RunMetadata()
        session.run(double, options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE),
                    run_metadata=seen)
        where = {node.node_name: device.device for device in seen.step_stats.dev_stats
                 for node in device.node_stats}
        assert {name: where[name] for name in ("product", "total", "double")} == {
            "product": HERE + "GPU:0", "total": HERE + "CPU:0", "double": HERE + "GPU:0"}, where
        devices = session.list_devices()
        assert [(one.name, one.device_type) for one in devices] == [
            (HERE + "CPU:0", "CPU"), (HERE + "GPU:0", "GPU")]
        assert devices[1].memory_limit_bytes == 11441 * 2**20 // 4
        with tf.device("/gpu:1"):
            missing = tf.ones(3) + 1
        try:
            session.run(missing)
        except tf.errors.InvalidArgumentError as error:
            assert "was explicitly assigned to /device:GPU:1 but available devices are [ " + (
                f"{HERE}GPU:0, {HERE}CPU:0 ]") in str(error), error
            assert "CUDA is not enabled" not in str(error), "that is ours"
        else:
            raise AssertionError("GPU:1 is not visible")
    (row,) = Ledger(os.environ["SIMGRID_ML_GPU_LEDGER"]).rows()
    assert row.visible == (1,) and row.bytes == (0, 11441 * 2**20 // 4)
    refused(tf.errors.AlreadyExistsError, "TensorFlow device (GPU:0) is being mapped to multiple "
            "devices (0 now, and 1 previously)", visible_device_list="0")
    assert {node.name: node.device for node in graph.node}["product"] == "/device:GPU:0"
    with tf.Graph().as_default() as again:
        tf.import_graph_def(graph, name="")
        assert again.get_operation_by_name("product").device == "/device:GPU:0"
        with tf.Session(config=tf.ConfigProto(gpu_options=options)) as session:
            fed = {"a/read:0": [[1.0] * 3] * 3, "b/read:0": [[2.0] * 3] * 3}
            assert session.run("double:0", fed).ravel().tolist() == [10.0] * 9
    print("complete")
"""


def test_sessions_of_tensorflow_1_and_hidden_gpus(node: Node) -> None:
    hooks = "tensorflow_v1,numpy_aliases,virtual_tensorflow"
    (out, err), (hidden, _) = together(
        partial(node.run, GRAPH, hooks=hooks), partial(node.run, HIDDEN)
    )
    assert out == "complete\n"
    mapped = "/device:GPU:0 -> device: 1, name: Tesla K80, pci bus id: 00000001:01:00.0"
    assert err.count(mapped) == 1
    assert err.count("product: (MatMul): /job:localhost/replica:0/task:0/device:GPU:0\n") == 1
    assert hidden == "complete\n"


FIT = """
    import hashlib, sys
    import numpy as np
    import tensorflow as tf

    def fit(strategy):
        tf.keras.backend.clear_session()
        tf.keras.utils.set_random_seed(3)
        data = np.random.RandomState(0)
        images, labels = data.rand(192, 12, 12, 1).astype("f"), data.randint(0, 10, 192)
        with strategy.scope():
            model = tf.keras.Sequential([
                tf.keras.layers.Conv2D(8, 3, activation="relu", input_shape=(12, 12, 1)),
                tf.keras.layers.BatchNormalization(), tf.keras.layers.MaxPool2D(),
                tf.keras.layers.Dropout(0.3), tf.keras.layers.Flatten(),
                tf.keras.layers.Dense(10, activation="softmax")])
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(images, labels, 32, epochs=2, verbose=0).history
        weights = b"".join(array.tobytes() for array in model.get_weights())
        print(history, model.predict(images[:2], verbose=0).tolist(),
              hashlib.sha256(weights).hexdigest())

    kind = sys.argv[1]
    if kind == "CPU":
        (cpu,) = tf.config.list_physical_devices("CPU")
        one = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [one, one])
    devices = [kind + ":0", kind + ":1"]
    assert len(tf.config.list_logical_devices("GPU")) == (2 if kind == "GPU" else 0)
    fit(tf.distribute.get_strategy())
    fit(tf.distribute.MirroredStrategy(devices))
    if kind == "GPU":
        fit(tf.distribute.MirroredStrategy(cross_device_ops=tf.distribute.NcclAllReduce()))
"""


def test_keras_learns_the_same_to_the_last_bit_as_on_the_hosts_cpu(node: Node) -> None:
    (on_gpus, _), (on_cpus, _) = together(
        partial(node.run, FIT, "GPU"), partial(node.run, FIT, "CPU", hooks="")
    )
    alone, mirrored, by_nccl = on_gpus.splitlines()
    assert [alone, mirrored] == on_cpus.splitlines()
    assert by_nccl == mirrored
    assert alone != mirrored
