"""What an image can run, asked of it once: which Python, which C library, Open MPI.

The question is a small program that a Python in the image runs: the job's own, mounted from the
host, or one of the image's. The answer is kept under the image's digest, so a changed image is
asked anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from simgrid_ml import __version__, wire
from simgrid_ml.backends import image_python
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.record.journal import read_json, write_json
from simgrid_ml.record.store import cache_home

__all__ = ["IMAGE_PYTHONS", "ImageFacts", "ask"]

IMAGE_PYTHONS = ("python3", "python")
_OLDEST = (3, 8)  # what simgrid_ml.node needs
_SAID = wire.LABEL + " facts "

# Written so that a Python of any age says at least its version.
_QUESTION = """
import json, os, sys
def which(name):
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except (AttributeError, ValueError, OSError):
    libc = None
system = None
try:
    for line in open("/etc/os-release"):
        if line.startswith("PRETTY_NAME="):
            system = line.split("=", 1)[1].strip().strip('"')
except (IOError, OSError):
    pass
found = {"executable": sys.executable, "version": list(sys.version_info[:3]), "libc": libc,
    "system": system, "mpirun": which("mpirun"), "sh": which("sh"), "prefix": sys.prefix}
if sys.version_info >= (3, 8):
    import ctypes, hashlib, select, socket, subprocess, zlib
    if found["mpirun"]:
        asked = subprocess.run([found["mpirun"], "--version"], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=20)
        found["mpi"] = asked.stdout.decode("utf-8", "replace").split(chr(10))[0]
    for name in ("ssl", "sqlite3", "lzma", "bz2"):
        try:
            __import__(name)
        except ImportError as error:
            found.setdefault("lacks", []).append(str(error))
"""
_QUESTION += f"print({_SAID!r} + json.dumps(found))"


@dataclass(frozen=True)
class ImageFacts:
    """The answer.

    Attributes:
        fits: agents and ranks can run there.
        python: path of the Python that answered; of the image, or of the host as mounted there.
        version: of that Python.
        libc: the image's C library: ``"glibc 2.36"``; None: none that says its version.
        system: the distribution, in its own words.
        mpirun, sh: paths on the image's PATH.
        mpi: what that mpirun says of its version.
        lacks: modules of that Python that cannot be imported, and why.
        libraries: of the host, mounted since the image has none of that name.
        tried: what was run, and what it said, until something answered.
    """

    fits: bool
    python: str | None = None
    version: str | None = None
    libc: str | None = None
    system: str | None = None
    mpirun: str | None = None
    mpi: str | None = None
    sh: str | None = None
    lacks: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()

    @property
    def openmpi(self) -> tuple[int, ...] | None:
        """Version of the image's Open MPI.

        >>> ImageFacts(fits=True, mpi="mpirun (Open MPI) 4.1.4").openmpi
        (4, 1, 4)
        """
        said = re.search(r"\(Open MPI\) (\d+(?:\.\d+)*)", self.mpi or "")
        return tuple(map(int, said.group(1).split("."))) if said else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Any) -> ImageFacts:
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in plain.items()
        }
        return cls(**fields)


def ask(engine: Engine, digest: str, host_python: str | None, wanted: str | None) -> ImageFacts:
    """What an image can run.

    Args:
        host_python: a Python of this host that is to run there; None: the image's own is.
        wanted: the one of the image's own that is meant; None: any.

    Raises:
        HostError: the engine does not answer.
        NodeError: it refuses to make a container of the image.
    """
    path = _remembered_at(digest, host_python, wanted)
    try:
        return ImageFacts.from_json(read_json(path))
    except (OSError, ValueError, TypeError, AttributeError):
        pass  # never asked, or by another version
    facts = _asked(engine, digest, host_python, wanted)
    if facts.fits:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_json(path, facts.to_json())
    return facts


def _asked(engine: Engine, digest: str, host_python: str | None, wanted: str | None) -> ImageFacts:
    from simgrid_ml.backends import image_sdk

    libraries: tuple[str, ...] = ()
    binds: list[image_sdk.Bind] = []
    if host_python is not None:
        candidates: Sequence[str] = (host_python,)
        needed = image_python.libraries(host_python)
        libraries = tuple(image_sdk.missing_in(engine, digest, needed))
        folders = [*image_python.folders(host_python), *libraries]
        binds = [(path, path, True) for path in folders]
    else:
        candidates = (wanted,) if wanted else IMAGE_PYTHONS
    tried = []
    for candidate in candidates:
        trial = image_sdk.try_in(engine, digest, [candidate, "-c", _QUESTION], binds)
        said = next((line for line in trial.output.splitlines() if line.startswith(_SAID)), None)
        if trial.code != 0 or said is None:
            tried.append(f"{candidate} ended with {trial.code}: {_last_lines(trial.output)}")
            continue
        found = json.loads(said[len(_SAID) :])
        version = ".".join(map(str, found["version"]))
        fits = tuple(found["version"][:2]) >= _OLDEST
        name = "python{}.{}".format(*found["version"])
        if host_python is not None and name != image_python.minor(host_python):
            fits = False
            tried.append(f"{candidate} is Python {version} there, one of the image's own")
        elif not fits:
            tried.append(f"{candidate} is Python {version}; 3.8 is the oldest that will do")
        return ImageFacts(
            fits=fits,
            # A Python that was started by a name from PATH knows its place better than we do.
            python=host_python or found["executable"] or candidate,
            version=version,
            libc=found["libc"],
            system=found["system"],
            mpirun=found["mpirun"],
            mpi=found.get("mpi"),
            sh=found["sh"],
            lacks=tuple(found.get("lacks", ())),
            libraries=libraries,
            tried=tuple(tried),
        )
    return ImageFacts(fits=False, libraries=libraries, tried=tuple(tried))


def _last_lines(output: str) -> str:
    return "; ".join(output.splitlines()[-3:]) or "it said nothing"


def _remembered_at(digest: str, host_python: str | None, wanted: str | None) -> str:
    target = host_python and os.path.realpath(host_python)
    parts = [__version__, digest, host_python, target, wanted, _QUESTION]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
    return os.path.join(cache_home(), "images", f"{key}.json")
