"""Everything of torch that is not promised to stay: where it is, and what happens when it is gone.

The other modules change torch through ``replace`` and ``extend`` only. What a version of torch
does not have is collected, said once on stderr, and left out; the rest goes on.
"""

import sys

__all__ = [
    "add",
    "annotation_type",
    "attempt",
    "available",
    "default_device",
    "extend",
    "inner_of",
    "mode_base",
    "modes",
    "no_rules_for",
    "out_of_memory",
    "reductions",
    "remember_constructors",
    "replace",
    "report",
    "scripts_alike",
    "sees_nothing",
    "storage_base",
    "tensor_base",
    "validate_device",
]

_missing = []


def replace(owner, name, new):
    """Put ``new`` in the place of ``owner.name``; what is not there is noted, and left out."""
    extend(owner, name, lambda original: new)


def extend(owner, name, make):
    """Put ``make(original)`` in the place of ``owner.name``, if there is such a thing."""
    try:
        original = getattr(owner, name)
    except AttributeError:
        _missing.append(f"{getattr(owner, '__name__', owner)}.{name}")
        return
    setattr(owner, name, make(original))


def add(owner, name, new):
    """As ``replace``, for what only some versions of torch have: nothing is said."""
    if hasattr(owner, name):
        setattr(owner, name, new)


def available(owner, name, default=None):
    """``owner.name``; where it is missing this is noted, and ``default`` returned."""
    try:
        return getattr(owner, name)
    except AttributeError:
        _missing.append(f"{getattr(owner, '__name__', owner)}.{name}")
        return default


def attempt(part, gpus):
    """Change what ``part`` is about; if this torch is too different for it, the rest goes on."""
    try:
        part.install(gpus)
    except Exception as error:
        name = part.__name__.rpartition("_")[2]
        what = " ".join(f"{type(error).__name__}: {error}".split())
        _missing.append(f"place for what is done about {name} ({what})")


def report(torch):
    """Say what this version of torch lacks, once."""
    if _missing:
        names = ", ".join(_missing)
        sys.stderr.write(
            f"simgrid-ml: torch {torch.__version__} has no {names}: "
            "what needs it is not as on a GPU, the rest is\n"
        )
        _missing.clear()


def mode_base():
    """Class of modes that see every ATen call."""
    from torch.utils._python_dispatch import TorchDispatchMode

    return TorchDispatchMode


def no_rules_for(mode):
    """PyTorch looks for a rule for each operator and mode, which takes as long as a small one."""
    try:
        from torch._library import simple_registry

        find = simple_registry.find_torch_dispatch_rule
    except (ImportError, AttributeError):  # releases before 2.5 look for none
        return

    def find_torch_dispatch_rule(operator, cls):
        return None if cls is mode else find(operator, cls)

    simple_registry.find_torch_dispatch_rule = find_torch_dispatch_rule


def modes(torch):
    """How many modes see this thread's operations."""
    return torch._C._len_torch_dispatch_stack()


def compiles_for_cuda(torch):
    """Whether Dynamo runs functions under a mode too: before 2.6, it then has C++ ask for a GPU."""
    major, minor = torch.__version__.split(".")[:2]
    return (int(major), int(minor)) < (2, 6) and torch.version.cuda is not None


def sees_nothing(torch):
    """Whether modes are out of force, as where FakeTensor looks whether CUDA starts."""
    return torch._C._dispatch_tls_is_dispatch_key_excluded(torch._C.DispatchKey.Python)


def out_of_memory(torch):
    """Class of errors of a full GPU."""
    return getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError


def tensor_base(torch):
    """The C++ class under ``torch.Tensor``."""
    return torch._C.TensorBase if hasattr(torch._C, "TensorBase") else torch._C._TensorBase


def storage_base(torch):
    """The C++ class under ``torch.UntypedStorage``."""
    return torch._C.StorageBase


def remember_constructors():
    """``torch.set_default_device`` recognises constructors as they were before they are changed."""
    from torch.utils import _device

    constructors = available(_device, "_device_constructors")
    if constructors is not None:
        constructors()


def inner_of(tensor):
    """What a tensor without memory of its own wraps, as DTensor's and vmap's do; None: nothing."""
    inner = getattr(tensor, "_local_tensor", None)
    if inner is None:
        functorch = getattr(sys.modules["torch"]._C, "_functorch", None)
        if functorch is not None and functorch.is_functorch_wrapped_tensor(tensor):
            inner = functorch.get_unwrapped(tensor)
    return inner


def scripts_alike(torch, new, original):
    """TorchScript takes ``new`` for the operator that ``original`` is."""
    table = getattr(torch.jit._builtins, "_builtin_table", None)
    if table is not None and id(original) in table:  # else it is read off torch when needed
        table[id(new)] = table[id(original)]


def annotation_type(torch, new, original):
    """TorchScript takes ``original`` in an annotation for ``new``."""
    annotations = torch.jit.annotations

    def also(function):
        def try_ann_to_type(annotation, *args, **kwargs):
            return function(new if annotation is original else annotation, *args, **kwargs)

        return try_ann_to_type

    extend(annotations, "try_ann_to_type", also)


def default_device(torch):
    """What ``torch.set_default_device``, or ``with torch.device(...)``, says; None: nothing."""
    current = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    modes = torch.overrides._get_current_function_mode_stack()
    current = next((mode for mode in reversed(modes) if hasattr(mode, "device")), current)
    return None if current is None else current.device


def validate_device(torch):
    """Checks the device in a file against those there are; None: nothing does."""
    serialization = torch.serialization
    return getattr(serialization, "validate_cuda_device", None)


def reductions():
    """How tensors are passed between processes."""
    import torch.multiprocessing.reductions as module

    return module
