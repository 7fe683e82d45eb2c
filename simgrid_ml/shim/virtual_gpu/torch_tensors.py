"""What Python sees of a tensor: its device, how it is moved, how it becomes an array."""

from . import torch_private
from .torch_state import gpu_of

__all__ = ["install"]

_DLPACK_CUDA = 2


def install(gpus):
    """Change ``torch.Tensor``; it is a Python class over C++'s, which stays as it is."""
    tensor = gpus.torch.Tensor
    tensor._virtual_gpu = None  # of those without a storage
    _devices(gpus, tensor)
    moves = _Moves(gpus)
    gpus.move = moves.move
    _moving(gpus, tensor, moves)
    _arrays(gpus, tensor)
    _pinning(tensor)
    _related(gpus, tensor)
    # the host's kernels do the work of cuDNN's
    torch_private.replace(gpus.torch.backends.cudnn, "is_acceptable", lambda tensor: False)


def _devices(gpus, tensor):
    base = torch_private.tensor_base(gpus.torch)
    device, is_cuda, is_cpu = base.device.__get__, base.is_cuda.__get__, base.is_cpu.__get__
    names = gpus.names

    def shown(self):
        gpu = gpu_of(self)
        return device(self) if gpu is None else names[gpu]

    torch_private.replace(tensor, "device", property(shown))
    torch_private.replace(
        tensor, "is_cuda", property(lambda self: gpu_of(self) is not None or is_cuda(self))
    )
    torch_private.replace(
        tensor, "is_cpu", property(lambda self: gpu_of(self) is None and is_cpu(self))
    )

    def ordinals(original):
        def get_device(self):
            gpu = gpu_of(self)
            return original(self) if gpu is None else gpu

        return get_device

    torch_private.extend(tensor, "get_device", ordinals)
    torch_private.replace(gpus.torch, "get_device", lambda input: input.get_device())


class _Moves:
    """Copies tensors between GPUs and host; a gradient goes back the way its tensor came."""

    def __init__(self, gpus):
        self._gpus = gpus
        self.to = torch_private.tensor_base(gpus.torch).to
        copy = self._copy

        class Move(gpus.torch.autograd.Function):
            @staticmethod
            def forward(ctx, tensor, gpu, dtype, memory_format):
                ctx.source, ctx.dtype = gpu_of(tensor), tensor.dtype
                return copy(tensor, gpu, dtype, memory_format)

            @staticmethod
            def backward(ctx, gradient):
                return copy(gradient, ctx.source, ctx.dtype, None), None, None, None

        self._differentiable = Move.apply

    def move(self, tensor, gpu, dtype=None, memory_format=None):
        """A copy of ``tensor`` on ``gpu``; None: on the host."""
        if gpu is not None:
            self._gpus.lazy_init()
        self._gpus.watch()
        if tensor.requires_grad and self._gpus.torch.is_grad_enabled():
            return self._differentiable(tensor, gpu, dtype, memory_format)
        return self._copy(tensor, gpu, dtype, memory_format)

    def _copy(self, tensor, gpu, dtype, memory_format):
        thread = self._gpus.thread
        before, thread.moving = thread.moving, gpu
        try:
            options = {} if memory_format is None else {"memory_format": memory_format}
            return self.to(tensor, dtype=dtype or tensor.dtype, copy=True, **options)
        finally:
            thread.moving = before


def _moving(gpus, tensor, moves):
    torch = gpus.torch

    def to(self, *args, **kwargs):
        copy = kwargs.pop("copy", False)
        memory_format = kwargs.pop("memory_format", None)
        if args and isinstance(args[0], tensor):
            device, dtype = args[0].device, args[0].dtype
            copy = copy or (len(args) > 2 and args[2])
        elif "other" in kwargs:
            device, dtype = kwargs["other"].device, kwargs["other"].dtype
        else:
            device, dtype = kwargs.get("device"), kwargs.get("dtype")
            rest = list(args)
            if rest and not isinstance(rest[0], (torch.dtype, bool)):
                device = rest.pop(0)
            if rest and (rest[0] is None or isinstance(rest[0], torch.dtype)):
                dtype = rest.pop(0) or dtype
            if len(rest) > 1:
                copy = copy or rest[1]
        here = there = gpu_of(self)
        if device is not None:
            if not isinstance(device, torch.device):
                device = torch.device(*(("cuda", device) if isinstance(device, int) else (device,)))
            if device.type not in ("cpu", "cuda"):
                return moves.to(self, *args, **{**kwargs, "copy": copy})
            if device.type == "cuda":
                gpus.lazy_init()
            there = gpus.index_of(device)
        if there != here:
            return moves.move(self, there, dtype, memory_format)
        options = {} if memory_format is None else {"memory_format": memory_format}
        return moves.to(self, dtype=dtype or self.dtype, copy=bool(copy), **options)

    def cuda(self, device=None, non_blocking=False, memory_format=None):
        gpus.lazy_init()
        gpu = gpus.index_of(device)
        if gpu is None:
            raise RuntimeError(f"Invalid device, must be cuda device, but got {device}")
        return to(self, gpus.names[gpu], memory_format=memory_format)

    def cpu(self, memory_format=None):
        return to(self, torch.device("cpu"), memory_format=memory_format)

    torch_private.replace(tensor, "to", to)
    torch_private.replace(tensor, "cuda", cuda)
    torch_private.replace(tensor, "cpu", cpu)

    def typed(original):
        def type(self, dtype=None, non_blocking=False, **kwargs):
            gpu = gpu_of(self)
            if dtype is None:
                name = original(self)
                return name if gpu is None else name.replace("torch.", "torch.cuda.", 1)
            if isinstance(dtype, torch.dtype):
                return self.to(dtype)
            name = dtype if isinstance(dtype, str) else _type_name(dtype)
            if name.startswith("torch.cuda."):
                return original(self.cuda(), name.replace("torch.cuda.", "torch.", 1))
            changed = original(self, dtype, non_blocking)
            return changed if gpu is None else moves.move(changed, None)

        return type

    torch_private.extend(tensor, "type", typed)
    torch_private.replace(tensor, "type_as", lambda self, other: to(self, other))


def _type_name(kind):
    """``"torch.cuda.FloatTensor"``, of the type or of an object like it."""
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__name__', kind)}"


def _arrays(gpus, tensor):
    def guarded(original):
        def convert(self, *args, **kwargs):
            gpu = gpu_of(self)
            if gpu is not None and not kwargs.get("force"):
                raise TypeError(
                    f"can't convert cuda:{gpu} device type tensor to numpy. Use Tensor.cpu() to "
                    "copy the tensor to host memory first.\n[simgrid-ml] write "
                    "tensor.detach().cpu().numpy(), which is right on the CPU too"
                )
            return original(self, *args, **kwargs)

        return convert

    torch_private.extend(tensor, "numpy", guarded)
    torch_private.extend(tensor, "__array__", guarded)

    def located(original):
        def __dlpack_device__(self):
            gpu = gpu_of(self)
            return original(self) if gpu is None else (type(original(self)[0])(_DLPACK_CUDA), gpu)

        return __dlpack_device__

    torch_private.extend(tensor, "__dlpack_device__", located)

    def exported(original):
        def __dlpack__(self, *args, **kwargs):
            if gpu_of(self) is not None:
                raise BufferError("a tensor on a GPU of this node has no memory that others read")
            return original(self, *args, **kwargs)

        return __dlpack__

    torch_private.extend(tensor, "__dlpack__", exported)


def _pinning(tensor):
    def pin_memory(self, device=None):
        if gpu_of(self) is not None:
            raise RuntimeError(f"cannot pin '{self.type()}' only dense CPU tensors can be pinned")
        if self.untyped_storage()._virtual_pinned:
            return self
        pinned = self.clone()
        pinned.untyped_storage()._virtual_pinned = True
        return pinned

    def is_pinned(self, device=None):
        try:
            return self.untyped_storage()._virtual_pinned
        except Exception:  # sparse
            return False

    torch_private.replace(tensor, "pin_memory", pin_memory)
    torch_private.replace(tensor, "is_pinned", is_pinned)
    torch_private.replace(tensor, "record_stream", lambda self, stream: None)


def _related(gpus, tensor):
    """Tensors made after the example of another one, past the mode."""
    torch = gpus.torch

    def news(original):
        def new(self, *args, **kwargs):
            made = original(self, *args, **kwargs)
            gpu = gpu_of(self)
            if gpu is not None and gpu_of(made) is None:
                gpus.charge(made.untyped_storage(), gpu)
            return made

        return new

    def new_tensor(self, data, *, dtype=None, device=None, requires_grad=False, **kwargs):
        return torch.tensor(
            *(data,),
            dtype=dtype or self.dtype,
            device=self.device if device is None else device,
            requires_grad=requires_grad,
        )

    torch_private.extend(tensor, "new", news)
    torch_private.replace(tensor, "new_tensor", new_tensor)

    def wrappers(original):
        def make_wrapper_subclass(cls, *args, **kwargs):
            """C++ must not believe in the GPU that the inner tensor of a DTensor shows."""
            gpu = gpus.index_of(kwargs.get("device"), default=False)
            if gpu is not None:
                kwargs["device"] = torch.device("cpu")
            made = original(cls, *args, **kwargs)
            if gpu is not None:
                made._virtual_gpu = gpu
            return made

        return staticmethod(make_wrapper_subclass)

    torch_private.extend(tensor, "_make_wrapper_subclass", wrappers)
