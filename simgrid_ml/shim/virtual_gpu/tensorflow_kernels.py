"""What TensorFlow and Keras do on GPUs alone, done as on CPUs with the same result."""

from __future__ import annotations

from . import tensorflow_private

__all__ = ["nccl", "optimizers", "recurrent"]


def nccl(module, process):
    """``tensorflow.python.ops.nccl_ops``: sums and copies between devices."""
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import array_ops, math_ops

    def reduced(reduction, tensors):
        if reduction == "sum":
            return math_ops.add_n(tensors)
        by = {"prod": math_ops.multiply, "min": math_ops.minimum, "max": math_ops.maximum}
        total = tensors[0]
        for tensor in tensors[1:]:
            total = by[reduction](total, tensor)
        return total

    def all_reduce(original):
        def _apply_all_reduce(reduction, tensors):
            if not tensors:
                raise ValueError("Must pass >0 tensors to all reduce operations")
            for tensor in tensors:
                module._check_device(tensor)
            results = []
            for tensor in tensors:
                with ops.device(tensor.device):
                    results.append(reduced(reduction, tensors))
            return results

        return _apply_all_reduce

    def reduce(original):
        def _apply_reduce(reduction, tensors):
            if not tensors:
                raise ValueError("Must pass >0 tensors to reduce operations")
            for tensor in tensors:
                module._check_device(tensor)
            return reduced(reduction, tensors)

        return _apply_reduce

    def broadcast(original):
        def broadcast(tensor):
            module._check_device(tensor)
            with ops.device(tensor.device):
                return array_ops.identity(tensor)

        return broadcast

    tensorflow_private.extend(module, "_apply_all_reduce", all_reduce)
    tensorflow_private.extend(module, "_apply_reduce", reduce)
    tensorflow_private.extend(module, "broadcast", broadcast)


def recurrent(module, process):
    """Keras's LSTM and GRU: without cuDNN they take the operations that are for all devices."""

    def supported(original):
        def is_cudnn_supported_inputs(mask, time_major, sequence_lengths):
            return False

        return is_cudnn_supported_inputs

    tensorflow_private.extend(module, "is_cudnn_supported_inputs", supported)


def optimizers(module, process):
    """Keras's optimizers: where it sees GPUs it compiles them by XLA, whose sums differ."""

    def made(original):
        def __init__(self, *arguments, **named):
            original(self, *arguments, **named)
            self.jit_compile = False

        return __init__

    tensorflow_private.extend(module._BaseOptimizer, "__init__", made)
