"""TensorFlow on slices of real GPUs: which devices and limits it is given.

The TensorFlow is one for the CPU, which is told that it has the GPUs; what it would give to CUDA is
read from its own configuration. Nothing here has run on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import simgrid_ml
from simgrid_ml import wire
from simgrid_ml.environments.build import ensure
from simgrid_ml.node.gpu_ledger import Gpu, Ledger, create
from simgrid_ml.node.gpu_slices import Part, Slices, encode
from simgrid_ml.shim.virtual_gpu.caps_tensorflow import device_options, session_options
from simgrid_ml.spec.job import EnvironmentSpec

GIB = 2**30
PART = 10 * GIB
MIB = PART // 2**20
TOTAL = 139 * GIB
PACKAGE = os.path.dirname(simgrid_ml.__file__)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    path = str(tmp_path / "ledger")
    create(path, [Gpu("Tesla K80", f"GPU-v{n}", "", 11 * GIB, 13, (3, 7)) for n in range(3)])
    return path


def slices(ledger: str, *devices: str, alone: bool = False) -> Slices:
    parts = [Part(device, PART, TOTAL) for device in devices]
    return Slices(Ledger(ledger), parts, None, None, alone=alone)


def test_two_slices_of_a_device_are_two_logical_devices_of_it(ledger: str) -> None:
    mixed = slices(ledger, "GPU-a", "GPU-b", "GPU-a")
    assert device_options(mixed, [0, 1, 2], [[], [], []]) == ([0, 1], [[MIB, MIB], [MIB]])
    assert device_options(mixed, [2], [[]]) == ([0], [[MIB]])
    assert device_options(mixed, [1], [[1000, 999_999]]) == ([1], [[1000, MIB]])
    assert device_options(mixed, [], []) == ([], [])


def test_of_instances_of_mig_the_first_visible_one_is_used(ledger: str) -> None:
    instances = slices(ledger, "MIG-a", "MIG-b", alone=True)
    assert device_options(instances, [0, 1], [[], []]) == ([0], [[MIB]])
    assert session_options(instances, "1") == ("0", PART / TOTAL)


def test_a_session_takes_its_part_of_the_device_that_its_list_means(ledger: str) -> None:
    mixed = slices(ledger, "GPU-a", "GPU-b", "GPU-a")
    assert session_options(mixed, "2") == ("0", PART / TOTAL)
    assert session_options(mixed, "1") == ("1", PART / TOTAL)
    assert session_options(mixed, "0,2") == ("0", 2 * PART / TOTAL)
    assert session_options(mixed, "") == ("0,1", PART / TOTAL)
    for wrong in ("3", "x"):
        with pytest.raises(ValueError, match="listed an invalid GPU id"):
            session_options(mixed, wrong)


SCRIPT = """
import json, os
import tensorflow as tf
from tensorflow.python.client import session
from tensorflow.python.eager import context
from simgrid_ml.node import gpu_slices
from simgrid_ml.node.gpu_ledger import Ledger
from simgrid_ml.shim.virtual_gpu import caps_tensorflow

caps = caps_tensorflow.Caps(gpu_slices.of_process)
caps_tensorflow.with_context(context, caps)
caps_tensorflow.with_sessions(session, caps)

said = {}
gpus = tf.config.list_physical_devices("GPU")
said["gpus"] = [gpu.name for gpu in gpus]
said["details"] = tf.config.experimental.get_device_details(gpus[1])
for gpu in gpus:
    tf.config.experimental.set_memory_growth(gpu, True)
tf.config.set_visible_devices(gpus[1], "GPU")             # the local rank, as Horovod's examples do
made = context.context().config.gpu_options
said["list"] = made.visible_device_list
said["limits"] = [list(one.memory_limit_mb) for one in made.experimental.virtual_devices]
said["growth"] = made.allow_growth
said["told"] = caps.told
said["result"] = float(tf.reduce_sum(tf.ones(3)))
rows = list(Ledger(os.environ["SIMGRID_ML_GPU_LEDGER"]).rows())
said["rows"] = [[row.visible, row.local_rank] for row in rows]
config = tf.compat.v1.ConfigProto()
config.gpu_options.visible_device_list = "2"
with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as one:
    said["v1"] = float(one.run(tf.constant(2.0)))
    options = one._config.gpu_options
    said["session"] = [options.visible_device_list, options.per_process_gpu_memory_fraction]
said["kept"] = config.gpu_options.visible_device_list
print(json.dumps(said))
"""


def test_scripts_that_pin_a_gpu_get_the_device_behind_it_and_a_limit(
    ledger: str, tensorflow: EnvironmentSpec
) -> None:
    devices = ("GPU-a", "GPU-b", "GPU-a")
    done = subprocess.run(
        [ensure(tensorflow).python, "-c", SCRIPT],
        env={
            "PYTHONPATH": os.path.dirname(PACKAGE),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            wire.GPU_LEDGER_VARIABLE: ledger,
            wire.GPU_BACKING_VARIABLE: "TIME_SLICED",
            wire.GPU_DEVICES_VARIABLE: encode(Part(d, PART, TOTAL) for d in devices),
            wire.LOCAL_RANK_VARIABLE: "1",
            "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == {
        "gpus": [f"/physical_device:GPU:{n}" for n in range(3)],
        "details": {"device_name": "Tesla K80", "compute_capability": [3, 7]},
        "list": "1",
        "limits": [[MIB]],
        "growth": True,
        "told": False,
        "result": 3.0,
        "rows": [[[0, 1, 2], 1]],
        "v1": 2.0,
        "session": ["0", PART / TOTAL],
        "kept": "2",
    }
