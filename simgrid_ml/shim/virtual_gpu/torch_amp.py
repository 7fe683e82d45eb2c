"""Automatic mixed precision."""

__all__ = ["install"]


def install(gpus):
    torch = gpus.torch
    ac = torch.amp.autocast_mode.autocast
    o_init = ac.__init__

    def init(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        if device_type == "cuda":
            if dtype is None:
                dtype = torch.float16
            if enabled and dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported():
                raise RuntimeError(
                    "Current CUDA Device does not support bfloat16. Please switch dtype to float16."
                )
            device_type = "cpu"
        o_init(self, device_type, dtype, enabled, cache_enabled)

    ac.__init__ = init
    o_en, o_dt = torch.is_autocast_enabled, torch.get_autocast_dtype
    torch.is_autocast_enabled = lambda d="cuda": o_en("cpu" if d in (None, "cuda") else d)
    torch.get_autocast_dtype = lambda d: o_dt("cpu" if d == "cuda" else d)
    torch.get_autocast_gpu_dtype = lambda: o_dt("cpu")
