"""Horovod with TensorFlow and Keras: the same training as by one process with whole batches."""

from __future__ import annotations

import re

import pytest
from horovod_kit import answers, started_by_first_node, topology

from simgrid_ml.testing.runs import Runs, cause, story

DATA = """
    import hashlib, json, os
    import horovod.keras
    import horovod.tensorflow as hvd
    import horovod.tensorflow.keras
    import keras
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits

    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    RATE, BATCH, STEPS = 0.5, 240, 6
    digits = load_digits()
    rows = (digits.data[: BATCH * STEPS] / 16).astype("float32")
    labels = digits.target[: BATCH * STEPS]

    def part(array, step):
        "Of each whole batch every size-th row is this rank's."
        return array[step * BATCH : (step + 1) * BATCH][rank::size]

    def initial(rank):
        return np.random.RandomState(rank).normal(0, 0.1, (64, 10)).astype("float32")

    def loss_of(y, logits):
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        return tf.reduce_mean(losses)

    def alone(weights, bias, rates):
        "The same training by one process with whole batches, and without TensorFlow."
        losses = []
        for step, rate in enumerate(rates):
            batch = slice(step % STEPS * BATCH, (step % STEPS + 1) * BATCH)
            x, y = rows[batch], labels[batch]
            odds = np.exp(x @ weights + bias)
            odds /= odds.sum(1, keepdims=True)
            losses.append(-np.log(odds[range(BATCH), y]).mean())
            slopes = (odds - np.eye(10)[y]) / BATCH
            weights, bias = weights - rate * x.T @ slopes, bias - rate * slopes.sum(0)
        return losses, [weights, bias]
"""

TAPE = """
    def tape():
        weights, bias = tf.Variable(initial(rank)), tf.Variable(tf.zeros(10))
        hvd.broadcast_variables([weights, bias], root_rank=0)

        @tf.function
        def train(x, y):
            with tf.GradientTape() as tape:
                loss = loss_of(y, x @ weights + bias)
            slopes = hvd.DistributedGradientTape(tape).gradient(loss, [weights, bias])
            for variable, slope in zip((weights, bias), slopes):
                variable.assign_sub(RATE * slope)
            return hvd.allreduce(loss)

        losses = [float(train(part(rows, step), part(labels, step))) for step in range(STEPS)]
        return losses, [weights.numpy(), bias.numpy()]
"""

GRAPH = """
    def graph():
        v1 = tf.compat.v1

        class Reader(v1.train.SessionRunHook):
            def end(self, session):
                self.weights = session.run([weights, bias])

        with tf.Graph().as_default():
            x = v1.placeholder(tf.float32, (None, 64))
            y = v1.placeholder(tf.int64, (None,))
            weights = v1.get_variable("weights", initializer=initial(rank))
            bias = v1.get_variable("bias", shape=10, initializer=v1.zeros_initializer())
            loss = loss_of(y, tf.matmul(x, weights) + bias)
            optimizer = hvd.DistributedOptimizer(v1.train.GradientDescentOptimizer(RATE))
            train = optimizer.minimize(loss, global_step=v1.train.get_or_create_global_step())
            fetch, losses, reader = [hvd.allreduce(loss), train], [], Reader()
            hooks = [hvd.BroadcastGlobalVariablesHook(0), v1.train.StopAtStepHook(STEPS), reader]
            with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
                while not session.should_stop():
                    step = len(losses)
                    batch = {x: part(rows, step), y: part(labels, step)}
                    losses.append(float(session.run(fetch, batch)[0]))
        return losses, reader.weights
"""

KERAS = """
    def fit(model, optimizer, steps, epochs, *callbacks):
        x, y = (np.concatenate([part(a, step) for step in range(steps)]) for a in (rows, labels))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        return model.fit(x, y, BATCH // size, epochs, verbose=0, shuffle=False,
                         callbacks=list(callbacks)).history["loss"]

    def keras_fit():
        model = keras.Sequential([keras.layers.Dense(10, input_shape=(64,))])
        model.set_weights([initial(rank), np.zeros(10)])
        # Keras' broadcast comes behind the first batch, so that is all this fit has.
        optimizer = horovod.keras.DistributedOptimizer(keras.optimizers.SGD(RATE))
        fit(model, optimizer, 1, 1, horovod.keras.callbacks.BroadcastGlobalVariablesCallback(0))
        handed = model.get_weights()

        optimizer = horovod.tensorflow.keras.DistributedOptimizer(tf.keras.optimizers.SGD(RATE))
        callbacks = horovod.tensorflow.keras.callbacks
        warmup = callbacks.LearningRateWarmupCallback(
            initial_lr=RATE, warmup_epochs=1, momentum_correction=False)
        losses = fit(model, optimizer, STEPS, 2, callbacks.MetricAverageCallback(), warmup)
        rates = [RATE / size * ((step + 1) / STEPS * (size - 1) + 1) for step in range(STEPS)]
        each, weights = alone(*handed, rates + [RATE] * STEPS)
        return (losses, model.get_weights()), (np.reshape(each, (2, STEPS)).mean(1), weights)
"""

ANSWER = """
    def told(together, by_one):
        apart = max(
            np.abs(np.asarray(one) - np.asarray(other)).max()
            for one, other in zip([together[0], *together[1]], [by_one[0], *by_one[1]]))
        weights = b"".join(np.asarray(array).tobytes() for array in together[1])
        return {"losses": [float(loss) for loss in together[0]], "apart": float(apart),
                "weights": hashlib.sha256(weights).hexdigest()}

    by_one = alone(initial(0), np.zeros(10), [RATE] * STEPS)
    fine = tf.constant([1 + 2**-12])
    print(json.dumps({
        "topology": [rank, size, hvd.local_rank(), hvd.local_size(),
                     hvd.cross_rank(), hvd.cross_size()],
        "by": ["mpi" if hvd.mpi_enabled() else "gloo", os.environ.get("OMPI_COMM_WORLD_RANK")],
        "values": {
            "sum": hvd.allreduce(tf.range(5.0) * (rank + 1), op=hvd.Sum).numpy().tolist(),
            "mean": float(hvd.allreduce(tf.constant(float(rank)))),
            "whole": float(hvd.allreduce(fine)[0]),
            "half": float(hvd.allreduce(fine, compression=hvd.Compression.fp16)[0]),
            "root": hvd.broadcast(tf.constant([rank, rank * 10]), size - 1).numpy().tolist(),
            "rows": hvd.allgather(tf.fill((rank + 1, 2), rank)).numpy().tolist(),
        },
        "tape": told(tape(), by_one),
        "graph": told(graph(), by_one),
        "keras": told(*keras_fit()),
    }))
"""

SCRIPT = DATA + TAPE + GRAPH + KERAS + ANSWER


def values(size: int) -> dict[str, object]:
    total = size * (size + 1) / 2
    return {
        "sum": [total * n for n in range(5)],
        "mean": (size - 1) / 2,
        "whole": 1 + 2**-12,
        "half": 1.0,  # as far as 16 bits can tell
        "root": [size - 1, (size - 1) * 10],
        "rows": [[r, r] for r in range(size) for _ in range(r + 1)],
    }


@pytest.mark.parametrize(
    ("backend", "controller", "per_node"),
    [("process", "mpi", 2), ("docker", "mpi", 1), ("process", "gloo", 1), ("docker", "gloo", 1)],
)
def test_training_together_is_training_by_one_process_with_whole_batches(
    tensorflow_runs: Runs,
    request: pytest.FixtureRequest,
    backend: str,
    controller: str,
    per_node: int,
) -> None:
    if backend == "docker":
        request.getfixturevalue("docker_engine")
    size = 2 * per_node
    if controller == "mpi":
        record = tensorflow_runs.completed(SCRIPT, mpi=(2, per_node), cluster={"backend": backend})
        found = answers(record, size)
    else:
        record = started_by_first_node(
            tensorflow_runs,
            """
            command = ["horovodrun", "-np", "2", "-H", "node0:1,node1:1", "--gloo",
                       sys.executable, "worker.py"]
            sys.exit(subprocess.run(command).returncode)
            """,
            backend=backend,
            worker=SCRIPT,
        )
        found = answers(record)
    assert len(found) == size, story(record)
    for rank, told in enumerate(found):
        assert told["topology"] == topology(rank, 2, per_node)
        assert told["by"] == [controller, str(rank) if controller == "mpi" else None]
        assert told["values"] == values(size)
        for way in ("tape", "graph", "keras"):
            assert told[way]["apart"] < 1e-5, (way, told[way])
            assert told[way]["losses"][-1] < 0.9 * told[way]["losses"][0], (way, told[way])
            assert told[way]["weights"] == found[0][way]["weights"], "every rank has the same"


@pytest.mark.parametrize(
    ("how", "said", "seen"),
    [
        ("raise ValueError('on purpose')", "exited with code 1", "ValueError: on purpose"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL", ""),
    ],
)
def test_the_rank_that_failed_first_is_named(
    tensorflow_runs: Runs, how: str, said: str, seen: str
) -> None:
    record = tensorflow_runs.failed(
        f"""
        import os
        import horovod.tensorflow as hvd
        import tensorflow as tf
        hvd.init()
        for step in range(1000):
            hvd.allreduce(tf.ones(1000), name="together")
            if step == 10 and hvd.rank() == 1:
                {how}
        """,
        mpi=(2, 1),
    )
    assert cause(record).startswith(f"rank 1 on node1 {said}"), story(record)
    assert seen in str((record.error() or {})["evidence"])


def test_shapes_that_differ_are_told_in_horovods_words(tensorflow_runs: Runs) -> None:
    record = tensorflow_runs.failed(
        """
        import horovod.tensorflow as hvd
        import tensorflow as tf
        hvd.init()
        hvd.allreduce(tf.ones(3 + hvd.rank()), name="together")
        """,
        mpi=(2, 1),
    )
    assert "exited with code 1" in cause(record), story(record)
    evidence = str((record.error() or {})["evidence"])
    told = r"rank sent a tensor of shape \[(.)\], but another rank sent a tensor of shape \[(.)\]"
    shapes = re.search(told, evidence)
    assert shapes is not None and set(shapes.groups()) == {"3", "4"}, evidence
