"""Every public name of ``torch.cuda`` and of what belongs to it: used, or refused in words.

Each is called as a script would; a name that nobody has thought of does not hold.
"""

import functools
import importlib
import os
import types

import torch
from checking import holds, raises, run

REFUSED = ("is not available", "[simgrid-ml] the GPUs of this node live in host memory")
K80_BYTES = 11441 * 2**20


def refused(call):
    """Holds where ``call`` raises the one error."""

    def check():
        with raises(RuntimeError, *REFUSED):
            call()

    return check


def fails(error, words, call):
    """Holds where ``call`` fails as it does on a GPU."""

    def check():
        with raises(error, words):
            call()

    return check


def is_(expected, call):
    def check():
        seen = call()
        assert seen == expected, repr(seen)

    return check


def entered(make):
    def check():
        with make():
            torch.ones(1, device="cuda")

    return check


def constant():
    """Nothing is called: classes of errors, versions and the like."""


cuda, memory = torch.cuda, torch.cuda.memory
half = functools.partial(torch.ones, 1024, device="cuda")


def peak():
    cuda.reset_peak_memory_stats()
    one = half()
    assert cuda.memory_allocated() <= cuda.max_memory_allocated()
    before = cuda.max_memory_allocated()
    assert before >= one.nbytes and cuda.max_memory_reserved() >= before
    assert cuda.memory_stats()["allocated_bytes.all.peak"] == before


def raw():
    before = cuda.memory_allocated()
    address = cuda.caching_allocator_alloc(2**20)
    assert cuda.memory_allocated() == before + 2**20
    cuda.caching_allocator_delete(address)
    assert cuda.memory_allocated() == before


def fraction():
    cuda.set_per_process_memory_fraction(0.5, 1)
    assert cuda.get_per_process_memory_fraction(1) == 0.5
    with raises(torch.OutOfMemoryError, "Tried to allocate"):
        torch.empty(6 * 2**30, dtype=torch.uint8, device="cuda:1")
    cuda.set_per_process_memory_fraction(1.0, 1)


def timed():
    begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    begin.record()
    end.record()
    end.synchronize()
    assert begin.elapsed_time(end) >= 0 and end.query() and begin.device == torch.device("cuda", 0)
    with raises(ValueError, "enable_timing"):
        begin.elapsed_time(cuda.Event())


def streams():
    stream = cuda.Stream(device=1, priority=-1)
    assert isinstance(stream, torch.Stream) and stream.device == torch.device("cuda", 1)
    assert stream != cuda.Stream(device=1) and stream.priority == -1
    stream.wait_stream(cuda.current_stream(1))
    stream.record_event().wait(stream)
    stream.wait_event(cuda.Event())
    half().record_stream(cuda.Stream())
    assert stream.query()
    with cuda.stream(stream):
        assert cuda.current_stream() == stream and cuda.current_device() == 1
    assert cuda.current_stream(1) == cuda.default_stream(1) and cuda.current_device() == 0
    with cuda.Stream() as entered:
        assert cuda.current_stream() == entered


def chosen():
    cuda.set_device(1)
    assert cuda.current_device() == 1 and half().device.index == 1
    cuda.set_device("cuda:0")
    with cuda.device(1):
        assert torch.zeros(1).cuda().device.index == 1
    with cuda.device_of(torch.ones(1, device="cuda:1")):
        assert cuda.current_device() == 1
    for bad in (2, "cuda:7"):
        with raises(torch.AcceleratorError, "invalid device ordinal", "this node has 2 GPUs"):
            cuda.set_device(bad)
    with raises(AssertionError, "Invalid device id"):
        cuda.get_device_properties(2)


def random_numbers():
    torch.manual_seed(3)
    numbers = torch.rand(4, device="cuda").cpu()
    torch.manual_seed(3)
    assert torch.equal(numbers, torch.rand(4))  # as on the CPU
    cuda.manual_seed(3)
    assert torch.equal(numbers, torch.rand(4, device="cuda").cpu())
    cuda.manual_seed(3)
    host = torch.get_rng_state()
    torch.rand(4, device="cuda")
    assert torch.equal(host, torch.get_rng_state())  # a GPU has numbers of its own by now
    assert cuda.initial_seed() == 3 != cuda.seed()
    torch.manual_seed(3)
    assert cuda.initial_seed() == 3


def states():
    saved, every = cuda.get_rng_state(), cuda.get_rng_state_all()
    numbers = torch.rand(4, device="cuda"), torch.rand(4, device="cuda:1")
    cuda.set_rng_state(saved)
    assert torch.equal(numbers[0], torch.rand(4, device="cuda"))
    cuda.set_rng_state_all(every)
    assert torch.equal(numbers[0], torch.rand(4, device="cuda"))
    assert len(every) == 2
    with torch.random.fork_rng():
        forked = torch.rand(4, device="cuda")
    assert torch.equal(forked, torch.rand(4, device="cuda"))


def kind(name, dtype):
    def check():
        of = getattr(cuda, name)
        assert isinstance(half().to(dtype), of) and not isinstance(torch.ones(1, dtype=dtype), of)
        made = of([1, 0])
        assert made.dtype is dtype and made.is_cuda and of(2, 3).shape == (2, 3)
        assert torch.ones(1).type(of).dtype is dtype
        assert made.type() == f"torch.cuda.{name}"

    return check


def storage(name):
    def check():
        assert getattr(cuda, name)(4).device.type == "cuda"

    return check


def names_of_gpu():
    properties = cuda.get_device_properties("cuda:1")
    assert (properties.name, properties.total_memory) == ("Tesla K80", K80_BYTES)
    assert (properties.multi_processor_count, properties.warp_size) == (13, 32)
    assert (properties.major, properties.minor) == cuda.get_device_capability() == (3, 7)
    assert "Tesla K80" in repr(properties) and str(properties.uuid) and properties.L2_cache_size


def nvml(call):
    """As torch itself: with nvidia-ml-py, or an error that names it."""

    def check():
        try:
            import pynvml  # noqa: F401
        except ImportError:
            with raises(ModuleNotFoundError, "nvidia-ml-py"):
                call()
        else:
            call()

    return check


TYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}

MEMORY = {
    "CUDAPluggableAllocator": fails(
        OSError, "", lambda: cuda.CUDAPluggableAllocator("x", "a", "b")
    ),
    "MemPool": refused(lambda: cuda.MemPool()),
    "caching_allocator_alloc": raw,
    "caching_allocator_delete": raw,
    "caching_allocator_disabled": entered(lambda: memory.caching_allocator_disabled()),
    "caching_allocator_enable": lambda: cuda.caching_allocator_enable(True),
    "change_current_allocator": refused(
        lambda: cuda.change_current_allocator(types.SimpleNamespace(allocator=lambda: None))
    ),
    "empty_cache": lambda: cuda.empty_cache(),
    "get_allocator_backend": is_("native", cuda.get_allocator_backend),
    "get_per_process_memory_fraction": fraction,
    "set_per_process_memory_fraction": fraction,
    "host_memory_stats": lambda: cuda.host_memory_stats()["num_host_alloc"] == 0,
    "host_memory_stats_as_nested_dict": lambda: bool(memory.host_memory_stats_as_nested_dict()),
    "list_gpu_processes": lambda: isinstance(cuda.list_gpu_processes(), str),
    "max_memory_allocated": peak,
    "max_memory_cached": peak,
    "max_memory_reserved": peak,
    "mem_get_info": lambda: cuda.mem_get_info(1)[0] <= cuda.mem_get_info(1)[1] == K80_BYTES,
    "memory_allocated": peak,
    "memory_cached": lambda: cuda.memory_cached() == cuda.memory_reserved(),
    "memory_reserved": peak,
    "memory_snapshot": lambda: cuda.memory_snapshot()[0]["device"] == 0,
    "memory_stats": peak,
    "memory_stats_as_nested_dict": lambda: "segment" in memory.memory_stats_as_nested_dict(),
    "memory_summary": lambda: "CUDA OOMs" in cuda.memory_summary(abbreviated=True),
    "reset_accumulated_host_memory_stats": lambda: cuda.reset_accumulated_host_memory_stats(),
    "reset_accumulated_memory_stats": lambda: cuda.reset_accumulated_memory_stats(),
    "reset_max_memory_allocated": lambda: cuda.reset_max_memory_allocated(),
    "reset_max_memory_cached": lambda: cuda.reset_max_memory_cached(),
    "reset_peak_host_memory_stats": lambda: cuda.reset_peak_host_memory_stats(),
    "reset_peak_memory_stats": peak,
    "use_mem_pool": refused(
        lambda: cuda.use_mem_pool(types.SimpleNamespace(id=(0, 1))).__enter__()
    ),
    "is_initialized": is_(True, cuda.is_initialized),
}

RANDOM = {
    "get_rng_state": states,
    "get_rng_state_all": states,
    "set_rng_state": states,
    "set_rng_state_all": states,
    "manual_seed": random_numbers,
    "manual_seed_all": lambda: cuda.manual_seed_all(1),
    "seed": random_numbers,
    "seed_all": lambda: cuda.seed_all(),
    "initial_seed": random_numbers,
    "current_device": is_(0, cuda.random.current_device),
    "device_count": is_(2, cuda.device_count),
    "is_initialized": is_(True, cuda.is_initialized),
}

STREAMS = {"Stream": streams, "Event": timed, "ExternalStream": lambda: cuda.ExternalStream(7)}

GRAPHS = {
    "CUDAGraph": refused(lambda: cuda.CUDAGraph()),
    "graph": refused(lambda: cuda.graph(cuda.CUDAGraph())),
    "graph_pool_handle": refused(cuda.graph_pool_handle),
    "is_current_stream_capturing": is_(False, cuda.is_current_stream_capturing),
    "make_graphed_callables": refused(
        lambda: cuda.make_graphed_callables(
            torch.nn.Linear(2, 2).cuda(), (torch.ones(1, 2).cuda(),)
        )
    ),
}

CUDA = {
    **{f"{name}Tensor": kind(f"{name}Tensor", dtype) for name, dtype in TYPES.items()},
    **{f"{name}Storage": storage(f"{name}Storage") for name in TYPES},
    **{f"Complex{name}Storage": storage(f"Complex{name}Storage") for name in ("Float", "Double")},
    **MEMORY,
    **RANDOM,
    **STREAMS,
    **GRAPHS,
    **dict.fromkeys(("AcceleratorError", "OutOfMemoryError", "CudaError"), constant),
    **dict.fromkeys(("DeferredCudaCallError", "cudaStatus"), constant),
    "GreenContext": fails(
        RuntimeError, "Green Context", lambda: cuda.GreenContext.create(num_sms=8)
    ),
    "StreamContext": streams,
    "can_device_access_peer": is_(True, lambda: cuda.can_device_access_peer(0, 1)),
    "check_error": lambda: cuda.check_error(cuda.cudart().cudaProfilerStart()),
    "clock_rate": nvml(lambda: cuda.clock_rate()),
    "cudart": is_(0, lambda: cuda.cudart().cudaError.success),
    "current_blas_handle": lambda: cuda.current_blas_handle(),
    "current_device": chosen,
    "current_solver_handle": lambda: cuda.current_solver_handle(),
    "current_stream": streams,
    "default_stream": streams,
    "device": chosen,
    "device_count": is_(2, cuda.device_count),
    "device_memory_used": nvml(lambda: cuda.device_memory_used()),
    "device_of": chosen,
    "get_arch_list": is_(["sm_37"], cuda.get_arch_list),
    "get_device_capability": is_((3, 7), cuda.get_device_capability),
    "get_device_name": is_("Tesla K80", cuda.get_device_name),
    "get_device_properties": names_of_gpu,
    "get_gencode_flags": is_("-gencode compute=compute_37,code=sm_37", cuda.get_gencode_flags),
    "get_stream_from_external": lambda: cuda.get_stream_from_external(5, 0).cuda_stream == 5,
    "get_sync_debug_mode": is_(0, cuda.get_sync_debug_mode),
    "init": cuda.init,
    "ipc_collect": cuda.ipc_collect,
    "is_available": is_(True, cuda.is_available),
    "is_bf16_supported": is_(False, cuda.is_bf16_supported),
    "is_tf32_supported": is_(False, cuda.is_tf32_supported),
    "memory_usage": nvml(lambda: cuda.memory_usage()),
    "power_draw": nvml(lambda: cuda.power_draw()),
    "set_device": chosen,
    "set_stream": lambda: cuda.set_stream(cuda.default_stream()),
    "set_sync_debug_mode": lambda: cuda.set_sync_debug_mode("default"),
    "stream": streams,
    "synchronize": lambda: cuda.synchronize(1),
    "temperature": nvml(lambda: cuda.temperature()),
    "utilization": nvml(lambda: cuda.utilization()),
}


def scaled():
    model = torch.nn.Linear(4, 2).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**20)
    with cuda.amp.autocast():
        seen = model(torch.ones(2, 4, device="cuda"))
        assert seen.dtype is torch.float16 and torch.is_autocast_enabled()
        with torch.autocast("cuda", enabled=False):
            assert model(torch.ones(2, 4, device="cuda")).dtype is torch.float32
    assert not torch.is_autocast_enabled() and not torch.is_autocast_enabled("cpu")
    before = model.weight.detach().clone()
    scaler.scale(seen.float().sum() * 2**10).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**19  # float16 has overflown: no step
    assert torch.equal(before, model.weight)
    with raises(RuntimeError, "does not support bfloat16", "compute capability 3.7"):
        torch.autocast("cuda", dtype=torch.bfloat16)


class Doubled(torch.autograd.Function):
    @staticmethod
    @cuda.amp.custom_fwd(cast_inputs=torch.float32)
    def forward(ctx, x):
        assert x.dtype is torch.float32 and not torch.is_autocast_enabled()
        return x * 2

    @staticmethod
    @cuda.amp.custom_bwd
    def backward(ctx, gradient):
        return gradient * 2


def custom():
    x = torch.ones(2, device="cuda", dtype=torch.float16, requires_grad=True)
    with torch.autocast("cuda"):
        Doubled.apply(x).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


AMP = {
    **dict.fromkeys(("GradScaler", "autocast"), scaled),
    **dict.fromkeys(("custom_fwd", "custom_bwd"), custom),
    "amp_definitely_not_available": is_(False, cuda.amp.common.amp_definitely_not_available),
}


def on_both(*values):
    return [torch.tensor(value, device=f"cuda:{gpu}") for gpu, value in enumerate(values)]


def copies():
    from torch.cuda import comm

    one, two = comm.broadcast(torch.tensor([1.0, 2.0]), [0, 1])
    assert [one.get_device(), two.get_device()] == [0, 1]
    out = on_both([0.0, 0.0], [0.0, 0.0])
    assert comm.broadcast(one, out=out)[1].tolist() == [1.0, 2.0]
    assert comm.reduce_add([one, two], 1).tolist() == [2.0, 4.0]
    assert comm.reduce_add_coalesced([[one], [two]], 1)[0].get_device() == 1
    assert comm.broadcast_coalesced([one], [1, 0])[0][0].get_device() == 1
    parts = comm.scatter(torch.arange(6.0), [0, 1], [4, 2])
    assert [part.tolist() for part in parts] == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0]]
    assert comm.gather(parts, destination="cpu").tolist() == torch.arange(6.0).tolist()
    assert comm.gather(parts, destination=1).get_device() == 1


def reductions():
    from torch.cuda import nccl

    both = on_both([1.0, 2.0], [3.0, 4.0])
    assert nccl.is_available(both)
    nccl.all_reduce(both)
    assert both[1].tolist() == [4.0, 6.0]
    nccl.reduce(both, both[0], 0, 2)  # the greatest
    gathered = on_both([0.0] * 4, [0.0] * 4)
    nccl.all_gather(both, gathered)
    nccl.reduce_scatter(gathered, both)
    assert both[0].tolist() == [8.0, 12.0]
    nccl.broadcast(on_both([1.0], [2.0]), 1)


COMM = dict.fromkeys(
    ("broadcast", "broadcast_coalesced", "gather", "reduce_add", "reduce_add_coalesced", "scatter"),
    copies,
)
NCCL = {
    **dict.fromkeys(("all_gather", "all_reduce", "broadcast", "reduce"), reductions),
    **dict.fromkeys(("reduce_scatter", "is_available"), reductions),
    "version": lambda: cuda.nccl.version() >= (2, 10),
    "unique_id": refused(cuda.nccl.unique_id),
    "init_rank": refused(lambda: cuda.nccl.init_rank(1, b"", 0)),
}


def marked():
    assert [cuda.nvtx.range_push("outer"), cuda.nvtx.range_push("inner")] == [0, 1]
    assert [cuda.nvtx.range_pop(), cuda.nvtx.range_pop()] == [1, 0]


NVTX = {
    "mark": lambda: cuda.nvtx.mark("x"),
    "range": entered(lambda: cuda.nvtx.range("x")),
    **dict.fromkeys(("range_push", "range_pop"), marked),
    "range_start": lambda: cuda.nvtx.range_start("x") > 0,
    "range_end": lambda: cuda.nvtx.range_end(1),
}


def tuned(name, value):
    def check():
        getattr(cuda.tunable, f"set_{name}")(value)
        assert getattr(cuda.tunable, f"get_{name}")() == value

    return check


def tuning():
    for on in (True, False):
        cuda.tunable.enable(on)
        cuda.tunable.tuning_enable(on)
        cuda.tunable.record_untuned_enable(on)
        assert cuda.tunable.is_enabled() is cuda.tunable.tuning_is_enabled() is on
        assert cuda.tunable.record_untuned_is_enabled() is on


TUNABLE = {
    **dict.fromkeys(("enable", "is_enabled", "tuning_enable", "tuning_is_enabled"), tuning),
    **dict.fromkeys(("record_untuned_enable", "record_untuned_is_enabled"), tuning),
    **{
        f"{verb}_{name}": tuned(name, value)
        for verb in ("get", "set")
        for name, value in (
            *(("filename", "tuned.csv"), ("max_tuning_duration", 5)),
            *(("max_tuning_iterations", 7), ("rotating_buffer_size", 64)),
        )
    },
    "get_results": is_((), cuda.tunable.get_results),
    "get_validators": is_((), cuda.tunable.get_validators),
    "read_file": is_(False, lambda: cuda.tunable.read_file("none.csv")),
    "set_numerical_check_tolerances": lambda: cuda.tunable.set_numerical_check_tolerances(
        True, 1, 1
    ),
    "tune_gemm_in_file": fails(
        AssertionError, "not enabled", lambda: cuda.tunable.tune_gemm_in_file("x")
    ),
    "mgpu_tune_gemm_in_file": lambda: cuda.tunable.mgpu_tune_gemm_in_file("none*", 1),
}

GDS = {
    "GdsFile": refused(lambda: cuda.gds.GdsFile("file", os.O_CREAT | os.O_RDWR)),
    "gds_register_buffer": refused(lambda: cuda.gds.gds_register_buffer(half().untyped_storage())),
    "gds_deregister_buffer": refused(
        lambda: cuda.gds.gds_deregister_buffer(half().untyped_storage())
    ),
}

backend = torch.backends.cuda


def sdp(name):
    def check():
        setting = getattr(backend, f"{name}_sdp_enabled")
        for on in (False, True):
            getattr(backend, f"enable_{name}_sdp")(on)
            assert setting() is on

    return check


def attention(name):
    def check():
        x = torch.ones(1, 1, 8, 8, device="cuda")
        given = backend.SDPAParams(x, x, x, None, 0.0, False, False)
        assert getattr(backend, f"can_use_{name}_attention")(given) is False

    return check


def plans():
    with raises(Exception, ""):
        backend.cufft_plan_cache["x"]
    backend.cufft_plan_cache[1].max_size = 10
    assert backend.cufft_plan_cache[1].max_size == 10 and backend.cufft_plan_cache[1].size == 0
    backend.cufft_plan_cache.clear()


def lowered():
    backend.matmul.allow_tf32 = True
    assert backend.matmul.allow_tf32
    backend.matmul.allow_tf32 = False


def sizes():
    assert backend.cublas_workspace_size(0) is not None
    assert backend.cublaslt_workspace_size(2048) == 2048


BACKEND = {
    **dict.fromkeys(("SDPAParams", "SDPBackend"), constant),
    **dict.fromkeys(("cuFFTPlanCache", "cuFFTPlanCacheAttrContextProp"), plans),
    "cuFFTPlanCacheManager": plans,
    "cuBLASModule": lowered,
    **{
        f"{prefix}{name}{suffix}": sdp(name)
        for name in ("cudnn", "flash", "math", "mem_efficient")
        for prefix, suffix in (("enable_", "_sdp"), ("", "_sdp_enabled"))
    },
    "allow_fp16_bf16_reduction_math_sdp": lambda: backend.allow_fp16_bf16_reduction_math_sdp(False),
    "fp16_bf16_reduction_math_sdp_allowed": is_(
        False, backend.fp16_bf16_reduction_math_sdp_allowed
    ),
    **{f"can_use_{name}_attention": attention(name) for name in ("cudnn", "efficient", "flash")},
    "blas_workspace_size": lambda: backend.blas_workspace_size() is not None,
    "cublas_workspace_size": sizes,
    "cublaslt_workspace_size": sizes,
    "is_built": is_(True, backend.is_built),
    "is_ck_sdpa_available": is_(False, backend.is_ck_sdpa_available),
    "is_flash_attention_available": is_(False, backend.is_flash_attention_available),
    "preferred_blas_library": lambda: str(backend.preferred_blas_library()),
    "preferred_linalg_library": lambda: str(backend.preferred_linalg_library()),
    "preferred_rocm_fa_library": lambda: str(backend.preferred_rocm_fa_library()),
    "sdp_kernel": entered(lambda: backend.sdp_kernel()),
}


def settings():
    library = torch.backends.cudnn
    for name in ("enabled", "benchmark", "deterministic", "allow_tf32"):
        before = getattr(library, name)
        setattr(library, name, not before)
        assert getattr(library, name) is not before
        setattr(library, name, before)
    library.benchmark_limit = 5
    assert library.benchmark_limit == 5 and library.is_available() and library.version() > 8000
    with library.flags(enabled=True, benchmark=True):
        assert library.benchmark
        seen = torch.nn.functional.conv2d(
            torch.ones(1, 1, 4, 4, device="cuda"), torch.ones(1, 1, 3, 3, device="cuda")
        )
        assert seen.sum().item() == 36


accelerator = torch.accelerator


def accelerated():
    assert accelerator.current_accelerator() == torch.device("cuda")
    accelerator.set_device_index(1)
    assert accelerator.current_device_index() == 1 == cuda.current_device()
    accelerator.set_device_index(0)
    with accelerator.device_index(1):
        assert cuda.current_device() == 1
    accelerator.synchronize()
    accelerator.set_stream(accelerator.current_stream())
    assert isinstance(accelerator.current_stream(), torch.Stream)


def accelerated_memory():
    accelerator.reset_peak_memory_stats()
    accelerator.reset_accumulated_memory_stats()
    one = half()
    assert accelerator.max_memory_allocated() >= accelerator.memory_allocated() >= one.nbytes
    assert accelerator.max_memory_reserved() >= accelerator.memory_reserved() > 0
    assert accelerator.memory_stats()["allocated_bytes.all.current"] >= one.nbytes
    assert accelerator.get_memory_info(1)[1] == K80_BYTES
    accelerator.empty_cache()
    accelerator.empty_host_cache()


ACCELERATOR = {
    **dict.fromkeys(("current_accelerator", "current_device_index", "current_stream"), accelerated),
    **dict.fromkeys(("device_index", "set_device_index", "set_stream", "synchronize"), accelerated),
    **dict.fromkeys(("empty_cache", "empty_host_cache", "get_memory_info"), accelerated_memory),
    **dict.fromkeys(("max_memory_allocated", "max_memory_reserved"), accelerated_memory),
    **dict.fromkeys(("memory_allocated", "memory_reserved", "memory_stats"), accelerated_memory),
    **dict.fromkeys(("reset_accumulated_memory_stats",), accelerated_memory),
    **dict.fromkeys(("reset_peak_memory_stats",), accelerated_memory),
    "Graph": refused(lambda: accelerator.Graph()),
    "current_device_idx": lambda: accelerator.current_device_idx() == 0,
    "set_device_idx": lambda: accelerator.set_device_idx(0),
    "device_count": is_(2, accelerator.device_count),
    "is_available": is_(True, accelerator.is_available),
    "get_device_capability": lambda: (
        torch.float32 in accelerator.get_device_capability()["supported_dtypes"]
    ),
}

MODULES = {
    "torch.cuda": CUDA,
    "torch.cuda.memory": MEMORY,
    "torch.cuda.random": RANDOM,
    "torch.cuda.streams": STREAMS,
    "torch.cuda.graphs": GRAPHS,
    "torch.cuda.amp": AMP,
    "torch.cuda.comm": COMM,
    "torch.cuda.nccl": NCCL,
    "torch.cuda.nvtx": NVTX,
    "torch.cuda.tunable": TUNABLE,
    "torch.cuda.gds": GDS,
    "torch.cuda.profiler": {
        **dict.fromkeys(("start", "stop", "profile"), entered(lambda: cuda.profiler.profile())),
        "init": fails(AssertionError, "", lambda: cuda.profiler.init("none")),  # of old CUDA
        "check_error": CUDA["check_error"],
        "cudart": CUDA["cudart"],
    },
    "torch.backends.cuda": BACKEND,
    "torch.accelerator": ACCELERATOR,
}


IMPORTED = (torch.Tensor, torch.types.Storage, torch._utils.classproperty)
"""What a module has from elsewhere, for its own use."""


def of_torch(value):
    module = str(getattr(value, "__module__", ""))
    return callable(value) and module.startswith("torch") and value not in IMPORTED


def unthought():
    raise AssertionError("nobody has thought of it")


cuda.init()
for module, known in MODULES.items():
    names = {
        name
        for name, value in vars(importlib.import_module(module)).items()
        if not name.startswith("_") and of_torch(value)
    }
    for name in sorted(names):
        holds(f"{module}.{name}", known.get(name, unthought))
holds("torch.backends.cudnn", settings)

run()
