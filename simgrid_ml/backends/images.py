"""The image a user asked for: what nodes are created from, and what of the host goes into it.

An image the engine has costs two requests here; what it can run is asked once and remembered
(``image_facts``). Only pulling, trying out and building load the docker package (``image_sdk``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simgrid_ml.backends import image_map, image_python
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.image import NodeImage
from simgrid_ml.backends.image_facts import IMAGE_PYTHONS, ImageFacts, ask
from simgrid_ml.errors import NodeError
from simgrid_ml.spec.job import ImageSpec

__all__ = ["built_image", "examine", "fetch", "named_image"]

_AGENT_FLAGS = ("-I", "-S")


def named_image(
    engine: Engine, wanted: ImageSpec, visible: Sequence[str], log: Callable[[str], None]
) -> NodeImage:
    """What ``wanted`` names; pulled where the engine has no such image.

    Args:
        engine: where it is, or is pulled to.
        wanted: as the user named it.
        visible: folders that nodes read at the same path: the job's environment.
        log: called with each line of what a pull has to say.

    Raises:
        NodeError: there is no such image, or no agent can run in it.
        HostError: the engine does not answer.
    """
    found, substituted_for = fetch(engine, wanted, log)
    digest = str(found["Id"])
    facts = examine(engine, digest, wanted, visible)
    shown = wanted.name if substituted_for is None else f"{_name(found)} (for {substituted_for})"
    if not facts.fits:
        raise _unfit(shown, wanted, facts)
    folders = image_python.program_folders()
    if not wanted.user_managed:
        folders += [*visible, *image_python.folders(image_python.python_of(visible))]
    notes = []
    if substituted_for is not None:
        notes.append(f"the image {_name(found)} stands in for {substituted_for}, as you said")
    if facts.libraries and not wanted.user_managed:
        lacking = ", ".join(path.rpartition("/")[2] for path in facts.libraries)
        notes.append(f"the image {shown} has no {lacking}: those of this host are used")
    if facts.lacks:
        notes.append(f"in the image {shown} Python lacks modules: {'; '.join(facts.lacks)}")
    return NodeImage(
        name=digest,
        digest=digest,
        kind="named",
        python=(str(facts.python), *_AGENT_FLAGS),
        binds=tuple(
            (path, path, True) for path in image_python.outermost([*folders, *facts.libraries])
        ),
        substituted_for=substituted_for,
        notes=tuple(notes),
        path=_path(found) if wanted.user_managed else "",
        variables=_variables(found),
        mpirun=facts.mpirun,
        openmpi=facts.openmpi,
    )


def fetch(
    engine: Engine,
    wanted: ImageSpec,
    log: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], str | None]:
    """What the engine knows of an image, and the name it stands in for, if it does.

    Args:
        check: called again and again while it is pulled; what it raises ends that.

    Raises:
        NodeError: neither the engine nor its registry has it.
    """
    local = image_map.local_name(wanted.name)
    if local is not None:
        found = engine.image(local)
        if found is None:
            raise NodeError(
                f"the image {local!r}, which stands in for {wanted.name!r}, does not exist",
                remedy=f"make it, or take the rule back: simgrid-ml images unmap {wanted.name}",
            )
        return found, wanted.name
    found = engine.image(wanted.name)
    if found is None:
        from simgrid_ml.backends import image_sdk

        log(f"pulling {wanted.name}")
        image_sdk.pull(engine, wanted.name, wanted.registry, log, check)
        found = engine.image(wanted.name)
    if found is None:
        raise NodeError(
            f"the image {wanted.name!r} was removed as soon as it was pulled",
            remedy="submit again; somebody else seems to prune images",
        )
    return found, None


def examine(engine: Engine, digest: str, wanted: ImageSpec, visible: Sequence[str]) -> ImageFacts:
    """Whether agents and ranks can run in an image, and with what.

    Raises:
        HostError: the engine does not answer.
    """
    if wanted.user_managed:
        return ask(engine, digest, None, wanted.python)
    return ask(engine, digest, image_python.python_of(visible), None)


def built_image(
    engine: Engine, files: Mapping[str, bytes], tag: str, log: Callable[[str], None]
) -> NodeImage:
    """The image of a Dockerfile; built unless the engine has it: its tag names its content.

    Args:
        files: the build context by path, with the ``Dockerfile``.
        tag: where it is, or comes to.
        log: called with each line of a build.

    Raises:
        EnvironmentBuildError: a step failed.
        NodeError: there is no Python in it that runs an agent.
    """
    if engine.image(tag) is None:
        from simgrid_ml.backends import image_sdk

        log(f"building {tag}")
        image_sdk.build(engine, files, tag, log)
    image = named_image(engine, ImageSpec(name=tag, user_managed=True), (), log)
    return NodeImage(**{**vars(image), "name": tag, "kind": "built"})


def _unfit(name: str, wanted: ImageSpec, facts: ImageFacts) -> NodeError:
    evidence = "\n".join(facts.tried)
    if wanted.user_managed:
        names = wanted.python or " or ".join(IMAGE_PYTHONS)
        return NodeError(
            f"nodes cannot run in the image {name}: {names} does not run there, or is too old",
            evidence=evidence,
            remedy="use an image with Python 3.8 or later on its PATH, or name its Python as "
            f"interpreter_path; simgrid-ml images check {name.split()[0]}",
        )
    return NodeError(
        f"the job's environment cannot run in the image {name}",
        evidence=evidence,
        remedy="use an image of a newer distribution (its C library must be at least as new as "
        "this host's), or one that has all the job needs, with user_managed=True",
    )


def _name(found: Mapping[str, Any]) -> str:
    return str((found.get("RepoTags") or [found["Id"]])[0])


def _environment(found: Mapping[str, Any]) -> dict[str, str]:
    lines = (found.get("Config") or {}).get("Env") or []
    return dict(line.partition("=")[::2] for line in lines)


def _path(found: Mapping[str, Any]) -> str:
    return _environment(found).get("PATH", "")


def _variables(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in _environment(found).items() if name != "PATH"}
