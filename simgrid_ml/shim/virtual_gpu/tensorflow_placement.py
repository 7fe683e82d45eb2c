"""``log_device_placement``: TensorFlow's C++ would write its own names, so it is done here."""

from __future__ import annotations

import sys
import weakref

__all__ = ["context", "log_graph"]

_logged = weakref.WeakKeyDictionary()
_TASK = "/job:localhost/replica:0/task:0"


def log_graph(graph, process):
    """Write where the operations of ``graph`` are that were not there the last time."""
    operations = graph.get_operations()
    before = _logged.get(graph, 0)
    if not before:
        _log_mapping(process)
    for operation in operations[before:]:
        _say(f"{operation.name}: ({operation.type}): {_whole(operation.device, process)}")
    _logged[graph] = len(operations)


def _log_mapping(process):
    from . import tensorflow_sessions

    _say("Device mapping:")
    for index, gpu in enumerate(process.logical or ()):
        described = tensorflow_sessions.describe(gpu.device)
        _say(f"{_TASK}/device:GPU:{index} -> {described}")


def _whole(device, process):
    task, _, last = device.partition("/device:")
    if not last:
        last = "GPU:0" if process.gpus_of(None) else "CPU:0"
    return f"{task if '/job:' in task else _TASK}/device:{last}"


def context(module, process):
    """``tensorflow.python.eager.context``: every operation that is executed says where."""
    cls = module.Context
    on = set()

    def log(op_type, inputs, attrs, outputs, op_name=None, graph=None):
        device = _whole(getattr(outputs[0], "device", "") if outputs else "", process)
        if graph is not None:  # of a function
            _say(f"{op_name}: ({op_type}): {device}")
        else:
            _say(f"Executing op {op_type} in device {device}")

    def get(self):
        return bool(on)

    def put(self, enable):
        if enable and not on:
            self.add_op_callback(log)
            on.add(log)
        elif not enable and on:
            self.remove_op_callback(log)
            on.clear()

    cls.log_device_placement = property(get, put, doc=cls.log_device_placement.__doc__)


def _say(line):
    sys.stderr.write(line + "\n")
