"""The TensorFlow and Keras tutorial of 2019: a driver and four training scripts, all run for real.

Written anew in the tutorial's style, with the defects of its text put right: ``TF_CONFIG`` is JSON,
and the cluster is read from it. All jobs share one environment, whose further packages cost no
build of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from simgrid_ml.azure.compute import AmlCompute, ComputeTarget
from simgrid_ml.azure.workspace import Workspace
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.pools import stop_pools
from simgrid_ml.testing.runs import log, story

DRIVER = """\
import sys

from azureml.core import Experiment, Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.compute_target import ComputeTargetException
from azureml.train.dnn import TensorFlow
from azureml.train.estimator import Estimator

ws = Workspace.from_config()
exp = Experiment(ws, name='tensorflow-digits')
try:
    compute_target = ComputeTarget(workspace=ws, name='gpucluster')
except ComputeTargetException:
    config = AmlCompute.provisioning_configuration(vm_size='STANDARD_NC6', max_nodes=4)
    compute_target = ComputeTarget.create(ws, 'gpucluster', config)
    compute_target.wait_for_completion(show_output=True)

script_params = {
    '--batch-size': 50,
    '--learning-rate': 0.5,
}
packages = {
    'conda_packages': ['scikit-learn'],
    'pip_packages': ['tf2onnx', 'onnxruntime'],
}
estimators = {
    'single': lambda: TensorFlow(source_directory='./my-tf-proj',
                                 script_params=script_params,
                                 compute_target=compute_target,
                                 entry_script='train.py',
                                 use_gpu=True,
                                 **packages),
    'horovod': lambda: TensorFlow(source_directory='./my-tf-proj',
                                  script_params={},
                                  compute_target=compute_target,
                                  entry_script='horovod_train.py',
                                  node_count=2,
                                  process_count_per_node=1,
                                  distributed_backend='mpi',
                                  use_gpu=True,
                                  **packages),
    'ps': lambda: TensorFlow(source_directory='./my-tf-proj',
                             script_params={},
                             compute_target=compute_target,
                             entry_script='ps_train.py',
                             node_count=2,
                             worker_count=2,
                             parameter_server_count=1,
                             distributed_backend='ps',
                             use_gpu=True,
                             **packages),
    'keras': lambda: TensorFlow(source_directory='./my-keras-proj',
                                script_params=script_params,
                                compute_target=compute_target,
                                entry_script='keras_train.py',
                                conda_packages=['scikit-learn'],
                                pip_packages=['keras', 'tf2onnx', 'onnxruntime'],
                                use_gpu=True),
    'alone': lambda: TensorFlow(source_directory='./my-tf-proj',
                                script_params={},
                                compute_target='local',
                                entry_script='ps_train.py',
                                **packages),
}
runs = {name: exp.submit(estimators[name]()) for name in sys.argv[1:]}
for name, run in runs.items():
    run.wait_for_completion(show_output=False, raise_on_error=False)
    print('RUN', name, run.id, run.get_status(), flush=True)
"""

TRAIN = """\
import argparse, os
import numpy as np
import tensorflow as tf
from azureml.core.run import Run
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser()
parser.add_argument('--batch-size', type=int, dest='batch_size')
parser.add_argument('--learning-rate', type=float, dest='learning_rate')
args = parser.parse_args()

digits = load_digits()
X, y = (digits.data / 16).astype(np.float), digits.target.astype(np.int)
images = tf.placeholder(tf.float32, shape=(None, 64), name='X')
labels = tf.placeholder(tf.int64, shape=(None), name='y')
logits = tf.layers.dense(images, 10, name='output')
loss = tf.reduce_mean(
    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
train_op = tf.train.GradientDescentOptimizer(args.learning_rate).minimize(loss)
accuracy = tf.reduce_mean(tf.cast(tf.nn.in_top_k(logits, labels, 1), tf.float32))

run = Run.get_context()
saver = tf.train.Saver()
with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for epoch in range(5):
        for start in range(0, len(X), args.batch_size):
            batch = slice(start, start + args.batch_size)
            sess.run(train_op, feed_dict={images: X[batch], labels: y[batch]})
        reached = accuracy.eval(feed_dict={images: X, labels: y})
        run.log('accuracy', np.float(reached))
    os.makedirs('./outputs/model', exist_ok=True)
    saver.save(sess, './outputs/model/digits.model')
print('batches of', args.batch_size, 'reached', reached, 'by', tf.__version__)
"""

HOROVOD_TRAIN = """\
import tensorflow as tf
import horovod
import horovod.tensorflow as hvd
from sklearn.datasets import load_digits

hvd.init()
digits = load_digits()
X, y = digits.data[hvd.rank()::hvd.size()] / 16, digits.target[hvd.rank()::hvd.size()]
images = tf.placeholder(tf.float32, shape=(None, 64))
labels = tf.placeholder(tf.int64, shape=(None,))
logits = tf.layers.dense(images, 10)
loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
opt = hvd.DistributedOptimizer(tf.train.GradientDescentOptimizer(0.1 * hvd.size()))
step = tf.train.get_or_create_global_step()
train_op = opt.minimize(loss, global_step=step)
hooks = [hvd.BroadcastGlobalVariablesHook(0), tf.train.StopAtStepHook(last_step=60)]
with tf.train.MonitoredTrainingSession(hooks=hooks) as sess:
    while not sess.should_stop():
        reached, _ = sess.run([loss, train_op], feed_dict={images: X, labels: y})
print('rank', hvd.rank(), 'of', hvd.size(), 'lost', reached)
"""

PS_TRAIN = """\
import os, json
import tensorflow as tf

tf_config = os.environ.get('TF_CONFIG')
if not tf_config or tf_config == "":
    raise ValueError("TF_CONFIG not found.")
tf_config_json = json.loads(tf_config)
cluster = tf_config_json.get('cluster')
cluster_spec = tf.train.ClusterSpec(cluster)

job_name = tf_config_json.get('task', {}).get('type')
task_index = tf_config_json.get('task', {}).get('index')
job_name = 'worker' if job_name == 'master' else job_name
server = tf.train.Server(cluster_spec, job_name=job_name, task_index=task_index)
if job_name == 'ps':
    server.join()

from sklearn.datasets import load_digits
digits = load_digits()
X, y = digits.data / 16, digits.target
device = '/job:worker/task:%d' % task_index
with tf.device(tf.train.replica_device_setter(worker_device=device, cluster=cluster_spec)):
    images = tf.placeholder(tf.float32, shape=(None, 64))
    labels = tf.placeholder(tf.int64, shape=(None,))
    weights = tf.get_variable('weights', shape=(64, 10), initializer=tf.zeros_initializer())
    logits = tf.matmul(images, weights)
    loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
    step = tf.train.get_or_create_global_step()
    train_op = tf.train.GradientDescentOptimizer(0.5).minimize(loss, global_step=step)
    init_op = tf.global_variables_initializer()
sv = tf.train.Supervisor(is_chief=task_index == 0, init_op=init_op, recovery_wait_secs=1,
                         global_step=step, logdir=None, summary_op=None)
config = tf.ConfigProto(allow_soft_placement=True, device_filters=['/job:ps', device])
with sv.prepare_or_wait_for_session(server.target, config=config) as sess:
    first = sess.run(loss, feed_dict={images: X, labels: y})
    for _ in range(60):
        last, steps, _ = sess.run([loss, step, train_op], feed_dict={images: X, labels: y})
print(json.dumps({'worker': task_index, 'weights': weights.device, 'first': float(first),
                  'last': float(last), 'cluster': cluster}), flush=True)
"""

KERAS_TRAIN = """\
import argparse
import keras
from keras.layers import Dense
from keras.models import Sequential
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser()
parser.add_argument('--batch-size', type=int, dest='batch_size')
parser.add_argument('--learning-rate', type=float, dest='learning_rate')
args = parser.parse_args()

digits = load_digits()
model = Sequential([Dense(32, activation='relu', input_shape=(64,)),
                    Dense(10, activation='softmax')])
model.compile(loss='categorical_crossentropy', metrics=['accuracy'],
              optimizer=keras.optimizers.SGD(learning_rate=args.learning_rate))
history = model.fit(digits.data / 16, keras.utils.to_categorical(digits.target, 10),
                    batch_size=args.batch_size, epochs=5, verbose=2)
model.save_weights('./outputs/model.h5')
print('keras', keras.__version__, history.history['loss'][0], history.history['loss'][-1])
"""


def project(folder: Path) -> None:
    for name, text in {
        "driver.py": DRIVER,
        "my-tf-proj/train.py": TRAIN,
        "my-tf-proj/horovod_train.py": HOROVOD_TRAIN,
        "my-tf-proj/ps_train.py": PS_TRAIN,
        "my-keras-proj/keras_train.py": KERAS_TRAIN,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def driven(folder: Path, *names: str) -> Mapping[str, RunRecord]:
    """The runs that the driver made, which has ended."""
    done = subprocess.run(
        [sys.executable, "-m", "simgrid_ml", "python", "driver.py", *names],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    store = RunStore.of_workspace("local")
    said = [line.split() for line in done.stdout.splitlines() if line.startswith("RUN ")]
    assert [name for _, name, _, _ in said] == list(names)
    records = {name: store.open(run_id) for _, name, run_id, _ in said}
    assert [status for _, _, _, status in said] == [one.state.value for one in records.values()]
    return records


def said_last(record: RunRecord, task: int | str = "") -> str:
    return log(record, task).splitlines()[-1]


def check_parameter_server(record: RunRecord, *, own_network: bool) -> None:
    assert record.state is RunState.COMPLETED, story(record)
    workers = [json.loads(log(record, f"-worker-{n}").splitlines()[-1]) for n in range(2)]
    assert [told["worker"] for told in workers] == [0, 1]
    cluster = workers[0]["cluster"]
    assert {role: len(hosts) for role, hosts in cluster.items()} == {"ps": 1, "worker": 2}
    if own_network:
        ports = [host.rpartition(":")[2] for role in ("ps", "worker") for host in cluster[role]]
        assert ports == ["2222", "2223", "2222"]
    for told in workers:
        assert told["weights"].startswith("/job:ps")
        assert told["cluster"] == cluster
        assert told["last"] < 1.2, told  # chance is 2.3


def test_the_tutorials_samples_run_as_they_are(tmp_path: Path, tensorflow: EnvironmentSpec) -> None:
    project(tmp_path)
    with nothing_left(str(tmp_path)):
        runs = driven(tmp_path, "single", "horovod", "ps", "keras", "alone")
        stop_pools(os.environ["SIMGRID_ML_HOME"])
    check_parameter_server(runs["ps"], own_network=False)
    for name in ("single", "horovod", "keras"):
        assert runs[name].state is RunState.COMPLETED, story(runs[name])

    words = said_last(runs["single"]).split()
    assert words[:3] == ["batches", "of", "50"]
    assert float(words[4]) > 0.8, words
    artifacts = {one.name for one in runs["single"].artifacts()}
    assert "outputs/model/digits.model.index" in artifacts

    ends = [said_last(runs["horovod"], rank).split() for rank in range(2)]
    assert [words[:4] for words in ends] == [["rank", str(n), "of", "2"] for n in range(2)]
    assert all(float(words[-1]) < 1.5 for words in ends), ends

    first, last = map(float, said_last(runs["keras"]).split()[-2:])
    assert last < first / 2
    assert "outputs/model.h5" in {one.name for one in runs["keras"].artifacts()}

    assert runs["alone"].state is RunState.FAILED, story(runs["alone"])
    assert "ValueError: TF_CONFIG not found." in json.dumps(runs["alone"].error())


def test_the_parameter_server_sample_runs_in_containers(
    tmp_path: Path, tensorflow: EnvironmentSpec, docker_engine: Engine
) -> None:
    project(tmp_path)
    config = AmlCompute.provisioning_configuration(
        vm_size="STANDARD_NC6", max_nodes=2, tags={"simgrid-ml.backend": "docker"}
    )
    ComputeTarget.create(Workspace.local(), "gpucluster", config)
    with nothing_left(str(tmp_path)):
        runs = driven(tmp_path, "ps")
        stop_pools(os.environ["SIMGRID_ML_HOME"])
    check_parameter_server(runs["ps"], own_network=True)
