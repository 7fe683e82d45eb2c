"""Gives TensorFlow the GPUs of the node, in host memory; nothing of a script changes.

TensorFlow's own Python configures them, places on them and refuses what is wrong, as it does with
real ones. Changed is what lies between its Python and its C++: which devices there are, and what
they are called (see ``tensorflow_names``); what memory a process takes when they are created (see
``tensorflow_memory``); and the few operations of which there is none for CPUs.
"""

from __future__ import annotations

from . import (
    tensorflow_boundary,
    tensorflow_graphs,
    tensorflow_horovod,
    tensorflow_kernels,
    tensorflow_placement,
    tensorflow_process,
    tensorflow_sessions,
)

__all__ = ["install"]

_INSTALLERS = {
    "tensorflow.python.pywrap_tfe": (tensorflow_boundary.eager,),
    "tensorflow.python.client.pywrap_tf_session": (tensorflow_boundary.sessions,),
    "tensorflow.python.eager.context": (tensorflow_boundary.context, tensorflow_placement.context),
    "tensorflow.python.framework.errors_impl": (tensorflow_boundary.errors,),
    "tensorflow.python.framework.ops": (tensorflow_graphs.ops,),
    "tensorflow.python.data.ops.multi_device_iterator_ops": (tensorflow_graphs.datasets,),
    "tensorflow.python.data.experimental.ops.prefetching_ops": (tensorflow_graphs.datasets,),
    "tensorflow.python.client.session": (tensorflow_sessions.session,),
    "tensorflow.python.client.device_lib": (tensorflow_sessions.device_lib,),
    "tensorflow.python.framework.test_util": (tensorflow_kernels.built,),
    "tensorflow.python.ops.nccl_ops": (tensorflow_kernels.nccl,),
    "horovod.tensorflow.mpi_ops": (tensorflow_horovod.operations,),
    "keras.src.layers.rnn.gru_lstm_utils": (tensorflow_kernels.recurrent,),
    "keras.src.optimizers.optimizer": (tensorflow_kernels.optimizers,),
    "keras.src.backend.tensorflow.nn": (tensorflow_kernels.convolutions_3,),
    "keras.src.backend.tensorflow.rnn": (tensorflow_kernels.recurrent_3,),
    "keras.src.trainers.trainer": (tensorflow_kernels.steps_3,),
}


def install(module):
    """Change a module of TensorFlow's, right after its import.

    Raises:
        KeyError, OSError, ValueError: no ledger says which GPUs there are.
    """
    process = tensorflow_process.process
    if process.devices.ledger.gpus:
        for change in _INSTALLERS[module.__name__]:
            change(module, process)
