"""Has collectives carried as the plan of the run's real GPUs says; see ``shim/virtual_gpu``."""

__all__ = ["apply"]


def apply(module):
    """Change a module of torch's or of Horovod's right after its import."""
    from simgrid_ml.shim.virtual_gpu import collectives

    collectives.settle()
    if module.__name__ == "horovod.torch.mpi_ops":
        from simgrid_ml.shim.virtual_gpu import horovod_staging

        horovod_staging.install(module)
    elif module.__name__ == "torch.distributed.distributed_c10d":
        from simgrid_ml.shim.virtual_gpu import collectives_torch

        collectives_torch.install(module)
