"""What TensorFlow and Keras do on GPUs alone, done as on CPUs with the same result."""

from __future__ import annotations

from . import tensorflow_private

__all__ = ["built", "convolutions_3", "nccl", "optimizers", "recurrent", "recurrent_3", "steps_3"]


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


def built(module, process):
    """``tensorflow.python.framework.test_util``: one that finds GPUs was built for them."""
    _always(module, "IsGoogleCudaEnabled", True)


def recurrent(module, process):
    """LSTM and GRU of Keras 2: without cuDNN they take the operations that are for all devices."""
    _always(module, "is_cudnn_supported_inputs", False)


def optimizers(module, process):
    """Optimizers of Keras 2: where it sees GPUs it compiles them by XLA, whose sums differ."""

    def made(original):
        def __init__(self, *arguments, **named):
            original(self, *arguments, **named)
            self.jit_compile = False

        return __init__

    if hasattr(module, "_BaseOptimizer"):  # Keras 3 compiles the whole step, see ``steps_3``
        tensorflow_private.extend(module._BaseOptimizer, "__init__", made)


def recurrent_3(module, process):
    """As ``recurrent``, for Keras 3."""
    _always(module, "_is_gpu_available", False)


def convolutions_3(module, process):
    """Convolutions of Keras 3, which turns pictures round where there are CPUs alone."""
    if hasattr(module, "_cpu_only"):
        _always(module, "_cpu_only", True)


def steps_3(module, process):
    """Keras 3 compiles a step of training by XLA where it sees GPUs."""
    _always(module.Trainer, "_resolve_auto_jit_compile", False)


def _always(owner, name, result):
    def make(original):
        def always(*arguments, **named):
            return result

        return always

    tensorflow_private.extend(owner, name, make)
