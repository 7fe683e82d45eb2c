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
    """List, build, show, prune environments.

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
        ("hash", "framework", "python", "packages", "size", "age", "last used"),
        [
            (
                entry.lock_hash,
                _framework(entry.marker),
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
    packages = marker.get("packages", {})
    for name in ("torch", "tensorflow", "scikit-learn"):
        if name in packages:
            return f"{name} {packages[name]}"
    return "-"
