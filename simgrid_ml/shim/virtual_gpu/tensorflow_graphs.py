"""Operations of graphs and tensors of eager execution: on which device Python sees them."""

from __future__ import annotations

from . import tensorflow_private

__all__ = ["datasets", "ops"]

_STRING = 7
"""DT_STRING: no GPU holds such a tensor."""


def ops(module, process):
    """``tensorflow.python.framework.ops``."""
    operation = module.Operation

    def placed(original):
        def _set_device_from_string(self, device):
            return original(self, process.to_tensorflow(device))

        return _set_device_from_string

    def device(original):
        return property(lambda self: process.to_script(original.fget(self)), doc=original.__doc__)

    def exported(original):
        def _as_graph_def(self, *arguments, **named):
            graph, version = original(self, *arguments, **named)
            _rename(graph, process.to_script)
            return graph, version

        return _as_graph_def

    tensorflow_private.extend(operation, "_set_device_from_string", placed)
    tensorflow_private.extend(operation, "device", device)
    if hasattr(module, "SymbolicTensor"):  # before, it asked the operation
        tensorflow_private.extend(module.SymbolicTensor, "device", device)
    tensorflow_private.extend(module.Graph, "_as_graph_def", exported)
    _tensors(module.EagerTensor, process)


def _tensors(cls, process):
    def made(original):
        def __init__(self, value, device=None, dtype=None, *rest, **named):
            original(self, value, process.to_tensorflow(device), dtype, *rest, **named)

        return __init__

    def device(original):
        def device(self):
            name = process.to_script(original.__get__(self))
            if self._datatype_enum() == _STRING:
                return name.replace("/device:GPU:0", "/device:CPU:0")
            return name

        return property(device)

    def copied(original):
        def _copy_to_device(self, device_name):
            return original(self, process.to_tensorflow(device_name))

        return _copy_to_device

    tensorflow_private.extend(cls, "__init__", made)
    tensorflow_private.extend(cls, "device", device)
    tensorflow_private.extend(cls, "backing_device", device)
    tensorflow_private.extend(cls, "_copy_to_device", copied)


def _rename(graph, change):
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            if node.device:
                node.device = change(node.device)


def datasets(module, process):
    """Modules of ``tf.data`` that give C++ the name of a device as a tensor."""

    class Ops:
        def __getattr__(self, name):
            return getattr(original, name)

        def convert_to_tensor(self, value, *arguments, **named):
            return original.convert_to_tensor(process.to_tensorflow(value), *arguments, **named)

    original = module.ops
    tensorflow_private.extend(module, "ops", lambda original: Ops())
