"""``torch.cuda`` and ``torch.accelerator``."""

import importlib
import sys
import time

__all__ = ["install"]


def install(gpus):
    torch = gpus.torch
    nccl = importlib.import_module("torch.cuda.nccl")
    c = sys.modules["torch.cuda"]
    n = len(gpus.devices)

    class Stream:
        def __init__(self, device=None, priority=0, **kw):
            self.device = gpus.names[gpus.index_of(device) or 0]
            self.device_index, self.priority, self.cuda_stream, self.stream_id = (
                self.device.index,
                priority,
                0,
                0,
            )
            self.device_type = 1

        def synchronize(self):
            pass

        def wait_stream(self, s):
            pass

        def wait_event(self, e):
            pass

        def query(self):
            return True

        def is_capturing(self):
            return False

        def record_event(self, event=None):
            event = event or Event()
            event.record(self)
            return event

        def __enter__(self):
            return self

        def __exit__(self, *a):
            return False

        def __eq__(self, o):
            return isinstance(o, Stream) and o.device == self.device

        def __hash__(self):
            return hash(self.device)

    class Event:
        def __init__(self, enable_timing=False, blocking=False, interprocess=False, **kw):
            self.enable_timing, self.t = enable_timing, None

        def record(self, stream=None):
            self.t = time.perf_counter()

        def synchronize(self):
            pass

        def wait(self, stream=None):
            pass

        def query(self):
            return True

        def elapsed_time(self, other):
            if not (self.enable_timing and other.enable_timing):
                raise ValueError("Both events must be created with argument 'enable_timing=True'.")
            return (other.t - self.t) * 1e3

    class StreamContext:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self.stream

        def __exit__(self, *a):
            return False

    class device:
        def __init__(self, device):
            self.idx = gpus.index_of(device) if device is not None else -1
            if isinstance(device, torch.device) and device.type != "cuda":
                self.idx = -1

        def __enter__(self):
            self.prev = gpus.thread.current
            if self.idx is not None and self.idx >= 0:
                gpus.thread.current = self.idx

        def __exit__(self, *a):
            gpus.thread.current = self.prev
            return False

    class device_of(device):
        def __init__(self, obj):
            self.idx = obj.get_device() if obj.is_cuda else -1

    class Props:
        def __init__(self, d):
            self.name, self.total_memory = d.gpu.name, d.gpu.memory_bytes
            self.multi_processor_count = d.gpu.sms
            self.major, self.minor = d.gpu.capability
            self.warp_size, self.max_threads_per_multi_processor, self.regs_per_multiprocessor = (
                32,
                2048,
                65536,
            )
            self.is_integrated = self.is_multi_gpu_board = 0
            self.L2_cache_size, self.shared_memory_per_block, self.clock_rate = (
                1572864,
                49152,
                823500,
            )
            self.uuid = d.gpu.uuid
            self.gcnArchName = ""

        def __repr__(self):
            return (
                "_CudaDeviceProperties(name='%s', major=%d, minor=%d, total_memory=%dMB, "
                "multi_processor_count=%d)"
                % (
                    self.name,
                    self.major,
                    self.minor,
                    self.total_memory >> 20,
                    self.multi_processor_count,
                )
            )

    def set_device(dev):
        i = gpus.index_of(dev)
        if isinstance(dev, int) and dev < 0:
            return
        if i is None:
            raise ValueError(f"Expected a cuda device, but got: {dev}")
        gpus.lazy_init()
        gpus.thread.current = i

    def D(dev=None):
        gpus.lazy_init()
        return gpus.devices[gpus.index_of(dev)]

    def mem_get_info(dev=None):
        d = D(dev)
        return d.free(), d.gpu.memory_bytes

    def empty_cache():
        if gpus.initialized:
            for d in gpus.devices:
                d.empty_cache()

    def reset_peak(dev=None):
        d = D(dev)
        d.reset_peaks()

    def stats(dev=None):
        d = D(dev)
        out = {}
        for k, cur, peak in (
            ("allocated_bytes", d.allocated, d.peak),
            ("reserved_bytes", d.reserved, d.peak_reserved),
            ("active_bytes", d.allocated, d.peak),
        ):
            out[k + ".all.current"], out[k + ".all.peak"] = cur, peak
        out.update(
            {
                "num_ooms": d.failures,
                "num_alloc_retries": 0,
                "allocation.all.allocated": d.allocations,
            }
        )
        return out

    def exchange(i):
        prev = gpus.thread.current
        if i >= 0:
            gpus.thread.current = gpus.index_of(i)
        return prev

    def set_fraction(f, dev=None):
        if not 0 <= f <= 1:
            raise ValueError(f"Invalid fraction value: {f}. Allowed range: 0~1")
        D(dev).fraction = f

    def seed_all(s):
        torch.default_generator.manual_seed(int(s))

    api = {
        "is_available": lambda: n > 0,
        "device_count": lambda: n,
        "_device_count_nvml": lambda: n,
        "_nvml_based_avail": lambda: False,
        "is_initialized": lambda: gpus.initialized and not gpus.forked,
        "init": gpus.lazy_init,
        "_lazy_init": gpus.lazy_init,
        "_is_in_bad_fork": lambda: gpus.forked,
        "_lazy_call": lambda f, **k: f(),
        "current_device": lambda: (gpus.lazy_init(), gpus.thread.current)[1],
        "set_device": set_device,
        "device": device,
        "device_of": device_of,
        "_DeviceGuard": device,
        "_exchange_device": exchange,
        "_maybe_exchange_device": lambda i: exchange(i),
        "synchronize": lambda device=None: (gpus.lazy_init(), gpus.index_of(device))[0],
        "get_device_name": lambda device=None: D(device).gpu.name,
        "get_device_capability": lambda device=None: D(device).gpu.capability,
        "get_device_properties": lambda device=None: Props(D(device)),
        "get_arch_list": lambda: ["sm_%d%d" % d.gpu.capability for d in gpus.devices[:1]],
        "get_gencode_flags": lambda: "",
        "can_device_access_peer": lambda a, b: (
            gpus.index_of(a) is not None and gpus.index_of(b) is not None and a != b
        ),
        "is_bf16_supported": lambda including_emulation=True: D().gpu.capability[0] >= 8,
        "is_tf32_supported": lambda: D().gpu.capability[0] >= 8,
        "Stream": Stream,
        "Event": Event,
        "StreamContext": StreamContext,
        "ExternalStream": Stream,
        "stream": lambda s: StreamContext(s),
        "set_stream": lambda s: None,
        "current_stream": lambda device=None: Stream(device),
        "default_stream": lambda device=None: Stream(device),
        "ipc_collect": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "memory_allocated": lambda device=None: gpus.devices[gpus.index_of(device)].allocated,
        "max_memory_allocated": lambda device=None: gpus.devices[gpus.index_of(device)].peak,
        "memory_reserved": lambda device=None: gpus.devices[gpus.index_of(device)].reserved,
        "max_memory_reserved": lambda device=None: (
            gpus.devices[gpus.index_of(device)].peak_reserved
        ),
        "memory_cached": lambda device=None: gpus.devices[gpus.index_of(device)].reserved,
        "max_memory_cached": lambda device=None: gpus.devices[gpus.index_of(device)].peak_reserved,
        "reset_peak_memory_stats": reset_peak,
        "reset_max_memory_allocated": reset_peak,
        "reset_max_memory_cached": reset_peak,
        "reset_accumulated_memory_stats": lambda device=None: None,
        "empty_cache": empty_cache,
        "mem_get_info": mem_get_info,
        "memory_stats": stats,
        "memory_summary": lambda device=None, abbreviated=False: "\n".join(
            "%-40s %d" % kv for kv in stats(device).items()
        ),
        "memory_snapshot": lambda *a, **k: [],
        "set_per_process_memory_fraction": set_fraction,
        "get_allocator_backend": lambda: "native",
        "list_gpu_processes": lambda device=None: "GPU:%d" % gpus.index_of(device),
        "utilization": lambda device=None: 0,
        "temperature": lambda device=None: 30,
        "power_draw": lambda device=None: 60000,
        "clock_rate": lambda device=None: 823,
        "manual_seed": lambda s: seed_all(s),
        "manual_seed_all": seed_all,
        "seed": lambda: torch.default_generator.seed(),
        "seed_all": lambda: torch.default_generator.seed(),
        "initial_seed": lambda: torch.default_generator.initial_seed(),
        "get_rng_state": lambda device="cuda": torch.default_generator.get_state(),
        "set_rng_state": lambda st, device="cuda": torch.default_generator.set_state(st.cpu()),
        "get_rng_state_all": lambda: [torch.default_generator.get_state() for _ in gpus.devices],
        "set_rng_state_all": lambda sts: (
            torch.default_generator.set_state(next(iter(sts)).cpu()) if sts else None
        ),
    }
    # torch.manual_seed() calls torch.cuda.manual_seed_all: re-seeding the shared CPU generator is harmless
    for mod in (c, c.memory, c.random, c.streams, c.graphs):
        for k, v in api.items():
            if mod is c or hasattr(mod, k):
                setattr(mod, k, v)
    c.default_generators = tuple(torch.Generator("cuda:%d" % i) for i in range(n))
    for name, dt in {
        "Float": torch.float,
        "Double": torch.double,
        "Half": torch.half,
        "BFloat16": torch.bfloat16,
        "Long": torch.long,
        "Int": torch.int,
        "Short": torch.short,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items():

        def make(dt):
            def ctor(*a, **k):
                if a and not all(isinstance(x, int) for x in a):
                    if isinstance(a[0], torch.Size):
                        return torch.empty(a[0], dtype=dt, device="cuda")
                    return torch.tensor(a[0], dtype=dt, device="cuda")
                return torch.empty(a or (0,), dtype=dt, device="cuda")

            return ctor

        setattr(c, name + "Tensor", make(dt))
    nccl.version = lambda: tuple(int(x) for x in ["2", "12", "12"])
    if not torch.version.cuda:
        torch.version.cuda = gpus.devices.ledger.cuda or "11.4"
    torch.backends.cuda.is_built = lambda: True

    acc = getattr(torch, "accelerator", None)
    if acc is not None:
        amap = {
            "is_available": lambda: n > 0,
            "device_count": lambda: n,
            "current_accelerator": lambda check_available=False: (
                torch.device("cuda") if n else None
            ),
            "current_device_index": lambda: gpus.thread.current,
            "current_device_idx": lambda: gpus.thread.current,
            "set_device_index": set_device,
            "set_device_idx": set_device,
            "synchronize": lambda device=None: None,
            "current_stream": lambda device=None: Stream(device),
            "set_stream": lambda s: None,
            "empty_cache": empty_cache,
            "memory_stats": stats,
            "device_index": device,
        }
        for k in (
            "memory_allocated",
            "max_memory_allocated",
            "memory_reserved",
            "max_memory_reserved",
            "reset_peak_memory_stats",
        ):
            amap[k] = api[k]
        for k, v in amap.items():
            if hasattr(acc, k):
                setattr(acc, k, v)
    if n:
        torch._C._get_accelerator = lambda check=None: torch.device("cuda")
        torch._C._accelerator_getAccelerator = lambda: torch.device("cuda")
    if hasattr(torch._utils, "_get_available_device_type"):
        torch._utils._get_available_device_type = lambda: "cuda" if n else None
