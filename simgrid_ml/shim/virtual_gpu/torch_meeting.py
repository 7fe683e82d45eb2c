"""The first time that the ranks of a group meet, where NCCL looks whether two have the same GPU."""

import os
import sys
import warnings
import weakref

__all__ = ["CHECK_VARIABLE", "Groups", "compare", "refuse_twins"]

CHECK_VARIABLE = "SIMGRID_ML_GPU_NCCL_CHECK"
"""What happens when two ranks have the same GPU: "error", "warn" or "off"."""


class Groups:
    """The process groups of backend "nccl" in this process."""

    def __init__(self, gpus, c10d):
        self._gpus = gpus
        self._c10d = c10d
        self._met = weakref.WeakSet()
        self._said = False

    def default(self):
        """The group of all ranks; None: there is none."""
        return self._c10d.GroupMember.WORLD

    def is_nccl(self, group):
        """Whether it was asked for NCCL for tensors on GPUs."""
        return "nccl" in self._backends(group)

    def carries_gpus_alone(self, group):
        """Whether NCCL is all that it was asked for."""
        backends = self._backends(group)
        return "nccl" in backends and "cpu" not in backends

    def _backends(self, group):
        return self._c10d._world.pg_backend_config.get(group, "")

    def serve(self, group):
        """Have Gloo carry what C++ takes for tensors on the CPU."""
        torch = self._gpus.torch
        cpu, cuda = torch.device("cpu"), torch.device("cuda")
        world = self.default()
        if not self._said and (group if world is None else world).rank() == 0:
            sys.stderr.write(
                "simgrid-ml: the GPUs of the nodes live in host memory: Gloo carries what NCCL "
                "would\n"
            )
        self._said = True
        if cpu not in group._device_types:
            kind = self._c10d.ProcessGroup.BackendType.NCCL
            group._register_backend(cpu, kind, group._get_backend(cuda))

    def meet(self, group, gpu):
        """All ranks of ``group`` tell each other their GPUs, the first time.

        Raises:
            torch.distributed.DistBackendError: two have the same; on all ranks.
        """
        if group in self._met:
            return
        self._met.add(group)
        gpus = self._gpus
        gpus.lazy_init()
        device = gpus.devices[gpu]
        ledger = gpus.devices.ledger
        ledger.put_collective(device.number)
        compare(self._c10d, group, (ledger.node, device.gpu.bus_id, device.gpu.uuid), gpu)


def compare(c10d, group, place, index):
    """All ranks of ``group`` tell each other on which GPUs they are.

    Args:
        place: node, bus and UUID of this rank's GPU.
        index: what this process calls the GPU.

    Raises:
        torch.distributed.DistBackendError: two have the same; on all ranks.
    """
    if os.environ.get(CHECK_VARIABLE, "error") == "off":
        return
    _, store = c10d._world.pg_map[group]
    store.set(f"simgrid-ml/gpu/{group.rank()}", " ".join(place))
    seen = {}
    for rank in range(group.size()):
        there = store.get(f"simgrid-ml/gpu/{rank}").decode()
        if there in seen:
            node, bus, _ = there.split()
            distributed = sys.modules.get("torch.distributed")
            error = getattr(distributed, "DistBackendError", RuntimeError)  # it came with 2.0
            refuse_twins(error, f"rank {rank}", f"rank {seen[there]}", bus, node, index)
        seen[there] = rank


def refuse_twins(error, one, other, bus, node, gpu):
    """Two ranks have the same GPU: NCCL's error, or a warning, as the job wants it.

    Raises:
        error: unless ``SIMGRID_ML_GPU_NCCL_CHECK`` is not "error".
    """
    text = (
        "NCCL error: invalid usage (run with NCCL_DEBUG=WARN for details)\n"
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
        f"Duplicate GPU detected : {one} and {other} both on CUDA device {bus}\n"
        f"[simgrid-ml] both use cuda:{gpu} of {node}: call torch.cuda.set_device(local_rank) "
        "before anything else uses CUDA"
    )
    check = os.environ.get(CHECK_VARIABLE, "error")
    if check == "error":
        raise error(text)
    if check == "warn":
        warnings.warn(text, RuntimeWarning, stacklevel=4)
