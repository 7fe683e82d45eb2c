"""Keeps frameworks within their slices of real GPUs, and shows these; see ``shim/virtual_gpu``."""

__all__ = ["apply"]


def apply(module):
    """Change torch, or a module of TensorFlow's, right after its import."""
    from simgrid_ml.node import gpu_slices

    if module.__name__ == "torch":
        from simgrid_ml.shim.virtual_gpu import caps_torch

        caps_torch.install(module, gpu_slices.of_process)
    else:
        from simgrid_ml.shim.virtual_gpu import caps_tensorflow

        caps_tensorflow.install(module, gpu_slices.of_process)
