"""Handwritten digits on several nodes: TensorFlow and Horovod, logged to Azure ML.

A small convolutional network, synchronous data-parallel training: every rank sees its share of the
pictures, gradients are averaged over all ranks, and rank 0 logs and saves.
"""

import argparse
import os
import time

import digits
import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf


def network():
    return tf.keras.Sequential(
        [
            tf.keras.layers.Reshape((8, 8, 1), input_shape=(8, 8)),
            tf.keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            tf.keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            tf.keras.layers.MaxPool2D(2),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(64, activation="relu"),
            tf.keras.layers.Dense(10),
        ]
    )


def evaluate(model, data):
    """Mean loss and accuracy on ``data``, each rank computing its share."""
    pictures, labels = (array[hvd.rank() :: hvd.size()] for array in data)
    logits = model(pictures)
    losses = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    correct = np.argmax(logits, axis=1) == labels
    own = tf.constant([np.sum(losses), np.sum(correct), len(labels)], tf.float32)
    loss, correct, count = hvd.allreduce(own, name="test", op=hvd.Sum).numpy()
    return float(loss / count), float(correct / count)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32, help="per rank")
    parser.add_argument("--learning-rate", type=float, default=0.02, help="per rank")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    hvd.init()
    tf.random.set_seed(args.seed)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:  # each rank has a GPU of its node to itself
        tf.config.set_visible_devices(gpus[hvd.local_rank()], "GPU")
        tf.config.experimental.set_memory_growth(gpus[hvd.local_rank()], True)
    tf.config.threading.set_intra_op_parallelism_threads(1)  # ranks share this machine's cores
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(
        f"rank {hvd.rank()} of {hvd.size()}, local rank {hvd.local_rank()} of {hvd.local_size()} "
        f"on {os.uname().nodename}",
        flush=True,
    )

    train, test = digits.load_data()
    model = network()
    # More ranks make a larger batch, and a larger batch bears a larger step.
    optimizer = tf.keras.optimizers.SGD(args.learning_rate * hvd.size(), momentum=0.9)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    hvd.broadcast_variables(model.variables, root_rank=0)

    @tf.function
    def step(pictures, labels):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(pictures, training=True))
        tape = hvd.DistributedGradientTape(tape)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    report = digits.Report(args.epochs) if hvd.rank() == 0 else None
    for epoch in range(1, args.epochs + 1):
        began = time.time()
        share = digits.batches(train, args.batch_size, hvd.rank(), hvd.size(), args.seed + epoch)
        own_loss = float(np.mean([step(pictures, labels) for pictures, labels in share]))
        digits.note(f"rank-{hvd.rank()}", f"epoch {epoch}: own loss {own_loss:.4f}")
        train_loss = float(hvd.allreduce(tf.constant(own_loss), name="train_loss"))
        test_loss, accuracy = evaluate(model, test)
        if report:
            report.epoch(train_loss, test_loss, accuracy, time.time() - began)

    if report:
        model.save("outputs/model.keras")
        report.end("outputs/model.keras", accuracy)


if __name__ == "__main__":
    main()
