"""Memory of GPUs under TensorFlow: what a process takes of them, and when it has run out.

A process that does not ask for growth or a limit takes nearly all of every GPU it sees when
TensorFlow creates its devices, so that a second one on the same GPU fails: that is what pinning is
for. Of what is taken, TensorFlow's own allocator keeps account and refuses what is beyond the
limit. There is one such allocator in a process, for all its tensors: those of several GPUs share
it, and those of the host are counted too.
"""

from __future__ import annotations

import os
import threading
import time

from . import tensorflow_private

__all__ = ["Memory"]

_SHARE = 0.92
"""Of a GPU's memory, where nothing is said; TensorFlow leaves some to the system."""
_PERIOD_S = 0.25
_ALLOCATOR = "TF_CPU_ALLOCATOR_USE_BFC"
_LIMIT = "TF_CPU_BFC_MEM_LIMIT_IN_MB"
_OURS = "SIMGRID_ML_GPU_TF_LIMIT_MIB"
_UNLIMITED_MIB = 2**24
_STRICT = "SIMGRID_ML_GPU_STRICT"
_MIB = 2**20


class Memory:
    """What this process takes of its GPUs.

    Attributes:
        shares: how many GPUs the allocator's account is for.
    """

    def __init__(self):
        self.shares = 0
        self._limit = 0
        self._growing = []
        self._handle = None

    def take(self, gpus, config, devices):
        """The memory that TensorFlow takes of ``gpus`` when it creates them.

        Raises:
            tf.errors.InternalError: other processes have it.
        """
        if not gpus:
            return
        devices.attach()
        chosen = list(dict.fromkeys(gpu.device for gpu in gpus))
        devices.ledger.put_visible([device.number for device in chosen])
        grows = _grows(config)
        seized = {}
        try:
            for device in chosen:
                limits = [gpu.limit for gpu in gpus if gpu.device is device]
                if None not in limits:
                    wanted = min(sum(limits), device.gpu.memory_bytes)
                else:
                    wanted = 0 if grows else int(device.gpu.memory_bytes * _SHARE)
                seized[device] = wanted
                _seize(device, wanted, devices.ledger)
        except Exception:
            for device in seized:
                devices.ledger.put(device.number, 0)
            raise
        self._limit = sum(size or device.gpu.memory_bytes for device, size in seized.items())
        self._growing = [device for device, size in seized.items() if not size]
        for gpu in gpus:
            if gpu.limit is None:
                gpu.limit = int(gpu.device.gpu.memory_bytes * _SHARE)
        self._count(len(chosen))
        if self._growing:
            watch = threading.Thread(
                target=self._watch, args=(config, devices.ledger), daemon=True, name="gpu-memory"
            )
            watch.start()

    def hold_back(self, gpus, task):
        """A parameter server takes nothing, and it is said what it would take."""
        for gpu in gpus:
            gpu.limit = gpu.limit or int(gpu.device.gpu.memory_bytes * _SHARE)
        tensorflow_private.say_once(
            f"parameter server {task} sees GPUs and would take most of their memory in the cloud, "
            "with little left for a worker on the same node; nothing is taken here. Try: "
            'CUDA_VISIBLE_DEVICES="" in its environment, before TensorFlow is imported, or '
            'tf.train.Server(..., config=tf.ConfigProto(device_count={"GPU": 0}))'
        )

    def _count(self, shares):
        self.shares = shares
        os.environ.setdefault(_ALLOCATOR, "true")
        # What a parent has set for itself is not the job's wish.
        if os.environ.get(_LIMIT) == os.environ.get(_OURS):
            strict = os.environ.get(_STRICT) != "0"
            limit = max(1, self._limit // _MIB) if strict else _UNLIMITED_MIB
            os.environ[_LIMIT] = os.environ[_OURS] = str(limit)

    def of_one(self, info):
        """The account of one GPU; ``info`` is the allocator's."""
        return {what: size // max(1, self.shares) for what, size in info.items()}

    def _watch(self, config, ledger):
        """With growth, memory is taken as it is needed and never given back."""
        taken = dict.fromkeys(self._growing, 0)
        while True:
            time.sleep(_PERIOD_S)
            peak = self._peak(config)
            if peak is None:
                return
            for device, before in taken.items():
                now = peak // max(1, self.shares)
                if now <= before:
                    continue
                taken[device] = now
                ledger.put(device.number, now + device.gpu.context_bytes)
                if now + ledger.others(device.number) > device.gpu.memory_bytes:
                    tensorflow_private.say_once(
                        f"the processes of this node have taken more memory of GPU {device.number} "
                        f"than its {device.gpu.memory_bytes // _MIB} MiB: in the cloud one of them "
                        "ends with an OOM here. Try: a GPU for each, or memory limits"
                    )

    def _peak(self, config):
        from tensorflow.core.protobuf import config_pb2
        from tensorflow.python import pywrap_tfe

        try:
            if self._handle is None:
                # Only to ask: eager execution may be off, and the allocator is the process's.
                own = config_pb2.ConfigProto(
                    intra_op_parallelism_threads=config.intra_op_parallelism_threads
                )
                options = pywrap_tfe.TFE_NewContextOptions()
                pywrap_tfe.TFE_ContextOptionsSetConfig.__wrapped__(options, own.SerializeToString())
                self._handle = pywrap_tfe.TFE_NewContext(options)
                pywrap_tfe.TFE_DeleteContextOptions(options)
            return pywrap_tfe.TFE_GetMemoryInfo.__wrapped__(self._handle, "CPU:0")["peak"]
        except Exception as error:
            tensorflow_private.say_once(f"memory under growth is not counted: {error}")
            return None


def _seize(device, wanted, ledger):
    context = device.gpu.context_bytes
    # First taken, then looked: of two at the same time at least one sees the other.
    ledger.put(device.number, max(wanted + context, 1))
    others = ledger.others(device.number)
    if wanted + context + others > device.gpu.memory_bytes:
        raise _no_room(device, others)


def _grows(config):
    forced = os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH", "").lower()
    if forced in ("true", "1", "false", "0"):
        return forced in ("true", "1")
    return config.gpu_options.allow_growth


def _no_room(device, others):
    from tensorflow.python.framework import errors_impl

    return errors_impl.InternalError(
        None,
        None,
        f"failed initializing StreamExecutor for CUDA device ordinal {device.index}: INTERNAL: "
        "failed call to cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY: out of memory; total "
        f"memory reported: {device.gpu.memory_bytes}\n[simgrid-ml] other processes of this node "
        f"have {others // _MIB} MiB of this GPU, a {device.gpu.name}; without memory growth "
        "TensorFlow takes nearly all of every GPU it sees. Try: a GPU for each rank, by "
        "tf.config.set_visible_devices(gpus[hvd.local_rank()], 'GPU') or, in TensorFlow 1, "
        "config.gpu_options.visible_device_list = str(hvd.local_rank())",
    )
