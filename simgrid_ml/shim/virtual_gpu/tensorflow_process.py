"""This process's GPUs as TensorFlow has configured them: how many, which, and with what memory.

TensorFlow creates its devices from a ``ConfigProto``, once for eager execution and once for each
session or server, and all must agree about the GPUs. ``created`` stands where C++ would do that: it
checks what is asked for, takes the memory, and gives the configuration in which CPU devices serve.
"""

from __future__ import annotations

import os
import threading

from simgrid_ml.node.gpu_devices import Devices

from . import tensorflow_memory, tensorflow_names, tensorflow_private

__all__ = ["Process", "process"]

_MIB = 2**20


class LogicalGpu:
    """A GPU as operations are placed on it: a physical one, or a part of it.

    Attributes:
        device: the physical one, see ``node/gpu_devices``.
        limit: bytes that TensorFlow may take for it.
    """

    def __init__(self, device, limit):
        self.device = device
        self.limit = limit


class Process:
    """What one process has to do with the GPUs of its node.

    Attributes:
        logical: the GPUs on which operations can be placed; None: not yet decided.
        memory: what is taken of them.
    """

    def __init__(self):
        self._devices = None
        self._lock = threading.RLock()
        self._own = set()
        self._without = set()
        self._cache = {}
        self._waiting = []
        self.logical = None
        self.memory = tensorflow_memory.Memory()

    @property
    def devices(self):
        """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves."""
        if self._devices is None:
            self._devices = Devices()
        elif self.logical is None:
            self._devices.look_again()
        return self._devices

    # -- names -----------------------------------------------------------------------------
    def gpus_of(self, task):
        """How many GPUs a task has, see ``tensorflow_names``; None: it has to be known there."""
        if task is None or task in self._own:
            return len(self.devices if self.logical is None else self.logical)
        return 0 if task in self._without else None

    def is_task(self, job, task):
        """From here on this process is also called so."""
        with self._lock:
            self._own.add((job, task))
            self._cache.clear()

    def has_no_gpus(self, task):
        """Another task was seen to have none."""
        with self._lock:
            self._without.add(task)
            self._cache.clear()

    def to_tensorflow(self, name):
        """What C++ calls the device ``name`` of the script's; what is no name stays."""
        return self._cached(tensorflow_names.to_tensorflow, name)

    def to_script(self, name):
        """What the script calls the device ``name`` of C++'s; what is no name stays."""
        return self._cached(tensorflow_names.to_script, name)

    def _cached(self, change, name):
        if not name or not isinstance(name, str):
            return name
        key = change, name
        known = self._cache.get(key)
        if known is None:
            known = change(name, self.gpus_of)
            if self.logical is not None:  # before, it may change
                self._cache[key] = known
            if change is tensorflow_names.to_tensorflow:
                self._look(name, known)
        return known

    def _look(self, name, known):
        if "GPU:" not in known.upper():
            return
        have = self.gpus_of(None)
        names = ", ".join(f"GPU:{index}" for index in range(have))
        tensorflow_private.say_once(
            f"tf.device({name!r}): this process sees {names or 'no GPU'}. With soft placement, the "
            "default of TensorFlow 2, operations placed there silently run elsewhere, here as in "
            "the cloud. Try: a rank's GPU by its local rank; "
            "tf.config.set_soft_device_placement(False) makes this an error"
        )

    def message(self, text):
        """An error's text, with devices as scripts call them."""
        return tensorflow_names.message_to_script(text, self.gpus_of)

    # -- configuration ---------------------------------------------------------------------
    def created(self, config, *, job=None, task=0):
        """Devices are created with ``config``; the GPUs are as it says from here on.

        Args:
            config: a ``ConfigProto``; it is not changed.
            job, task: of a server.

        Returns:
            The ``ConfigProto`` for C++.

        Raises:
            tf.errors.OpError: as TensorFlow's, where GPUs cannot be had like this.
        """
        with self._lock:
            if job is not None:
                self.is_task(job, task)
            wanted = self._wanted(config)
            if self.logical is None:
                if wanted and job == "ps":
                    self.memory.hold_back(wanted, task)
                else:
                    self.memory.take(wanted, config, self.devices)
                self.logical = wanted
                self._cache.clear()
                for index, met, look in self._waiting:
                    self.when_created(index, met, look)
            elif wanted and self.logical:
                self._compare(wanted)
            return self._served(config, self.logical)

    def when_created(self, index, met, look):
        """Have ``look`` at GPU ``index``, once: now, or as soon as sessions have chosen GPUs.

        Args:
            index: of a logical GPU; None, or one that is not there: nothing happens.
            met: those that were looked at; ``look(devices, device)``.
        """
        if self.logical is None:
            self._waiting.append((index, met, look))
        elif index is not None and index < len(self.logical):
            device = self.logical[index].device
            if device not in met:
                met.add(device)
                look(self.devices, device)

    def served(self, config):
        """As ``created``, for devices by which no GPUs are used or chosen."""
        with self._lock:
            return self._served(config, self._wanted(config))

    def _wanted(self, config):
        devices = list(self.devices)
        options = config.gpu_options
        chosen = _listed(options.visible_device_list, devices)
        if "GPU" in config.device_count:
            chosen = chosen[: config.device_count["GPU"]]
        parts = list(options.experimental.virtual_devices)
        fraction = options.per_process_gpu_memory_fraction
        found = []
        for place, device in enumerate(chosen):
            total = device.gpu.memory_bytes
            limits = parts[place].memory_limit_mb if place < len(parts) else ()
            if limits:
                found += [LogicalGpu(device, min(int(mib) * _MIB, total)) for mib in limits]
            else:
                found.append(LogicalGpu(device, int(total * min(fraction, 1)) or None))
        return found[: tensorflow_names.SLOTS - 1]

    def _compare(self, wanted):
        for index, (now, before) in enumerate(zip(wanted, self.logical)):
            if now.device is not before.device:
                from tensorflow.python.framework import errors_impl

                raise errors_impl.AlreadyExistsError(
                    None,
                    None,
                    f"TensorFlow device (GPU:{index}) is being mapped to multiple devices "
                    f"({now.device.index} now, and {before.device.index} previously), which is not "
                    "supported. This may be the result of providing different GPU configurations "
                    "(ConfigProto.gpu_options, for example different visible_device_list) when "
                    "creating multiple Sessions in the same process. This is not currently "
                    "supported, see https://github.com/tensorflow/tensorflow/issues/19083",
                )

    def _served(self, config, gpus):
        from tensorflow.core.protobuf import config_pb2

        served = config_pb2.ConfigProto()
        served.CopyFrom(config)
        served.ClearField("gpu_options")
        served.device_count.pop("GPU", None)
        cpus = max(1, config.device_count.get("CPU", 1))
        if cpus > 1:
            cpus += tensorflow_names.SLOTS
        elif gpus:
            cpus = 1 + len(gpus)
        else:
            # Others reach this one's CPU by CPU:1; who looks sees by so many that it has no GPU.
            cpus = tensorflow_names.SLOTS + 1
        served.device_count["CPU"] = cpus
        served.log_device_placement = False
        return served


def _listed(value, devices):
    """The GPUs of ``visible_device_list``; without it all."""
    from tensorflow.python.framework import errors_impl

    if not value:
        return devices
    chosen = []
    for word in value.split(","):
        if not word.strip().isdigit():
            raise errors_impl.InvalidArgumentError(
                None,
                None,
                f"Could not parse entry in 'visible_device_list': '{word}'. "
                f"visible_device_list = {value}",
            )
        index = int(word)
        if index >= len(devices):
            have = os.environ.get("CUDA_VISIBLE_DEVICES")
            hidden = "" if have is None else f", of which CUDA_VISIBLE_DEVICES={have} leaves these"
            total = len(devices.ledger.gpus) if isinstance(devices, Devices) else len(devices)
            raise errors_impl.InvalidArgumentError(
                None,
                None,
                f"'visible_device_list' listed an invalid Device id '{index}' but visible device "
                f"count is {len(devices)}\n[simgrid-ml] this node has {total} GPUs{hidden}. "
                "Try: the local rank, str(hvd.local_rank()), not the rank",
            )
        if devices[index] in chosen:
            raise errors_impl.InvalidArgumentError(
                None, None, f"visible_device_list contained a duplicate entry: {word}"
            )
        chosen.append(devices[index])
    return chosen


process = Process()
"""The one that this is."""
