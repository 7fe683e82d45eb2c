"""What the training scripts beside this file share: the pictures, and what is told of an epoch."""

import json
import os

import numpy as np
from azureml.core.run import Run
from sklearn.datasets import load_digits

# TensorFlow, imported later, tells warnings and errors only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")


def load_data():
    """The 1,797 pictures that ship with scikit-learn, four fifths to train on, the rest to test on.

    Returns the same split everywhere: (pictures, labels) twice, pictures float32 of shape
    (n, 8, 8) from 0 to 1, labels int64 of shape (n,).
    """
    digits = load_digits()
    pictures = (digits.images / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    order = np.random.RandomState(0).permutation(len(labels))
    train, test = order[360:], order[:360]
    return (pictures[train], labels[train]), (pictures[test], labels[test])


def batches(data, batch_size, share, shares, seed):
    """Batches of one share of ``data`` in an order that ``seed`` decides.

    Every share has as many, whole ones, so that none has to wait for another in vain.
    """
    pictures, labels = data
    order = np.random.RandomState(seed).permutation(len(labels))[share::shares]
    for number in range(len(labels) // shares // batch_size):
        chosen = order[number * batch_size : (number + 1) * batch_size]
        yield pictures[chosen], labels[chosen]


class Report:
    """What epochs came to: printed, logged to Azure ML, and kept in outputs. One task has it."""

    def __init__(self, epochs):
        os.makedirs("outputs", exist_ok=True)
        self.run = Run.get_context()
        self.epochs = epochs
        self.history = []

    def epoch(self, loss, test_loss, accuracy, took_s):
        self.run.log("loss", loss)
        self.run.log("test_loss", test_loss)
        self.run.log("accuracy", accuracy)
        self.history.append({"loss": loss, "test_loss": test_loss, "accuracy": accuracy})
        print(
            f"epoch {len(self.history)}/{self.epochs}: loss {loss:.4f}, "
            f"test loss {test_loss:.4f}, test accuracy {accuracy:.1%}, {took_s:.1f} s",
            flush=True,
        )

    def end(self, model, test_accuracy):
        """Say that the file or folder ``model`` was saved, and how good it is."""
        self.run.log("test_accuracy", test_accuracy)
        with open("outputs/metrics.json", "w") as stream:
            json.dump({"epochs": self.history, "test_accuracy": test_accuracy}, stream, indent=1)
        print(f"saved {model} and outputs/metrics.json", flush=True)


def note(name, text):
    """A line in a log of one task's own, ``logs/<name>.txt``."""
    os.makedirs("logs", exist_ok=True)
    with open(f"logs/{name}.txt", "a") as log:
        log.write(text + "\n")
