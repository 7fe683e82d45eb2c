"""What each framework estimator of Azure ML brought along: its versions, pins and images.

Facts of the service, kept to fill ``run_config`` as it does and to recognise its packages in the
run configuration of a real SDK object. What is installed for them today is another table,
``environments.catalog``.
"""

from __future__ import annotations

import re

from simgrid_ml.azure.conda_dependencies import CondaDependencies

__all__ = [
    "DEFAULT_CPU_IMAGE",
    "DEFAULT_GPU_IMAGE",
    "FRAMEWORK_REGISTRY",
    "base_image",
    "dependencies",
    "is_service_image",
    "notebook_image",
    "of_framework_image",
    "pins",
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
_BOARD = ("tensorboard==1.14.0", "future==0.17.1")

# framework → version → (pins, CPU image, GPU image); all with Python 3.6.2.
_TABLE: dict[str, dict[str, tuple[tuple[str, ...], str, str]]] = {
    "pytorch": {
        "1.0": (("torch==1.0", "torchvision==0.4.1", "horovod==0.18.1"), _INTEL, _CUDA10),
        "1.1": (("torch==1.1", "torchvision==0.4.1", "horovod==0.18.1", *_BOARD), _INTEL, _CUDA10),
        "1.2": (("torch==1.2", "torchvision==0.4.1", "horovod==0.18.1", *_BOARD), _INTEL, _CUDA10),
        "1.3": (
            ("torch==1.3.1", "torchvision==0.4.1", "horovod==0.18.1", *_BOARD),
            _INTEL,
            _CUDA11,
        ),
        "1.4": (("torch==1.4.0", "torchvision==0.5.0", "horovod==0.18.1", *_BOARD), _OPEN, _CUDA11),
        "1.5": (("torch==1.5.0", "torchvision==0.5.0", "horovod==0.19.1", *_BOARD), _OPEN, _CUDA11),
        "1.6": (
            ("torch==1.6.0", "torchvision==0.5.0", "horovod==0.19.5", *_BOARD),
            "openmpi3.1.2-ubuntu16.04",
            "openmpi4.1.0-cuda11.1-cudnn8-ubuntu20.04",
        ),
    },
    "sklearn": {
        "0.20.3": (
            ("scikit-learn==0.20.3", "scipy==1.2.1", "joblib==0.13.2"),
            "intelmpi2018.3-ubuntu16.04:20200423.v1",
            "",
        ),
    },
}
_FRAMEWORK_IMAGE = re.compile(r"(pytorch|sklearn|tensorflow|chainer):([\w.]+)-(cpu|gpu)\Z")


def versions(framework: str) -> list[str]:
    """
    >>> versions("PyTorch")[-1]
    '1.6'
    """
    return sorted(_TABLE[framework.lower()])


def pins(framework: str, version: str) -> tuple[str, ...]:
    return _TABLE[framework.lower()][version][0]


def base_image(framework: str, version: str, processor: str) -> str:
    _, cpu, gpu = _TABLE[framework.lower()][version]
    return _REGISTRY + (gpu if processor == "gpu" else cpu)


def dependencies(framework: str, version: str) -> CondaDependencies:
    """The specification the service builds the framework's environment from."""
    packages = ["azureml-defaults", *pins(framework, version)]
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
