"""Where a node's GPUs are parts of one device: "cuda:1" means the same device as "cuda:0".

A process uses one part of each device. What it calls by the part's ordinal is given to CUDA by the
device's; tensors then say the device's, and that may be given back. Functions that take a device
are wrapped, all others are not: an operation costs what it did.
"""

import functools

__all__ = ["FACTORIES", "install", "wrap"]

FACTORIES = (
    *("tensor", "as_tensor", "asarray", "scalar_tensor", "sparse_coo_tensor", "from_file"),
    *("zeros", "ones", "empty", "full", "eye", "arange", "range", "linspace", "logspace"),
    *("zeros_like", "ones_like", "empty_like", "full_like", "empty_strided"),
    *("rand", "randn", "randint", "randperm", "normal"),
    *("rand_like", "randn_like", "randint_like"),
    *("tril_indices", "triu_indices", "complex", "load"),
    *("hann_window", "hamming_window", "bartlett_window", "blackman_window", "kaiser_window"),
    "set_default_device",
)
_METHODS = ("to", "new_tensor", "new_zeros", "new_ones", "new_empty", "new_full")


def install(torch, caps):
    """Wrap what takes a device."""

    def real(index):
        return torch.device("cuda", caps.ordinal(index))

    wrap(torch, real)
    cuda = torch.cuda
    get_index = cuda._get_device_index

    def _get_device_index(device, optional=False, allow_cpu=False):
        index = get_index(device, optional, allow_cpu)
        return caps.seen(index) if type(index) is int and index >= 0 else index

    for module in (cuda, cuda.memory):  # each has a name of its own for it
        module._get_device_index = _get_device_index

    def __init__(self, device):
        index = get_index(device, optional=True)
        self.idx = caps.ordinal(index) if index >= 0 else index
        self.prev_idx = -1

    def current_device():
        cuda._lazy_init()
        return caps.slices.shown(torch._C._cuda_getDevice())

    def set_device(device):
        index = get_index(device)
        if index >= 0:
            ordinal = caps.ordinal(index)
            torch._C._cuda_setDevice(ordinal)
            caps.cap(ordinal)

    def synchronize(device=None):
        """Scripts do so for all GPUs in turn, and use none of them by that."""
        cuda._lazy_init()
        before = torch._C._cuda_getDevice()
        torch._C._cuda_setDevice(_get_device_index(device, optional=True))
        try:
            torch._C._cuda_synchronize()
        finally:
            torch._C._cuda_setDevice(before)

    def of_generator(function, position):
        """``function``, which takes a device at ``position``, for CUDA's generator."""

        @functools.wraps(function)
        def call(*args, **kwargs):
            given = list(args)
            if len(given) > position:
                given[position] = _seen(given[position])
            elif "device" in kwargs:
                kwargs["device"] = _seen(kwargs["device"])
            return function(*given, **kwargs)

        return call

    def _seen(device):
        return torch.device("cuda", _get_device_index(device, optional=True))

    for name, position in (("get_rng_state", 0), ("set_rng_state", 1)):
        wrapped = of_generator(getattr(cuda.random, name), position)
        for module in (cuda, cuda.random):
            setattr(module, name, wrapped)
    cuda.synchronize = synchronize
    cuda.device.__init__ = __init__
    cuda.current_device = current_device
    cuda.set_device = set_device
    accelerator = getattr(torch, "accelerator", None)  # since 2.6, and renamed since
    for names, new in (
        (("device_count",), cuda.device_count),
        (("current_device_index", "current_device_idx"), current_device),
        (("set_device_index", "set_device_idx"), set_device),
        (("synchronize",), synchronize),
    ):
        for name in names:
            if hasattr(accelerator, name):
                setattr(accelerator, name, new)


def wrap(torch, real):
    """Give the functions and methods that take a device ``real(index)`` for "cuda:index".

    Args:
        real: gives the ``torch.device`` for a script's index, or raises RuntimeError.
    """
    device = torch.device

    def of(value):
        """``value``, or the real device if it names one by index."""
        if type(value) is str:
            if not value.startswith("cuda:"):
                return value
            value = device(value)
        elif type(value) is not device or value.type != "cuda" or value.index is None:
            return value
        return real(value.index)

    def translated(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            args = [of(value) for value in args]
            for name in ("device", "map_location"):
                value = kwargs.get(name)
                if type(value) is dict:
                    kwargs[name] = {key: of(there) for key, there in value.items()}
                elif value is not None:
                    kwargs[name] = real(value) if type(value) is int else of(value)
            return function(*args, **kwargs)

        return call

    def moved(function):
        """As ``to(1)`` and ``cuda(1)`` take a bare number."""
        inner = translated(function)

        @functools.wraps(function)
        def call(self, device=None, *args, **kwargs):
            if device is None:
                return inner(self, *args, **kwargs)
            if type(device) is int:
                device = real(device)
            return inner(self, device, *args, **kwargs)

        return call

    for name in FACTORIES:
        original = getattr(torch, name, None)
        if original is not None and not isinstance(original, type):
            setattr(torch, name, translated(original))
    for name in _METHODS:
        setattr(torch.Tensor, name, translated(getattr(torch.Tensor, name)))
    for owner in (torch.Tensor, torch.nn.Module):
        owner.to = moved(owner.to)
        owner.cuda = moved(owner.cuda)
    torch.nn.Module.to_empty = translated(torch.nn.Module.to_empty)
