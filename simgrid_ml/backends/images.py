"""The image a user asked for: what nodes are created from, and what of the host goes into it.

An image the engine has costs two requests here; what it can run is asked once and remembered
(``image_facts``). Only pulling, trying out and building load the docker package (``image_sdk``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.image import NodeImage
from simgrid_ml.errors import NodeError
from simgrid_ml.spec.job import ImageSpec

__all__ = ["named_image"]


def named_image(
    engine: Engine, wanted: ImageSpec, visible: Sequence[str], log: Callable[[str], None]
) -> NodeImage:
    """What ``wanted`` names.

    Args:
        engine: where it is, or is pulled to.
        wanted: as the user named it.
        visible: folders that nodes read at the same path: the job's environment.
        log: called with each line of what a pull has to say.

    Raises:
        NodeError: there is no such image, or no agent can run in it.
    """
    found = engine.image(wanted.name)
    if found is None:
        raise NodeError(
            f"the engine has no image {wanted.name!r}", remedy=f"docker pull {wanted.name}"
        )
    return NodeImage(
        name=str(found["Id"]), digest=str(found["Id"]), kind="named", python=("python3", "-I", "-S")
    )
