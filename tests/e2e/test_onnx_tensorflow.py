"""A Keras model that a run has converted to ONNX says the same wherever it is loaded."""

from __future__ import annotations

import subprocess
from pathlib import Path

from simgrid_ml.azure import Run, Workspace
from simgrid_ml.environments.build import ensure
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.runs import Runs

CONVERT = """
    import numpy as np
    import tensorflow as tf
    import tf2onnx
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[..., None] / 16).astype("float32")
    model = tf.keras.Sequential([
        tf.keras.layers.Conv2D(4, 3, activation="relu", input_shape=(8, 8, 1)),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(10, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, digits.target, epochs=1, verbose=0)
    signature = [tf.TensorSpec((None, 8, 8, 1), tf.float32, name="images")]
    tf2onnx.convert.from_keras(model, signature, output_path="outputs/model.onnx")
    np.savez("outputs/said.npz", images=images[:100], odds=model.predict(images[:100]))
"""

LOAD = """
import sys
import numpy as np
import onnxruntime

model, said = sys.argv[1:]
said = np.load(said)
odds, = onnxruntime.InferenceSession(model).run(None, {"images": said["images"]})
assert odds.shape == (100, 10) and np.ptp(odds) > 0.1
print(abs(odds - said["odds"]).max())
"""


def test_a_keras_model_converted_in_a_run_says_the_same_in_onnxruntime(
    tensorflow_runs: Runs, tensorflow: EnvironmentSpec, tmp_path: Path
) -> None:
    tensorflow_runs.store = RunStore.of_workspace("local")
    record = tensorflow_runs.completed(CONVERT)
    run = Run.get(Workspace.local(), record.id)
    files = [str(tmp_path / name) for name in ("model.onnx", "said.npz")]
    for file in files:
        run.download_file("outputs/" + Path(file).name, file)
    loaded = subprocess.run(
        [ensure(tensorflow).python, "-c", LOAD, *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert float(loaded.stdout) < 1e-5
