"""``import tensorflow`` gives TensorFlow 1, as today's TensorFlow keeps it in ``compat.v1``.

Graphs and sessions, reference variables and the control flow of then; the names of then, also
below ``tensorflow.`` and ``keras.`` in imports. What ``compat.v1`` lacks is in ``tensorflow_1/``.
"""

from __future__ import annotations

import importlib
import os
import sys

from simgrid_ml.shim.hooks import horovod_callbacks

__all__ = ["VERSION", "apply"]

VERSION = "1.15.5"
"""What scripts read as ``tf.__version__``: the release whose names ``compat.v1`` has."""

_NO_CONTRIB = (
    "TensorFlow 1 is served here by TensorFlow {version}, which has no tf.contrib. "
    "Try: tf.layers, tf.losses, tf.initializers, tf.nn.rnn_cell, tf.estimator or tf.keras, where "
    "most of it went; the package tf-slim for tf.contrib.slim and tf.contrib.layers"
)
_INSTALLED = {"dist-packages", "site-packages"}
_KERAS_1 = "keras.api._v1.keras"
_FOLDED = {
    "layers": (
        *("advanced_activations", "convolutional", "core", "embeddings", "local", "merge"),
        *("noise", "normalization", "pooling", "recurrent", "wrappers"),
    ),
    "utils": ("np_utils", "vis_utils"),
}
"""Packages of Keras, and the modules whose names are directly in them today."""


def apply(module):
    """Turn ``tensorflow`` (2.x, just imported) into TensorFlow 1, and Keras with it."""
    if module.__name__.startswith("horovod."):
        horovod_callbacks.apply(module)
        return
    if module.__name__ == "tensorflow":
        _tensorflow(module)
    # Each imports the other: the one that ends last finds both complete. Keras 3 has no names of
    # then to give.
    tensorflow, keras = sys.modules.get("tensorflow"), sys.modules.get("keras")
    is_keras_2 = getattr(keras, "__version__", "").startswith("2.")
    if getattr(tensorflow, "VERSION", None) == VERSION and is_keras_2:
        _keras(keras)


def _tensorflow(tensorflow):
    from tensorflow.python.util import deprecation

    v1 = tensorflow.compat.v1
    with deprecation.silence():
        v1.disable_v2_behavior()
    ours = os.path.join(os.path.dirname(os.path.realpath(__file__)), "tensorflow_1")
    inside = os.path.dirname(tensorflow.__file__)
    tensorflow.__path__ = list(dict.fromkeys([*v1.__path__, inside, *tensorflow.__path__, ours]))
    for name in dir(v1):
        if not name.startswith("_") and name != "compat":
            setattr(tensorflow, name, getattr(v1, name))
    tensorflow.VERSION = VERSION
    real = v1.__version__
    vars(tensorflow).pop("__version__", None)

    def __getattr__(name):
        if name == "__version__":
            # Packages were built for the real one and go by it; Horovod refuses another.
            asking = sys._getframe(1).f_code.co_filename.split(os.sep)
            return real if _INSTALLED.intersection(asking) else VERSION
        if name == "contrib":
            raise AttributeError(_NO_CONTRIB.format(version=real))
        raise AttributeError(f"module 'tensorflow' has no attribute {name!r}")

    tensorflow.__getattr__ = __getattr__


def _keras(keras):
    """Its names of then: the session of the backend, optimizers that know ``lr``."""
    v1 = importlib.import_module(_KERAS_1)
    for package, folded in _FOLDED.items():
        whole = getattr(v1, package)
        for name in folded:
            setattr(whole, name, whole)
            sys.modules[f"keras.{package}.{name}"] = whole
    for name, module in list(sys.modules.items()):
        if name.startswith(_KERAS_1 + "."):
            sys.modules["keras" + name[len(_KERAS_1) :]] = module
    vars(keras).update({name: value for name, value in vars(v1).items() if name[0] != "_"})
