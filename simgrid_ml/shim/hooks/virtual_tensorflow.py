"""Gives TensorFlow the virtual GPUs of the node; see ``shim/virtual_gpu``."""

__all__ = ["apply"]


def apply(module):
    """Change a module of TensorFlow's right after its import."""
    from simgrid_ml.shim.virtual_gpu import tensorflow_gpus

    tensorflow_gpus.install(module)
