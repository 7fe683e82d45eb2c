"""What each framework estimator of Azure ML brought along: its versions, pins and images.

Facts of the service, kept to fill ``run_config`` as it does and to recognise its packages in the
run configuration of a real SDK object. What is installed for them today is another table,
``environments.catalog``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from simgrid_ml.azure.conda_dependencies import CondaDependencies

__all__ = [
    "DEFAULT_CPU_IMAGE",
    "DEFAULT_GPU_IMAGE",
    "FRAMEWORK_REGISTRY",
    "base_image",
    "dependencies",
    "is_framework",
    "is_service_image",
    "notebook_image",
    "of_framework_image",
    "pins",
    "releases",
    "versions",
]

_REGISTRY = "mcr.microsoft.com/azureml/"
FRAMEWORK_REGISTRY = "viennaprivate.azurecr.io"
DEFAULT_CPU_IMAGE = f"{_REGISTRY}openmpi4.1.0-ubuntu22.04:20251130.v1"
DEFAULT_GPU_IMAGE = f"{_REGISTRY}openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04"

_INTEL = "base:intelmpi2018.3-ubuntu16.04"
_OPEN = "base:openmpi3.1.2-ubuntu16.04"
_CUDA10 = "base-gpu:openmpi3.1.2-cuda10.0-cudnn7-ubuntu16.04"
_CUDA11 = "base-gpu:openmpi4.1.0-cuda11.1-cudnn8-ubuntu20.04"
_DATED_INTEL = "intelmpi2018.3-ubuntu16.04:20200423.v1"
_DATED_INTEL_CUDA9 = "intelmpi2018.3-cuda9.0-cudnn7-ubuntu16.04:20200704.v1"
_DATED_INTEL_CUDA10 = "intelmpi2018.3-cuda10.0-cudnn7-ubuntu16.04:20200704.v1"
_DATED_OPEN = "openmpi4.1.0-ubuntu20.04:20200423.v1"
_DATED_OPEN_CUDA11 = "openmpi4.1.0-cuda11.1-cudnn8-ubuntu20.04:"
_INTEL_CUDA9 = "base-gpu:intelmpi2018.3-cuda9.0-cudnn7-ubuntu16.04"

_FUTURE = ("tensorboard==1.14.0", "future==0.17.1")
_DATASETS = "azureml-dataset-runtime[fuse,pandas]"


@dataclass(frozen=True)
class _Release:
    """What one version of a framework comes with, all on Python 3.6.2.

    Attributes:
        pins: requirement lines, in the service's order.
        gpu_pins: the same for its GPU flavour.
        image, gpu_image: below ``mcr.microsoft.com/azureml/``.
    """

    pins: tuple[str, ...]
    gpu_pins: tuple[str, ...]
    image: str
    gpu_image: str


def _torch(
    torch: str, vision: str, horovod: str, image: str, gpu_image: str, *more: str
) -> _Release:
    pins = (f"torch=={torch}", f"torchvision=={vision}", f"horovod=={horovod}", *more)
    return _Release(pins, pins, image, gpu_image)


def _tensorflow(pins: str, image: str, gpu_image: str) -> _Release:
    """``pins``: ``{tensorflow}`` in them is the package, which is another one for GPUs."""
    cpu, gpu = (pins.format(tensorflow=name) for name in ("tensorflow", "tensorflow-gpu"))
    return _Release(tuple(cpu.split()), tuple(gpu.split()), image, gpu_image)


def _chainer(version: str, cupy: str) -> _Release:
    pins = (f"chainer=={version}", "mpi4py==3.0.0")
    return _Release(pins, (*pins, f"cupy-cuda90=={cupy}"), _INTEL, _INTEL_CUDA9)


_SCIKIT_LEARN = ("scikit-learn==0.20.3", "scipy==1.2.1", "joblib==0.13.2")

_TABLE: dict[str, dict[str, _Release]] = {
    "pytorch": {
        "1.0": _torch("1.0", "0.4.1", "0.18.1", _INTEL, _CUDA10),
        "1.1": _torch("1.1", "0.4.1", "0.18.1", _INTEL, _CUDA10, *_FUTURE),
        "1.2": _torch("1.2", "0.4.1", "0.18.1", _INTEL, _CUDA10, *_FUTURE),
        "1.3": _torch("1.3.1", "0.4.1", "0.18.1", _INTEL, _CUDA11, *_FUTURE),
        "1.4": _torch("1.4.0", "0.5.0", "0.18.1", _OPEN, _CUDA11, *_FUTURE),
        "1.5": _torch("1.5.0", "0.5.0", "0.19.1", _OPEN, _CUDA11, *_FUTURE),
        "1.6": _torch(
            "1.6.0",
            "0.5.0",
            "0.19.5",
            "openmpi3.1.2-ubuntu16.04",
            "openmpi4.1.0-cuda11.1-cudnn8-ubuntu20.04",
            *_FUTURE,
        ),
    },
    "tensorflow": {
        "1.10": _tensorflow(
            f"{_DATASETS} {{tensorflow}}==1.10.0 horovod==0.15.2", _DATED_INTEL, _DATED_INTEL_CUDA9
        ),
        "1.12": _tensorflow(
            f"{_DATASETS} {{tensorflow}}==1.12.0 horovod==0.15.2", _DATED_INTEL, _DATED_INTEL_CUDA9
        ),
        "1.13": _tensorflow(
            f"{_DATASETS} {{tensorflow}}==1.13.1 horovod==0.16.1", _DATED_INTEL, _DATED_INTEL_CUDA10
        ),
        "2.0": _tensorflow(
            f"{_DATASETS} {{tensorflow}}==2.0.0 horovod==0.18.1",
            _DATED_OPEN,
            f"{_DATED_OPEN_CUDA11}20200704.v1",
        ),
        "2.1": _tensorflow(
            "{tensorflow}==2.1.0 horovod==0.19.1", _DATED_OPEN, f"{_DATED_OPEN_CUDA11}20200423.v1"
        ),
        "2.2": _tensorflow(
            "{tensorflow}==2.2.0 horovod==0.19.5", _DATED_OPEN, f"{_DATED_OPEN_CUDA11}20200423.v1"
        ),
        "2.3": _tensorflow(
            "{tensorflow}==2.3.0 cmake==3.18.2 horovod==0.20.0",
            _DATED_OPEN,
            f"{_DATED_OPEN_CUDA11}20200423.v1",
        ),
    },
    "chainer": {"5.1.0": _chainer("5.1.0", "5.2.0"), "7.0.0": _chainer("7.0.0", "7.0.0")},
    "sklearn": {"0.20.3": _Release(_SCIKIT_LEARN, _SCIKIT_LEARN, _DATED_INTEL, "")},
}
_PACKAGES = {
    "pytorch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-gpu"),
    "chainer": ("chainer",),
    "sklearn": ("scikit-learn",),
}
_FRAMEWORK_IMAGE = re.compile(r"(pytorch|sklearn|tensorflow|chainer):([\w.]+)-(cpu|gpu)\Z")


def versions(framework: str) -> list[str]:
    """
    >>> versions("PyTorch")[-1]
    '1.6'
    """
    return sorted(_TABLE[framework.lower()])


def pins(framework: str, version: str, processor: str = "cpu") -> tuple[str, ...]:
    """
    >>> pins("TensorFlow", "2.2", "gpu")
    ('tensorflow-gpu==2.2.0', 'horovod==0.19.5')
    """
    release = _TABLE[framework.lower()][version]
    return release.gpu_pins if processor == "gpu" else release.pins


def releases() -> Iterator[tuple[str, str]]:
    """Framework and version of all."""
    for name, table in _TABLE.items():
        for version in table:
            yield name, version


def is_framework(framework: str, package: str) -> bool:
    """Whether the package is the framework itself, and not what comes with it."""
    return package in _PACKAGES[framework]


def base_image(framework: str, version: str, processor: str) -> str:
    release = _TABLE[framework.lower()][version]
    return _REGISTRY + (release.gpu_image if processor == "gpu" else release.image)


def dependencies(framework: str, version: str, processor: str = "cpu") -> CondaDependencies:
    """The specification the service builds the framework's environment from."""
    packages = ["azureml-defaults", *pins(framework, version, processor)]
    return CondaDependencies(
        _underlying_structure={"dependencies": ["python=3.6.2", {"pip": packages}]}
    )


def notebook_image(use_gpu: bool) -> str:
    cuda = "-cuda10.0-cudnn7" if use_gpu else ""
    return f"{_REGISTRY}openmpi3.1.2{cuda}-ubuntu16.04"


def of_framework_image(image: str | None) -> tuple[str, str, str] | None:
    """Framework, version and processor of one of the service's ready-made private images.

    >>> of_framework_image("pytorch:1.4-gpu")
    ('pytorch', '1.4', 'gpu')
    """
    match = _FRAMEWORK_IMAGE.match(image or "")
    if match is None:
        return None
    framework, version, processor = match.groups()
    return framework, version, processor


def is_service_image(image: str) -> bool:
    """Whether the service put the image in, and not the user."""
    known = re.match(r"(base|base-gpu|openmpi|intelmpi)[\w.:-]*\Z", image.removeprefix(_REGISTRY))
    return of_framework_image(image) is not None or (
        image.startswith(_REGISTRY) and known is not None
    )
