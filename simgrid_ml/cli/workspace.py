"""Which workspace a command works on, and which run a word means."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from simgrid_ml.errors import NotFoundError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore

__all__ = ["find_run", "new_workspace_option", "workspace_option"]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT = "local"


def workspace_option(command: F, *, may_be_new: bool = False) -> F:
    """Adds ``--workspace`` and hands the command its ``store``."""

    def open_store(_: click.Context, __: click.Parameter, name: str) -> RunStore:
        store = RunStore.of_workspace(name)
        if not may_be_new and name != DEFAULT and not os.path.isdir(store.root):
            raise NotFoundError(
                f"there is no workspace {name!r}",
                evidence=f"there are: {', '.join(_workspaces(store)) or 'none yet'}",
                remedy=f"`simgrid-ml run --workspace {name} …` makes it",
            )
        return store

    option = click.option(
        "-w",
        "--workspace",
        "store",
        default=DEFAULT,
        metavar="NAME",
        callback=open_store,
        help=f"Workspace that holds the runs and clusters.  [default: {DEFAULT}]",
    )
    return option(command)


def new_workspace_option(command: F) -> F:
    """As ``workspace_option`` for a command that writes: the workspace may be new."""
    return workspace_option(command, may_be_new=True)


def _workspaces(store: RunStore) -> list[str]:
    try:
        return sorted(os.listdir(os.path.dirname(store.root)))
    except FileNotFoundError:
        return []


def find_run(store: RunStore, word: str) -> RunRecord:
    """The run that ``word`` means: an id, a part that only one id has, or ``latest``.

    Raises:
        NotFoundError: none, or more than one, fits.
    """
    if word == "latest":
        return store.latest()
    try:
        return store.open(word)
    except NotFoundError:
        inside = [record for record in store.list() if word and word in record.id]
        if len(inside) != 1:
            raise
        return inside[0]
