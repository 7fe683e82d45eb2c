"""Images for tests, made of what this host has: none is pulled, each takes a second or two.

* ``shell``: a shell and the C library it needs, and no Python;
* ``python``: the same with a Python of its own;
* ``nothing``: an empty one, in which no program of the host runs.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator

from simgrid_ml.backends.engine_api import Engine

__all__ = ["MARK", "PREFIX", "image", "name_of", "nothing", "python", "remove", "shell"]

PREFIX = "/usr/local"
MARK = "/made-by-image-kit"
"""A file in every image; no host has it."""
_LABEL = "simgrid-ml-test"
_C_LIBRARY = ("libm", "libdl", "librt", "libutil", "libpthread", "libresolv")
_LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|tkinter|turtledemo|site-packages|dist-packages"
    r"|__pycache__|config-[^/]*)(/|\Z)"
)


def nothing() -> bytes:
    return bytes(10240)


def shell(*more: tuple[str, str]) -> bytes:
    """``/bin/sh``, and more programs of this host as (path here, path in the image)."""
    programs = [("/bin/sh", "/bin/sh"), *more]
    return _tar(programs, [])


def python() -> bytes:
    """A shell, and this host's Python below ``PREFIX``."""
    real = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = os.path.dirname(os.__file__)
    modules = []
    for folder, _, files in os.walk(library):
        inside = folder.removeprefix(library)
        if _LEFT_OUT.search(inside + "/"):
            continue
        modules += [
            (os.path.join(folder, file), f"{PREFIX}/lib/{name}{inside}/{file}") for file in files
        ]
    programs = [("/bin/sh", "/bin/sh"), (real, f"{PREFIX}/bin/{name}")]
    extensions = glob.glob(f"{glob.escape(library)}/lib-dynload/*.so")
    links = [(f"{PREFIX}/bin/python3", name)]
    return _tar(programs, modules, of=extensions, links=links)


def name_of(kind: str) -> str:
    """Of an image; tests that run at the same time have images of their own."""
    return f"{_LABEL}/{kind}:{os.getpid()}"


@contextlib.contextmanager
def image(engine: Engine, kind: str, content: bytes) -> Iterator[str]:
    """An image in the engine, gone afterwards; gives its name."""
    name = name_of(kind)
    repository, _, tag = name.rpartition(":")
    engine.import_image(repository, tag, content, {_LABEL: str(os.getpid())})
    try:
        yield name
    finally:
        remove(engine, name)


def remove(engine: Engine, name: str) -> None:
    """An image, and what its build left: labels are inherited."""
    import docker

    with contextlib.closing(docker.DockerClient(base_url=engine.address)) as client:
        client.images.remove(name, force=True)
        client.images.prune({"dangling": True, "label": f"{_LABEL}={os.getpid()}"})


def _tar(
    programs: Iterable[tuple[str, str]],
    files: Iterable[tuple[str, str]],
    *,
    of: Iterable[str] = (),
    links: Iterable[tuple[str, str]] = (),
) -> bytes:
    needed = _libraries([*(path for path, _ in programs), *of])
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for folder in ("tmp", "run", "proc", "sys", "dev", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        archive.addfile(tarfile.TarInfo(MARK.lstrip("/")))
        for path, inside in dict.fromkeys([*programs, *files, *needed]):
            with open(path, "rb") as content:
                entry = tarfile.TarInfo(inside.lstrip("/"))
                entry.size = os.fstat(content.fileno()).st_size
                entry.mode = 0o755
                archive.addfile(entry, content)
        for inside, target in links:
            entry = tarfile.TarInfo(inside.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return stream.getvalue()


def _libraries(programs: list[str]) -> list[tuple[str, str]]:
    """Shared libraries, all in the folder of the C library, which is always searched."""
    done = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    paths = set(re.findall(r"=> (/\S+) \(", done.stdout))
    loaders = set(re.findall(r"^\s*(/\S*ld-\S+) \(", done.stdout, re.MULTILINE))
    folder = next(os.path.dirname(path) for path in paths if "/libc.so." in path)
    for name in _C_LIBRARY:  # older programs ask for what is one file today
        paths.update(path for path in glob.glob(f"{folder}/{name}.so.*") if os.path.exists(path))
    placed = [(path, f"{folder}/{os.path.basename(path)}") for path in sorted(paths)]
    return [*placed, *((path, path) for path in sorted(loaders))]
