"""What the CUDA driver says of the devices that this process sees, asked without any framework."""

from __future__ import annotations

import ctypes
from typing import Any, Dict, List

__all__ = ["Driver"]

_LIBRARY = "libcuda.so.1"
_SMS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT


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
