"""Horovod for torch: its operations on GPU tensors are those on the host."""

from .torch_distributed import guard
from .torch_state import gpu_of, installed

__all__ = ["install"]


def install(m):
    gpus = installed()
    for name in [x for x in dir(m) if x.endswith("_function_factory")]:
        orig = getattr(m, name)

        def factory(tensor, *a, _o=orig):
            r = _o(tensor, *a)
            return r.replace("torch_cuda_", "torch_") if isinstance(r, str) else r

        setattr(m, name, factory)

    def guarded(orig):
        def f(tensor, *a, **k):
            t = tensor[0] if isinstance(tensor, (list, tuple)) else tensor
            g = gpu_of(t)
            if g is not None:
                guard(gpus, g, "horovod")
            return orig(tensor, *a, **k)

        return f

    for name in (
        "_allreduce_async",
        "_grouped_allreduce_async",
        "_allgather_async",
        "_broadcast_async",
        "_alltoall_async",
        "_reducescatter_async",
    ):
        if hasattr(m, name):
            setattr(m, name, guarded(getattr(m, name)))
