"""``torch.distributed``: gloo carries what a script gives to NCCL."""

import os

from simgrid_ml import wire

from .torch_state import gpu_of

__all__ = ["guard", "install"]

NCCL_CHECK = os.environ.get("SIMGRID_ML_GPU_NCCL_CHECK", "error")

_guarded = set()


def guard(gpus, gpu, what):
    """Called before a GPU collective: NCCL refuses two ranks of one communicator on one GPU."""
    if gpu in _guarded:
        return
    _guarded.add(gpu)
    if NCCL_CHECK == "off":
        return
    torch = gpus.torch
    number = gpus.devices[gpu].number
    ledger = gpus.devices.ledger
    ledger.put_collective(number)
    mates = [row for row in ledger.rows() if row.pid != os.getpid() and row.collective == number]
    if mates:
        msg = (
            "NCCL error: invalid usage (%s)\nncclInvalidUsage: Duplicate GPU detected : local rank %s and local "
            "rank %d both on CUDA device %d of this virtual node. Did you forget torch.cuda.set_device(local_rank)?"
            " [simgrid-ml]"
            % (what, os.environ.get(wire.LOCAL_RANK_VARIABLE, "?"), mates[0].local_rank, number)
        )
        if NCCL_CHECK == "error":
            raise getattr(torch.distributed, "DistBackendError", RuntimeError)(msg)
        import warnings

        warnings.warn(msg, stacklevel=2)


def install(gpus):
    torch = gpus.torch
    dist = torch.distributed
    if not dist.is_available():
        return
    dist.is_nccl_available = lambda: bool(gpus.devices)
    import torch.distributed.distributed_c10d as c10d

    # "nccl" keeps its name (get_backend() still says nccl) but is carried by gloo: the tensors are
    # CPU tensors for C++
    o_cfg = c10d.BackendConfig.__init__

    def cfg(self, backend):
        o_cfg(self, backend)
        if any(str(v) == "nccl" for v in self.device_backend_map.values()):
            if not gpus.devices:
                raise RuntimeError("ProcessGroupNCCL is only supported with GPUs, no GPUs found!")
            asked["nccl"] = True
            self.device_backend_map = {"cpu": c10d.Backend("gloo"), "cuda": c10d.Backend("gloo")}

    c10d.BackendConfig.__init__ = cfg
    asked = {}
    o_help = c10d._new_process_group_helper

    def helper(*a, **k):
        if "device_id" in k:
            k["device_id"] = None
        return o_help(*a, **k)

    c10d._new_process_group_helper = helper
    if not hasattr(c10d, "ProcessGroupNCCL"):

        class ProcessGroupNCCL:
            class Options:
                def __init__(self, *a, **k):
                    self._timeout, self.is_high_priority_stream, self.group_name = None, False, ""
                    self.global_ranks_in_group = []

        c10d.ProcessGroupNCCL = dist.ProcessGroupNCCL = ProcessGroupNCCL
    c10d.is_nccl_available = dist.is_nccl_available

    def group_backend(k):
        try:
            return dist.get_backend(k.get("group"))
        except Exception:
            return ""

    def wrap(name):
        orig = getattr(dist, name)

        def f(tensor, *a, **k):
            t = tensor[0] if isinstance(tensor, (list, tuple)) and tensor else tensor
            g = gpu_of(t)
            if asked.get("nccl"):
                if g is None and type(t) is torch.Tensor and group_backend(k) == "nccl":
                    raise RuntimeError("No backend type associated with device type cpu")
                if g is not None:
                    guard(gpus, g, "dist." + name)
            return orig(tensor, *a, **k)

        f.__name__ = name
        setattr(
            dist, name, f
        )  # not in c10d: its object collectives legitimately use CPU tensors here

    for n in (
        "all_reduce",
        "broadcast",
        "reduce",
        "all_gather",
        "reduce_scatter",
        "all_to_all_single",
        "all_gather_into_tensor",
        "reduce_scatter_tensor",
    ):
        wrap(n)
    import torch.nn.parallel.distributed as ddp

    o_ddp = ddp.DistributedDataParallel.__init__

    def ddp_init(self, module, *a, **k):
        p = next((p for p in module.parameters()), None)
        if p is not None and gpu_of(p) is not None and asked.get("nccl"):
            guard(gpus, gpu_of(p), "DistributedDataParallel")
        o_ddp(self, module, *a, **k)

    ddp.DistributedDataParallel.__init__ = ddp_init
