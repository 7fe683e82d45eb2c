"""TensorFlow on slices of real GPUs: takes no more than its own, and lists what the node has.

TensorFlow divides a device into logical ones with a limit each by itself, so two slices of one
device are two GPUs to it, in one process too. What is decided is a list of devices and of limits,
when its context or a session is made. A script's own limits and growth stay.

Never run on a GPU.
"""

import os
import sys

from simgrid_ml.node.gpu_slices import fraction

from . import caps_ledger

__all__ = ["device_options", "install", "session_options"]

_MIB = 2**20


def device_options(slices, visible, limits):
    """Which devices TensorFlow sees, and the logical devices that each becomes.

    Args:
        slices: of this process.
        visible: ordinals of those that the script wants.
        limits: for each, the MiB of the logical devices it asks for; none: one as large as may be.

    Returns:
        CUDA's ordinals, and for each of them a list of MiB.
    """
    ordinals, sizes = [], []
    for index, wanted in zip(visible, limits):
        one = slices[index]
        most = one.part.process_bytes // _MIB
        if slices.alone and ordinals:
            break  # CUDA shows the first device alone
        if one.ordinal not in ordinals:
            ordinals.append(one.ordinal)
            sizes.append([])
        sizes[ordinals.index(one.ordinal)] += [min(mib, most) for mib in wanted] or [most]
    return ordinals, sizes


def session_options(slices, visible):
    """The same for a session of TensorFlow 1: devices, and which part of each it may take.

    Args:
        visible: ``visible_device_list``; "": all.

    Raises:
        ValueError: it names what is not there.
    """
    try:
        wanted = [int(word) for word in visible.split(",")] if visible else range(len(slices))
        chosen = [slices[index] for index in wanted if index >= 0]
    except (IndexError, ValueError):
        raise ValueError(
            f"'visible_device_list' listed an invalid GPU id '{visible}' but visible device count "
            f"is {len(slices)}"
        ) from None
    ordinals = list(dict.fromkeys(one.ordinal for one in chosen))
    if slices.alone:
        ordinals, chosen = ordinals[:1], chosen[:1]
    if not chosen:
        return "", 0.0
    # One part for all: what the device with the most slices takes would be too much elsewhere.
    parts = [
        fraction(
            sum(one.part.process_bytes for one in chosen if one.ordinal == ordinal),
            next(one.part.device_bytes for one in chosen if one.ordinal == ordinal),
        )
        for ordinal in ordinals
    ]
    return ",".join(map(str, ordinals)), min(parts)


class Caps:
    """What TensorFlow is told of this process's slices.

    Args:
        find: gives the slices as the environment is when it is called.
    """

    def __init__(self, find):
        self.find = find
        self.slices = find()
        self.written = None
        self.told = False

    def look(self):
        """The slices; scripts may choose among GPUs until CUDA is used."""
        if not self.told and os.environ.get("CUDA_VISIBLE_DEVICES") != self.written:
            self.slices = self.find()
            os.environ["CUDA_VISIBLE_DEVICES"] = self.written = self.slices.visible
        return self.slices

    def show(self, index):
        """Where CUDA shows one device alone, let it be that of this slice."""
        if self.slices.alone and not self.told:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.written = self.slices[index].part.device

    def begin(self, taken):
        """CUDA is in use from here on."""
        if not self.told:
            self.told = True
            caps_ledger.tell(self.slices, taken)


_caps = []


def install(module, find):
    """Change ``tensorflow.python.eager.context``, or ``tensorflow.python.client.session``."""
    from tensorflow.python.util import _pywrap_util_port

    if not _pywrap_util_port.IsGoogleCudaEnabled():
        return  # a build for the CPU
    if not _caps:
        _caps.append(Caps(find))
    if hasattr(module, "Context"):
        with_context(module, _caps[0])
    else:
        with_sessions(module, _caps[0])


def with_context(context, caps):
    """Limit what the context of TensorFlow 2 makes of the GPUs."""
    wrapped, Context = context.pywrap_tfe, context.Context

    def list_devices(original):
        def TF_ListPhysicalDevices():
            slices = caps.look()
            gpus = [f"/physical_device:GPU:{index}".encode() for index in range(len(slices))]
            return [b"/physical_device:CPU:0", *gpus]

        return TF_ListPhysicalDevices

    def details(original):
        def get_device_details(self, device):
            found = original(self, device) if device.device_type != "GPU" else {}
            if device.device_type == "GPU":
                index = int(device.name.rpartition(":")[2])
                gpu = caps.look()[index].gpu
                found = {"device_name": gpu.name, "compute_capability": gpu.capability}
            return found

        return get_device_details

    def options(original):
        def _compute_gpu_options(self):
            made = original(self)
            slices = caps.look()
            visible = [int(word) for word in made.visible_device_list.split(",") if word]
            asked = [list(one.memory_limit_mb) for one in made.experimental.virtual_devices]
            asked += [[]] * (len(visible) - len(asked))
            ordinals, sizes = device_options(slices, visible, asked)
            if ordinals:
                caps.show(visible[0])
            made.visible_device_list = ",".join(map(str, ordinals))
            kind = type(made.experimental).VirtualDevices
            del made.experimental.virtual_devices[:]
            made.experimental.virtual_devices.extend(
                kind(memory_limit_mb=limits) for limits in sizes
            )
            return made

        return _compute_gpu_options

    def initialized(original):
        def ensure_initialized(self):
            if self._initialized:
                return
            original(self)
            gpus = self.get_visible_devices("GPU")
            visible = [int(gpu.name.rpartition(":")[2]) for gpu in gpus]
            if visible[1:] and caps.slices.alone:
                sys.stderr.write(
                    f"simgrid-ml: CUDA shows a process one device here: GPU {visible[0]} alone is "
                    "used\n"
                )
            if visible:
                caps.begin(lambda: _taken(self, caps.slices, visible))

        return ensure_initialized

    wrapped.TF_ListPhysicalDevices = list_devices(wrapped.TF_ListPhysicalDevices)
    Context.get_device_details = details(Context.get_device_details)
    Context._compute_gpu_options = options(Context._compute_gpu_options)
    Context.ensure_initialized = initialized(Context.ensure_initialized)


def _taken(context, slices, visible):
    """Number of each GPU on the node, and bytes of it: at most, and now."""
    for logical, index in enumerate(visible):
        seen = context.get_memory_info(f"GPU:{logical}")
        yield slices[index].number, seen["peak"], seen["current"]


def with_sessions(session, caps):
    """Limit what sessions of TensorFlow 1 take of the GPUs."""
    original = session.BaseSession.__init__

    def __init__(self, target="", graph=None, config=None):
        if isinstance(config, session.config_pb2.ConfigProto):  # without one it is the context's
            config = _limited(config, caps)
        original(self, target, graph, config)

    session.BaseSession.__init__ = __init__


def _limited(config, caps):
    """A copy of a session's configuration, with its devices as CUDA has them and a limit."""
    copy = type(config)()
    copy.CopyFrom(config)
    gpu = copy.gpu_options
    if copy.device_count.get("GPU", 1) == 0:
        return copy
    slices = caps.look()
    wanted = gpu.visible_device_list
    gpu.visible_device_list, part = session_options(slices, wanted)
    if part:
        caps.show(int(wanted.split(",")[0]) if wanted else 0)
    if not gpu.experimental.virtual_devices and part:
        gpu.per_process_gpu_memory_fraction = min(gpu.per_process_gpu_memory_fraction or 1.0, part)
    caps.begin(lambda: ())
    return copy
