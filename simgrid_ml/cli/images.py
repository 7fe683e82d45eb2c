"""``simgrid-ml images``: which images nodes are made from, and what stands in for what."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from simgrid_ml.cli.console import Screen, json_option, print_json, print_table

__all__ = ["images"]


@click.group()
def images() -> None:
    """List, map, check the images that nodes of the docker backend are made from.

    A job names an image with custom_docker_image, or `image:` in a run.yaml; without one, nodes
    see the programs of this host. An image that cannot be pulled here can be stood in for.
    """


@images.command("list")
@json_option
def list_(as_json: bool) -> None:
    """What stands in for what, and whether the engine has it."""
    from simgrid_ml.backends import image_map
    from simgrid_ml.backends.engine_api import Engine
    from simgrid_ml.errors import SimgridError

    known = image_map.mapped()
    there: dict[str, bool | None] = dict.fromkeys(known)
    problem = None
    try:
        engine = Engine()
        there.update((name, engine.image(local) is not None) for name, local in known.items())
    except SimgridError as error:  # the list is worth something without an engine, too
        problem = error
    rows = [(name, local, there[name]) for name, local in known.items()]
    if as_json:
        print_json([{"image": n, "local": local, "present": is_} for n, local, is_ in rows])
        return
    if not rows:
        click.echo("No image stands in for another. `simgrid-ml images map NAME LOCAL` says one.")
        return
    said = {True: "yes", False: "no", None: "unknown"}
    print_table(("asked for", "used instead", "there"), [(n, u, said[is_]) for n, u, is_ in rows])
    if problem is not None:
        click.echo(f"\n{problem.cause}", err=True)


@images.command("map")
@click.argument("name")
@click.argument("local")
def map_(name: str, local: str) -> None:
    """Use the image LOCAL, which the engine has, wherever a job asks for NAME."""
    from simgrid_ml.backends import image_map
    from simgrid_ml.backends.engine_api import Engine
    from simgrid_ml.errors import NotFoundError

    if Engine().image(local) is None:
        raise NotFoundError(
            f"the engine has no image {local!r}",
            remedy="`docker images` lists those it has; docker load or docker import makes one",
        )
    image_map.put(name, local)
    click.echo(f"{local} stands in for {name}; every run that uses it says so.")


@images.command()
@click.argument("name")
def unmap(name: str) -> None:
    """Take back what `images map` said about NAME."""
    from simgrid_ml.backends import image_map

    image_map.remove(name)
    click.echo(f"Nothing stands in for {name} any more.")


@images.command()
@click.argument("name")
@click.option("--pull", is_flag=True, help="Fetch it first, where the engine has it not.")
@click.option("--env", "prefix", metavar="HASH", help="Try this environment of `env list` in it.")
@json_option
def check(name: str, pull: bool, prefix: str | None, as_json: bool) -> int:
    """Whether nodes can be made from the image NAME, and what it has. Exit code 5 if not."""
    from simgrid_ml.cli.doctor import MARKS
    from simgrid_ml.cli.doctor_images import examine_image

    visible: tuple[str, ...] = ()
    if prefix is not None:
        from simgrid_ml.environments.cache import Cache

        visible = (str(Cache.default().entry(prefix).path),)
    # With --json standard output is for the JSON alone.
    with Screen(sys.stderr if as_json else None) as screen:
        answers = list(examine_image(name, pull=pull, log=screen.line, visible=visible))
        for answer in () if as_json else answers:
            sign, colour = MARKS[answer.answer]
            mark = screen.style(sign, fg=colour, bold=True)
            screen.line(f"{mark} {answer.check}: {answer.found}")
            if answer.remedy:
                screen.line(f"    Try: {answer.remedy}")
    fits = all(answer.answer != "no" for answer in answers)
    if as_json:
        document: dict[str, Any] = {"ok": fits, "checks": [asdict(one) for one in answers]}
        print_json(document)
    return 0 if fits else 5
