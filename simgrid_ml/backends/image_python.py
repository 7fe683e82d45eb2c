"""A Python of the host inside another system's image: what of it must be mounted there.

Everything but the C library comes along, at the same paths: the interpreter, its modules, the
environment it belongs to, and those shared libraries the image has not.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence

from simgrid_ml.native import PACKAGE
from simgrid_ml.record.store import cache_home

__all__ = ["folders", "libraries", "minor", "outermost", "program_folders", "python_of"]

_SYSTEM_PREFIXES = ("/", "/usr", "/usr/local")
_OF_THE_C_LIBRARY = re.compile(
    r"(ld-linux|ld64|linux-vdso|lib(c|m|dl|rt|util|pthread|resolv|nsl|anl|mvec|thread_db)\.so)"
)
_FOR_WHEELS = ("libstdc++.so.6", "libgcc_s.so.1", "libatomic.so.1")
"""Packages with compiled parts need these, whatever Python itself does."""


def program_folders() -> list[str]:
    """What every node reads of this package: its files, and what was compiled of them."""
    return [PACKAGE, os.path.join(cache_home(), "lib")]


def python_of(visible: Sequence[str]) -> str:
    """The job's Python among the folders nodes read; without one, that of this process."""
    for folder in visible:
        python = os.path.join(folder, "bin", "python")
        if os.access(python, os.X_OK):
            return python
    return sys.executable


def folders(python: str) -> list[str]:
    """Folders and files of a Python: its environment's, and those of the one it is based on."""
    real = os.path.realpath(python)
    environment = os.path.dirname(os.path.dirname(os.path.abspath(python)))
    base = os.path.dirname(os.path.dirname(real))
    found = [] if environment in _SYSTEM_PREFIXES else [environment]
    if base not in _SYSTEM_PREFIXES:
        return list(dict.fromkeys([*found, base]))
    # The system's own: its folders hold the system, too, and the image has one of its own.
    name = minor(python)
    modules = [path for path in (f"{base}/lib/{name}", f"/usr/lib/{name}") if _is(path)]
    links = [path for path in _links(python) if not path.startswith(environment + os.sep)]
    return list(dict.fromkeys([*found, *links, real, *modules]))


def minor(python: str) -> str:
    """``python3.11``"""
    name = re.match(r"python3\.\d+", os.path.basename(os.path.realpath(python)))
    return name.group() if name else f"python{sys.version_info[0]}.{sys.version_info[1]}"


def libraries(python: str) -> list[str]:
    """Shared libraries a Python and compiled packages need, without the C library's."""
    real = os.path.realpath(python)
    base = os.path.dirname(os.path.dirname(real))
    extensions = glob.glob(f"{glob.escape(base)}/lib/{minor(python)}/lib-dynload/*.so")
    # Tk would bring all of X along, and nodes have no screen.
    argv = ["ldd", real, *(path for path in extensions if "_tkinter" not in path)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []  # no ldd, no shared libraries: musl
    paths = {match.group(1) for match in re.finditer(r"=> (/\S+) \(", done.stdout)}
    beside = {os.path.dirname(path) for path in paths if "/libc.so." in path}
    paths |= {f"{folder}/{name}" for folder in beside for name in _FOR_WHEELS}
    mounted = tuple(f"{folder}{os.sep}" for folder in folders(python))
    return sorted(
        path
        for path in paths
        if _is(path)
        and not _OF_THE_C_LIBRARY.match(os.path.basename(path))
        and not path.startswith(mounted)
    )


def outermost(paths: Iterable[str]) -> list[str]:
    """Those that exist, without those inside another, and without the root: a node has its own."""
    kept: list[str] = []
    for path in sorted({os.path.abspath(path) for path in paths}):
        inside = any(path.startswith(outer + os.sep) for outer in kept)
        if path != os.sep and not inside and os.path.exists(path):
            kept.append(path)
    return kept


def _links(path: str) -> list[str]:
    """The links that lead from a path to a file, itself included; the image has others."""
    links: list[str] = []
    path = os.path.abspath(path)
    while os.path.islink(path) and path not in links:
        links.append(path)
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    return links


_is = os.path.exists
