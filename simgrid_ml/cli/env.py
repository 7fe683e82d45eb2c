"""``simgrid-ml env``: the environments jobs run in, shared by all workspaces of a user."""

from __future__ import annotations

import time
from typing import Any

import click

from simgrid_ml.cli.console import Screen, json_option, print_json, print_table
from simgrid_ml.cli.environment import environment_of, environment_options

__all__ = ["env"]


@click.group()
def env() -> None:
    """List, build, show, prune environments; make images of them.

    A run builds the environment it needs by itself, once; `env build` does it beforehand.
    """


@env.command("list")
@json_option
def list_(as_json: bool) -> None:
    """The environments there are, the latest used first."""
    from simgrid_ml.environments.cache import Cache
    from simgrid_ml.units import format_bytes, format_seconds

    cache = Cache.default()
    entries = cache.entries()
    if as_json:
        print_json([entry.to_json() for entry in entries])
        return
    if not entries:
        click.echo(
            "No environments yet. The first run builds one, or "
            "`simgrid-ml env build --framework pytorch`."
        )
        return
    now = time.time()
    print_table(
        ("hash", "framework", "horovod", "python", "packages", "size", "age", "last used"),
        [
            (
                entry.lock_hash,
                _framework(entry.marker),
                str(entry.marker.get("packages", {}).get("horovod", "-")),
                str(entry.marker.get("python", "")),
                str(len(entry.marker.get("packages", {}))),
                format_bytes(entry.size_bytes),
                format_seconds(max(0.0, now - float(entry.marker.get("created", now)))),
                "in use" if entry.in_use else format_seconds(max(0.0, now - entry.last_used)),
            )
            for entry in entries
        ],
    )


@env.command()
@environment_options
@click.option("--log", type=click.Path(), help="Keep the build log in this file.")
@json_option
def build(log: str | None, as_json: bool, **flags: Any) -> None:
    """Build an environment, unless it exists."""
    import sys

    from simgrid_ml.environments.build import ensure
    from simgrid_ml.units import format_seconds

    spec = environment_of(flags)
    started = time.monotonic()
    # With --json standard output is for the JSON alone.
    with Screen(sys.stderr if as_json else None) as screen:

        def report(step: str) -> None:
            if screen.is_live:
                screen.status(step)
            elif "[" not in step:  # no percentages into a pipe
                screen.line(step)

        built = ensure(spec, report=report, log_path=log)
    if as_json:
        print_json(built.to_json())
        return
    verb = "is there already" if built.cached else "is built"
    click.echo(f"{built.lock_hash} {verb} ({format_seconds(time.monotonic() - started)})")
    click.echo(f"  python: {built.python}")
    for one in built.substitutions:
        click.echo(f"  instead of {one.wanted}: {one.got or 'nothing'} ({one.reason})")


_base_option = click.option(
    "--base", help="The image it is built on, of this Python version  [python:3.x-slim]"
)


@env.command()
@environment_options
@_base_option
@click.option("--to", type=click.Path(), help="Write it and the files it copies to this folder.")
def dockerfile(base: str | None, to: str | None, **flags: Any) -> None:
    """Print the Dockerfile of an environment; nothing is installed."""
    import os

    recipe = _recipe(flags, base)
    if to is None:
        click.echo(recipe.dockerfile, nl=False)
        return
    os.makedirs(to, exist_ok=True)
    for name, content in recipe.files.items():
        # pip's configuration may have passwords in it
        handle = os.open(os.path.join(to, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "wb") as stream:
            stream.write(content)
    click.echo(f"{to}/Dockerfile; docker build --network host -t {recipe.tag} {to}")


@env.command()
@environment_options
@_base_option
@click.option("--log", type=click.Path(), help="Keep the build log in this file.")
@json_option
def image(base: str | None, log: str | None, as_json: bool, **flags: Any) -> None:
    """Build an image of an environment, unless the engine has it.

    Jobs run in it with `custom_docker_image=IMAGE, user_managed=True`.
    """
    import sys

    from simgrid_ml.backends.engine_api import Engine
    from simgrid_ml.backends.images import built_image
    from simgrid_ml.environments.process import BuildLog

    engine = Engine()
    kept = BuildLog(log)
    with Screen(sys.stderr if as_json else None) as screen:
        recipe = _recipe(flags, base)
        for place in recipe.unreachable:
            screen.line(f"a build cannot see the packages in {place}")

        def tell(line: str) -> None:
            kept.open()
            kept.write(line)
            screen.status(line) if screen.is_live else screen.line(line)

        try:
            made = built_image(engine, recipe.files, recipe.tag, tell)
        finally:
            kept.close()
    if as_json:
        print_json({"image": made.name, "digest": made.digest, "python": made.python[0]})
    else:
        click.echo(made.name)


def _recipe(flags: dict[str, Any], base: str | None) -> Any:
    from simgrid_ml.environments import dockerfile
    from simgrid_ml.environments.indexes import configured
    from simgrid_ml.environments.resolution import Host

    resolution = dockerfile.resolve(environment_of(flags))
    chosen = base or dockerfile.default_base(Host.here())
    return dockerfile.recipe(resolution, chosen, configured())


@env.command()
@click.argument("prefix", metavar="HASH")
@json_option
def show(prefix: str, as_json: bool) -> None:
    """Everything about the environment whose hash begins with HASH."""
    from simgrid_ml.environments.cache import Cache
    from simgrid_ml.units import format_bytes, format_seconds

    entry = Cache.default().entry(prefix)
    if as_json:
        print_json(entry.to_json())
        return
    marker = entry.marker
    print_table(
        ("", ""),
        [
            ("hash", entry.lock_hash),
            ("path", str(entry.path)),
            ("python", str(marker.get("python", ""))),
            ("framework", _framework(marker)),
            ("size", format_bytes(entry.size_bytes)),
            ("built in", format_seconds(float(marker.get("built_in_s", 0)))),
            ("in use", "yes" if entry.in_use else "no"),
        ],
    )
    substitutions = marker.get("substitutions", [])
    if substitutions:
        click.echo("\nSubstituted:")
        print_table(
            ("asked for", "there is", "because"),
            [(one["wanted"], one["got"] or "nothing", one["reason"]) for one in substitutions],
            indent=2,
        )
    click.echo("\nPackages:")
    print_table(("", ""), list(marker.get("packages", {}).items()), indent=2)


@env.command()
@click.option("--all", "everything", is_flag=True, help="All, and the compiled Horovod, too.")
@click.option(
    "--days",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Remove what was not used for so long.",
)
@json_option
def prune(everything: bool, days: float, as_json: bool) -> None:
    """Remove environments that were not used lately; never one a live run uses."""
    from simgrid_ml.environments.cache import Cache
    from simgrid_ml.units import format_bytes

    removed, kept = Cache.default().prune(unused_days=None if everything else days)
    if as_json:
        print_json(
            {
                "removed": [entry.lock_hash for entry in removed],
                "in_use": [entry.lock_hash for entry in kept],
            }
        )
        return
    for entry in removed:
        click.echo(f"removed {entry.lock_hash} ({format_bytes(entry.size_bytes)})")
    for entry in kept:
        click.echo(f"kept {entry.lock_hash}: a run uses it")
    if not removed and not kept:
        click.echo("Nothing to remove.")


def _framework(marker: dict[str, Any]) -> str:
    from simgrid_ml.environments.catalog import TENSORFLOW_NAMES

    packages = marker.get("packages", {})
    frameworks = ("torch", *TENSORFLOW_NAMES, "chainer")
    found = [name for name in frameworks if name in packages]
    if not found and "scikit-learn" in packages:
        found = ["scikit-learn"]
    return ", ".join(f"{name} {packages[name]}" for name in found) or "-"
