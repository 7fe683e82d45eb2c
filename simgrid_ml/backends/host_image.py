"""The image that needs no registry: an empty one, with the host's own programs mounted read-only.

Works offline and starts as fast as any; what a script finds on the nodes is what it finds here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from simgrid_ml import wire
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.image import NodeImage
from simgrid_ml.backends.image_python import outermost
from simgrid_ml.native import PACKAGE
from simgrid_ml.record.store import cache_home

__all__ = ["host_image", "seen_by_nodes"]

_NAME, _TAG = f"{wire.LABEL}/host", "1"
_EMPTY_TAR = bytes(10240)
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt")
_ETC = (
    "/etc/alternatives",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki",
    "/etc/ssl",
    "/etc/timezone",
)
"""What programs need to know of the system. Names and passwords of the host stay there: the
engine gives each node a host name, hosts and resolv.conf of its own."""


def host_image(engine: Engine, visible: Sequence[str]) -> NodeImage:
    """The image; made where the engine has none yet.

    Args:
        visible: folders that nodes read at the same path: the job's environment.
    """
    name = f"{_NAME}:{_TAG}"
    found = engine.image(name)
    if found is None:
        engine.import_image(_NAME, _TAG, _EMPTY_TAR, {wire.LABEL: "image"})
        found = engine.image(name)
    folders = [*_SYSTEM, *_ETC, *seen_by_nodes(visible)]
    return NodeImage(
        name=name,
        digest="" if found is None else str(found["Id"]),
        kind="host",
        python=(sys.executable, "-I", "-S"),
        binds=tuple((path, path, True) for path in outermost(folders)),
    )


def seen_by_nodes(visible: Iterable[str]) -> list[str]:
    """Folders of the host that agents and ranks read: this package, Pythons, environments."""
    folders = [PACKAGE, os.path.join(cache_home(), "lib"), sys.prefix, sys.base_prefix]
    for folder in visible:
        folders.append(folder)
        python = os.path.realpath(os.path.join(folder, "bin", "python"))
        if os.path.exists(python):  # a virtual environment's is a link into another one
            folders.append(os.path.dirname(os.path.dirname(python)))
    return folders
