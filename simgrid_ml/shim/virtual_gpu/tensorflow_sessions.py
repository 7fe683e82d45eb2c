"""Sessions of TensorFlow 1, and the list of devices that scripts of then look at."""

from __future__ import annotations

from . import tensorflow_names, tensorflow_placement, tensorflow_private

__all__ = ["device_lib", "session"]


def session(module, process):
    """``tensorflow.python.client.session``."""

    def run(original):
        def run(self, fetches, feed_dict=None, options=None, run_metadata=None):
            config = getattr(self, "_config", None)
            if config is not None and config.log_device_placement:
                tensorflow_placement.log_graph(self.graph, process)
            result = original(self, fetches, feed_dict, options, run_metadata)
            if run_metadata is not None:
                for seen in run_metadata.step_stats.dev_stats:
                    seen.device = process.to_script(seen.device)
                for graph in run_metadata.partition_graphs:
                    for node in graph.node:
                        node.device = process.to_script(node.device)
            return result

        return run

    tensorflow_private.extend(module.BaseSession, "run", run)


def device_lib(module, process):
    """``tensorflow.python.client.device_lib``; to list devices creates them, as it always did."""
    from tensorflow.core.framework import device_attributes_pb2
    from tensorflow.core.protobuf import config_pb2

    def listed(original):
        def list_local_devices(session_config=None):
            config = process.created(session_config or config_pb2.ConfigProto())
            gpus = process.logical
            found = []
            for device in original(config):
                index = int(device.name.rpartition(":")[2])
                if not tensorflow_names.is_seen(index, len(gpus)):
                    continue
                kind, index = tensorflow_names.served(index, len(gpus))
                described = device_attributes_pb2.DeviceAttributes()
                described.CopyFrom(device)
                described.name, described.device_type = f"/device:{kind}:{index}", kind
                if kind == "GPU":
                    described.memory_limit = gpus[index].limit
                    described.physical_device_desc = describe(gpus[index].device)
                found.append(((kind, index), described))
            return [described for _, described in sorted(found, key=lambda one: one[0])]

        return list_local_devices

    tensorflow_private.extend(module, "list_local_devices", listed)


def describe(device):
    """``device`` as TensorFlow describes a physical GPU."""
    gpu = device.gpu
    return (
        f"device: {device.index}, name: {gpu.name}, pci bus id: {gpu.bus_id}, "
        "compute capability: {}.{}".format(*gpu.capability)
    )
