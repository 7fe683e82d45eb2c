"""Streams and events: what torch's classes of these names stand on.

Everything that is put on a stream has been done when the call returns, so that nobody ever waits;
order, identity and current streams are as on a GPU.
"""

import importlib
import itertools
import threading
import time

from . import torch_cuda, torch_private
from .torch_state import installed

__all__ = ["install"]

_CUDA = 1  # torch::DeviceType
_HIGHEST_PRIORITY = -5


def install(gpus):
    """Have ``torch.cuda.Stream`` and ``Event`` be of the node's GPUs."""
    torch = gpus.torch
    streams = importlib.import_module("torch.cuda.streams")
    current = _Current()
    torch._C._CudaStreamBase = _stream_base(gpus, current)
    torch._C._CudaEventBase = _event_base(gpus)
    importlib.reload(streams)  # its classes inherit from what they find in torch._C
    for name in ("Stream", "Event", "ExternalStream"):
        torch_private.add(torch.cuda, name, getattr(streams, name, None))
    torch_cuda.give(
        torch,
        "_cuda_",
        {
            "getCurrentStream": lambda device: (current.of.get(device, 0), device, _CUDA),
            "getCurrentRawStream": lambda device: current.of.get(device, 0),
            "getDefaultStream": lambda device: (0, device, _CUDA),
            "getStreamFromExternal": lambda pointer, device: (pointer, device, _CUDA),
            "setStream": current.choose(gpus),
            "isCurrentStreamCapturing": lambda: False,
        },
    )
    graphs = torch.cuda.graphs
    torch_private.add(graphs, "_cuda_isCurrentStreamCapturing", lambda: False)


class _Current(threading.local):
    """The stream of each GPU that a thread puts its work on; 0 is the default one."""

    def __init__(self):
        self.of = {}

    def choose(self, gpus):
        def set_stream(stream_id, device_index, device_type=_CUDA):
            self.of[device_index] = stream_id
            gpus.thread.current = device_index

        return set_stream


class _Stream:
    """What versions of torch without a class for streams of all kinds lack."""

    def __new__(cls, stream_id, device_index, device_type):
        stream = object.__new__(cls)
        stream.stream_id, stream.device_index = stream_id, device_index
        stream.device_type = device_type
        return stream

    @property
    def device(self):
        return installed().names[self.device_index]


def _stream_base(gpus, current):
    torch = gpus.torch
    numbers = itertools.count(1)
    base = getattr(torch, "Stream", None) or _Stream

    class CudaStreamBase(base):
        """A stream: an identity, on a GPU."""

        def __new__(
            cls, priority=0, stream_id=None, device_index=None, device_type=_CUDA, stream_ptr=None
        ):
            gpus.lazy_init()
            if stream_id is None:
                device_index = gpus.thread.current
                stream_id = next(numbers) if stream_ptr is None else stream_ptr
            stream = super().__new__(
                cls, stream_id=stream_id, device_index=device_index, device_type=device_type
            )
            stream.priority = max(_HIGHEST_PRIORITY, min(0, priority))
            return stream

        def __init__(self, *args, **kwargs):
            pass

        @property
        def cuda_stream(self):
            return self.stream_id

        @staticmethod
        def priority_range():
            return 0, _HIGHEST_PRIORITY

        def query(self):
            return True

        def synchronize(self):
            pass

        def is_capturing(self):
            return False

        def __eq__(self, other):
            mine = (self.stream_id, self.device_index)
            return mine == (other.stream_id, other.device_index)

        def __hash__(self):
            return hash((self.stream_id, self.device_index))

        def __enter__(self):
            self._entered = torch.cuda.stream(self)
            self._entered.__enter__()
            return self

        def __exit__(self, *error):
            return self._entered.__exit__(*error)

    return CudaStreamBase


def _event_base(gpus):
    torch = gpus.torch
    numbers = itertools.count(1)
    base = getattr(torch, "Event", None)  # since 2.5
    made = {} if base is None else {"device": "cpu"}

    class CudaEventBase(base or object):
        """A moment: when it was recorded."""

        def __new__(cls, enable_timing=False, blocking=False, interprocess=False, **kind):
            event = super().__new__(cls, **made)
            event.enable_timing = enable_timing
            event.cuda_event = 0  # none, until it is recorded
            event._recorded = None
            return event

        def __init__(self, *args, **kwargs):
            pass

        @property
        def device(self):
            return None if self._recorded is None else self._recorded[0]

        @classmethod
        def from_ipc_handle(cls, device, handle):
            event = cls()
            event._recorded = (torch.device(device), time.perf_counter())
            event.cuda_event = next(numbers)
            return event

        def ipc_handle(self):
            return self.cuda_event.to_bytes(64, "little")

        def record(self, stream=None):
            gpus.lazy_init()
            device = torch.cuda.current_stream().device if stream is None else stream.device
            self.cuda_event = self.cuda_event or next(numbers)
            self._recorded = (device, time.perf_counter())

        def wait(self, stream=None):
            pass

        def query(self):
            return True

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            if not (self.enable_timing and end.enable_timing):
                raise ValueError("Both events must be created with argument 'enable_timing=True'.")
            if self._recorded is None or end._recorded is None:
                raise ValueError("Both events must be recorded before calculating elapsed time.")
            return (end._recorded[1] - self._recorded[1]) * 1e3

    return CudaEventBase
