"""Which GPUs a node really has, as a process on it finds out: ``gpu_check.py [device] [context]``.

Run on every node before its first rank starts; prints one JSON object::

    ledger    what the node's ledger says: a list of uuid, name, memory_bytes, sms
    devices   what the CUDA driver says: a list of uuid, memory_bytes, sms (with ``device``)
    driver    the CUDA version that the driver serves, 12040 for 12.4
    variables what of CUDA's variables the process was given
    error     why one of the first two is not there

With ``context`` each device also says ``free_bytes`` and ``total_bytes`` as a program has them:
limits of the Multi-Process Service show there and nowhere else, and a wrong directory of it is not
an error but a whole GPU without limits.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

TYPE_CHECKING = False  # see agent.py
if TYPE_CHECKING:
    from typing import Any, Dict, List, Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

_LIBRARY = "libcuda.so.1"
_SMS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_SHOWN = ("CUDA_", "NVIDIA_VISIBLE_DEVICES")


def main(argv: Sequence[str]) -> int:
    """Look, and print what is there."""
    said: Dict[str, Any] = {
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(_SHOWN)
        }
    }
    try:
        from simgrid_ml import wire

        said["ledger"] = from_ledger(os.environ.get(wire.GPU_LEDGER_VARIABLE, ""))
        if "device" in argv:
            driver = Driver()
            said["driver"] = driver.version
            said["devices"] = driver.devices(context="context" in argv)
    except (OSError, ValueError) as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(said))
    return 0


def from_ledger(path: str) -> List[Dict[str, Any]]:
    """The node's GPUs by its ledger.

    Raises:
        OSError, ValueError: there is none.
    """
    from simgrid_ml.node.gpu_ledger import Ledger

    ledger = Ledger(path)
    try:
        return [
            {
                "uuid": gpu.uuid,
                "name": gpu.name,
                "memory_bytes": gpu.memory_bytes,
                "sms": gpu.sms,
            }
            for gpu in ledger.gpus
        ]
    finally:
        ledger.close()


class Driver:
    """The CUDA driver of this process; nothing of the GPUs is used before ``devices``.

    Raises:
        OSError: it is not there, or does not start.
    """

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL(_LIBRARY)
        self._call("cuInit", 0)
        version = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(version))
        self.version = version.value

    def devices(self, *, context: bool) -> List[Dict[str, Any]]:
        """All that this process sees, in the order of their ordinals."""
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        return [self._device(ordinal, context) for ordinal in range(count.value)]

    def _device(self, ordinal: int, context: bool) -> Dict[str, Any]:
        device, sms = ctypes.c_int(), ctypes.c_int()
        memory = ctypes.c_size_t()
        self._call("cuDeviceGet", ctypes.byref(device), ordinal)
        self._call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        self._call("cuDeviceGetAttribute", ctypes.byref(sms), _SMS, device)
        seen = {"uuid": self._uuid(device), "memory_bytes": memory.value, "sms": sms.value}
        if context:
            seen["free_bytes"], seen["total_bytes"] = self._room(device)
        return seen

    def _uuid(self, device: ctypes.c_int) -> str:
        # Of a MIG instance the first version gives the UUID of the whole GPU.
        newer = hasattr(self._cuda, "cuDeviceGetUuid_v2")
        raw = ctypes.create_string_buffer(16)
        self._call("cuDeviceGetUuid_v2" if newer else "cuDeviceGetUuid", raw, device)
        text = raw.raw.hex()
        return "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    def _room(self, device: ctypes.c_int) -> List[int]:
        handle = ctypes.c_void_p()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(handle), device)
        try:
            self._call("cuCtxSetCurrent", handle)
            self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        finally:
            self._call("cuDevicePrimaryCtxRelease_v2", device)
        return [free.value, total.value]

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code:
            raise OSError(f"{name} failed: {self._text(code)}")

    def _text(self, code: int) -> str:
        text = ctypes.c_char_p()
        if self._cuda.cuGetErrorName(code, ctypes.byref(text)) == 0 and text.value:
            return f"{text.value.decode()} ({code})"
        return str(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
