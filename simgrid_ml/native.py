"""What is written in C, compiled once per machine where there is a compiler.

Nothing depends on it but speed and memory, with one exception that ``backends.process`` tells of:
hosts that allow no own host names for nodes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys

from simgrid_ml.errors import NodeError
from simgrid_ml.record.store import cache_home

__all__ = ["PACKAGE", "compiled", "node_program"]

PACKAGE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS_VARIABLE = "SIMGRID_ML_NODE_PROGRAMS"
"""``python`` keeps nodes from using the compiled programs; to test the others."""


@functools.cache
def node_program(name: str) -> tuple[str, ...]:
    """The command that runs ``node/<name>``: compiled, or where that is impossible in Python."""
    script = os.path.join(PACKAGE, "node", f"{name}.py")
    if os.environ.get(PROGRAMS_VARIABLE) != "python":
        try:
            return (compiled(f"node/{name}.c"),)
        except NodeError:
            pass
    return (sys.executable, "-I", "-S", script)


def compiled(source: str, *flags: str) -> str:
    """Path of what the compiler makes of a source of this package; kept in the user's cache.

    Raises:
        NodeError: there is no C compiler, or it fails, or its product cannot be run.
    """
    path = os.path.join(PACKAGE, source)
    with open(path, "rb") as stream:
        digest = hashlib.sha256(stream.read() + repr(flags).encode()).hexdigest()[:16]
    name = f"{os.path.basename(source).removesuffix('.c')}-{os.uname().machine}-{digest}"
    product = os.path.join(cache_home(), "lib", name)
    if os.access(product, os.X_OK):
        return product
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise _failed(source, "there is no C compiler")
    draft = f"{product}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(product), exist_ok=True)
        argv = [compiler, "-O1", *flags, "-o", draft, path]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise _failed(source, done.stderr)
        os.replace(draft, product)
    except OSError as error:
        raise _failed(source, str(error)) from error
    if not os.access(product, os.X_OK):  # the cache is mounted noexec
        raise _failed(source, f"{product} cannot be executed")
    return product


def _failed(source: str, problem: str) -> NodeError:
    return NodeError(
        f"{source} could not be compiled",
        evidence=problem,
        remedy="install a C compiler (`apt-get install g++`)",
    )
