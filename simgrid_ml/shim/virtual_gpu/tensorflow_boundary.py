"""Between TensorFlow's Python and its C++: configurations, lists of devices, and their names."""

from __future__ import annotations

import sys
import threading

from . import tensorflow_names, tensorflow_private

__all__ = ["context", "eager", "errors", "sessions"]

_ALLOCATOR = "bfc_cpu_allocator_for_gpu"
_NO_CUDA = " The requested device appears to be a GPU, but CUDA is not enabled."


def eager(pywrap_tfe, process):
    """What eager execution calls: ``tensorflow.python.pywrap_tfe``."""

    def extend(name, make):
        tensorflow_private.extend(pywrap_tfe, name, make)

    def listed(original):
        def TF_ListPhysicalDevices():
            gpus = range(len(process.devices))
            return [*original(), *(b"/physical_device:GPU:%d" % index for index in gpus)]

        return TF_ListPhysicalDevices

    def details(original):
        def TF_GetDeviceDetails(index):
            first = len(pywrap_tfe.TF_ListPhysicalDevices()) - len(process.devices)
            if index < first:
                return original(index)
            gpu = process.devices[index - first].gpu
            capability = "{}.{}".format(*gpu.capability)
            return {"device_name": gpu.name, "compute_capability": capability}

        return TF_GetDeviceDetails

    def configured(original):
        def TFE_ContextOptionsSetConfig(options, config):
            from tensorflow.core.protobuf import config_pb2

            wanted = config_pb2.ConfigProto.FromString(config)
            # Without eager execution it is savers and the like that ask; TensorFlow 1 had no such.
            created = process.created if _is_eager() else process.served
            return original(options, created(wanted).SerializeToString())

        return TFE_ContextOptionsSetConfig

    def of_server(original):
        def with_server(context, *arguments):
            from tensorflow.core.protobuf import tensorflow_server_pb2

            return original(context, *_served(arguments, tensorflow_server_pb2, process))

        return with_server

    def executed(original):
        def execute(handle, device, *rest):
            return original(handle, process.to_tensorflow(device), *rest)

        return execute

    def on_device(original):
        def on_device(context, device):
            return original(context, process.to_tensorflow(device))

        return on_device

    def memory(original):
        def TFE_GetMemoryInfo(context, device):
            name = process.to_tensorflow(device)
            found = original(context, name)
            is_gpu = "GPU:" in process.to_script(name)
            return process.memory.of_one(found) if is_gpu else found

        return TFE_GetMemoryInfo

    extend("TF_ListPhysicalDevices", listed)
    extend("TF_GetDeviceDetails", details)
    extend("TFE_ContextOptionsSetConfig", configured)
    for name in (
        "TFE_ContextSetServerDef",
        "TFE_ContextSetServerDefWithTimeoutAndRetries",
        "TFE_ContextUpdateServerDef",
        "TFE_EnableCollectiveOps",
    ):
        extend(name, of_server)
    extend("TFE_Py_Execute", executed)
    extend("TFE_Py_ExecuteCancelable", executed)
    extend("TFE_GetMemoryInfo", memory)
    extend("TFE_ResetMemoryStats", on_device)
    _lists(pywrap_tfe, process)


def sessions(pywrap, process):
    """What sessions and servers call: ``tensorflow.python.client.pywrap_tf_session``."""

    def options(original):
        def TF_NewSessionOptions(target=None, config=None):
            if not target:  # a server's session has the server's devices
                from tensorflow.core.protobuf import config_pb2

                config = process.created(config or config_pb2.ConfigProto())
            return original(target=target, config=config)

        return TF_NewSessionOptions

    def server(original):
        def TF_NewServer(definition):
            from tensorflow.core.protobuf import tensorflow_server_pb2

            return original(*_served([definition], tensorflow_server_pb2, process))

        return TF_NewServer

    def placed(original):
        def TF_SetDevice(operation, device):
            # What was read from C++ has its names already.
            is_gpu = "GPU:" in device.upper()
            return original(operation, process.to_tensorflow(device) if is_gpu else device)

        return TF_SetDevice

    def memory(original):
        def TF_DeviceListMemoryBytes(devices, index):
            name = pywrap.TF_DeviceListName(devices, index)
            return limit_of(name, process) or original(devices, index)

        return TF_DeviceListMemoryBytes

    tensorflow_private.extend(pywrap, "TF_NewSessionOptions", options)
    tensorflow_private.extend(pywrap, "TF_NewServer", server)
    tensorflow_private.extend(pywrap, "TF_SetDevice", placed)
    tensorflow_private.extend(pywrap, "TF_DeviceListMemoryBytes", memory)
    _lists(pywrap, process)


def _is_eager():
    from tensorflow.python.framework import ops

    return ops.executing_eagerly_outside_functions()


def limit_of(name, process):
    """Bytes of the GPU of this process with that full name; None: it is none."""
    before, _, index = name.rpartition("/device:GPU:")
    if not index.isdigit() or not process.logical or process.gpus_of(_task(before)) is None:
        return None
    return process.logical[int(index)].limit if int(index) < len(process.logical) else None


def _task(name):
    return tensorflow_names.task_of(name)


def _served(arguments, server_pb2, process):
    """``arguments`` with the definition of a server among them as it is for C++."""
    for argument in arguments:
        if not isinstance(argument, bytes):
            yield argument
            continue
        definition = server_pb2.ServerDef.FromString(argument)
        config = definition.default_session_config
        job, task = definition.job_name, definition.task_index
        config.CopyFrom(process.created(config, job=job, task=task))
        yield definition.SerializeToString()


def _lists(pywrap, process):
    """Lists of devices: the script's names, in the order of a host with GPUs."""
    seen = threading.local()

    def count(original):
        def TF_DeviceListCount(devices):
            names = [named.__wrapped__(devices, index) for index in range(original(devices))]
            seen.order = _in_order(names, process)
            return len(seen.order)

        return TF_DeviceListCount

    def name(original):
        def TF_DeviceListName(devices, index):
            return process.to_script(original(devices, seen.order[index]))

        return TF_DeviceListName

    def kind(original):
        def TF_DeviceListType(devices, index):
            name = pywrap.TF_DeviceListName(devices, index)
            return "GPU" if "/device:GPU:" in name else original(devices, seen.order[index])

        return TF_DeviceListType

    def at(original):
        def at(devices, index):
            return original(devices, seen.order[index])

        return at

    tensorflow_private.extend(pywrap, "TF_DeviceListName", name)
    named = pywrap.TF_DeviceListName
    tensorflow_private.extend(pywrap, "TF_DeviceListType", kind)
    if hasattr(pywrap, "TF_DeviceListIncarnation"):
        tensorflow_private.extend(pywrap, "TF_DeviceListIncarnation", at)
    tensorflow_private.extend(pywrap, "TF_DeviceListCount", count)


def _in_order(names, process):
    """Positions of the devices that are to be seen: of each task CPUs first, then GPUs."""
    tasks = {}
    for position, name in enumerate(names):
        before, _, index = name.rpartition("/device:CPU:")
        if index.isdigit():
            tasks.setdefault(before, {})[int(index)] = position
    shown = []
    for before, devices in tasks.items():
        task = tensorflow_names.task_of(before)
        if process.gpus_of(task) is None and max(devices) == tensorflow_names.SLOTS:
            process.has_no_gpus(task)
        gpus = process.gpus_of(task)
        seen = [index for index in devices if tensorflow_names.is_seen(index, gpus)]
        seen.sort(key=lambda index: tensorflow_names.served(index, gpus))
        shown += [devices[index] for index in seen]
    known = {position for devices in tasks.values() for position in devices.values()}
    return shown + [position for position in range(len(names)) if position not in known]


def context(module, process):
    """``tensorflow.python.eager.context``: the device that operations go to."""
    cls = module.Context

    def current(original):
        return property(lambda self: process.to_script(original.fget(self)))

    def set_device(original):
        def _set_device(self, name, spec):
            return original(self, process.to_tensorflow(name), spec)

        return _set_device

    tensorflow_private.extend(cls, "device_name", current)
    tensorflow_private.extend(cls, "_set_device", set_device)


def errors(module, process):
    """``tensorflow.python.framework.errors_impl``: what C++ says of devices."""

    def made(original):
        def __init__(self, node_def, op, message, *rest):
            # One that is made of another, as sessions do, has been read already.
            again = isinstance(sys.exc_info()[1], module.OpError)
            if isinstance(message, str) and "device:CPU:" in message and not again:
                message = process.message(message).replace(_NO_CUDA, "")
                if _ALLOCATOR in message:
                    message = _out_of_memory(message, process)
            original(self, node_def, op, message, *rest)

        return __init__

    tensorflow_private.extend(module.OpError, "__init__", made)


def _out_of_memory(message, process):
    gpus = process.logical or ()
    limit = sum(gpu.limit for gpu in gpus) >> 20
    return (
        f"{message.replace(_ALLOCATOR, 'GPU_0_bfc')}\n[simgrid-ml] this process may take {limit} "
        f"MiB of its {len(gpus)} GPU{'s' * (len(gpus) != 1)}; counted are all tensors of the "
        "process, those of the host too. Try: a smaller batch; SIMGRID_ML_GPU_STRICT=0 lifts the "
        "limit"
    )
