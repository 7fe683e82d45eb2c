"""Restores behaviour of old releases inside a run's Python programs, which stay as they are.

Python imports the first ``sitecustomize`` on its path at every start, in spawned and launched
children too. The engine puts this one there for runs that have hooks. After the import of a
module that a hook is about, ``simgrid_ml.shim.hooks.NAME.apply(module)`` changes that module.
A program that imports none of these modules pays a fraction of a millisecond.
"""

import os
import sys

_ABOUT = {
    "gpu_caps": (
        *("torch", "tensorflow.python.eager.context"),
        "tensorflow.python.client.session",
    ),
    "gpu_collectives": (
        *("torch.distributed.distributed_c10d", "horovod.torch.mpi_ops"),
        "horovod.common.basics",
    ),
    "numpy_aliases": ("numpy",),
    "tensorflow_v1": (
        *("tensorflow", "keras"),
        *("horovod.keras.callbacks", "horovod.tensorflow.keras.callbacks"),
    ),
    "torch_gloo": ("torch.distributed.distributed_c10d",),
    "virtual_cuda": (
        *("torch", "torch.utils.cpp_extension", "triton.runtime.jit"),
        "horovod.torch.mpi_ops",
    ),
    "virtual_tensorflow": (
        *("tensorflow.python.pywrap_tfe", "tensorflow.python.client.pywrap_tf_session"),
        *("tensorflow.python.eager.context", "tensorflow.python.framework.errors_impl"),
        *("tensorflow.python.framework.ops", "tensorflow.python.ops.nccl_ops"),
        *("tensorflow.python.client.session", "tensorflow.python.client.device_lib"),
        "tensorflow.python.framework.test_util",
        "tensorflow.python.data.ops.multi_device_iterator_ops",
        "tensorflow.python.data.experimental.ops.prefetching_ops",
        *("horovod.tensorflow.mpi_ops", "keras.src.layers.rnn.gru_lstm_utils"),
        *("keras.src.optimizers.optimizer", "keras.src.trainers.trainer"),
        *("keras.src.backend.tensorflow.nn", "keras.src.backend.tensorflow.rnn"),
    ),
}


class _Finder:
    """Has the module found by the others, and a word once it has been executed."""

    def __init__(self, hooks):
        self.hooks = hooks

    def find_spec(self, name, path=None, target=None):
        hooks = [hook for hook in self.hooks if name in _ABOUT[hook]]
        if not hooks:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    _extend(spec.loader, hooks)
                return spec
        return None


def _extend(loader, hooks):
    execute = loader.exec_module

    def exec_module(module):
        loader.__dict__.pop("exec_module", None)  # the loader is as it was from here on
        execute(module)
        for hook in hooks:
            _apply(hook, module)

    loader.exec_module = exec_module


def _apply(hook, module):
    name = "simgrid_ml.shim.hooks." + hook
    try:
        __import__(name)
        sys.modules[name].apply(module)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        _say(f"the hook {hook} failed, and the script goes on: {what}")


def _say(line):
    sys.stderr.write(f"simgrid-ml: {line}\n")


def _install(value):
    hooks = [hook.strip() for hook in value.split(",") if hook.strip()]
    for hook in hooks:
        if hook not in _ABOUT:
            _say(f"there is no hook {hook!r}; there are: {', '.join(sorted(_ABOUT))}")
    known = [hook for hook in hooks if hook in _ABOUT]
    if known:
        sys.meta_path.insert(0, _Finder(known))


def _hand_over():
    """Run the ``sitecustomize`` that this one hides, if there is one."""
    own = os.path.dirname(__file__)
    position = sys.path.index(own)
    sys.path[:] = [place for place in sys.path if place != own]
    ours = sys.modules.pop(__name__)
    try:
        __import__(__name__)
    except ImportError as error:
        if error.name != __name__:
            raise
    finally:
        sys.modules.setdefault(__name__, ours)
        sys.path.insert(position, own)


_install(os.environ.get("SIMGRID_ML_HOOKS", ""))
_hand_over()
