"""The options by which commands choose what is behind the GPUs of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["CARRIERS", "SHARINGS", "gpu_options"]

SHARINGS = ("auto", "emulated", "exclusive", "mig", "mps", "time-sliced", "none")
CARRIERS = ("auto", "staged", "real")

F = TypeVar("F", bound=Callable[..., Any])


def gpu_options(command: F) -> F:
    """Adds ``--gpu-sharing`` and ``--nccl``, as clusters have them."""
    sharing = click.option(
        "--gpu-sharing",
        type=click.Choice(SHARINGS),
        help="What may be behind the GPUs of the VM size; see `simgrid-ml gpus`  [auto]",
    )
    carrier = click.option(
        "--nccl", type=click.Choice(CARRIERS), help="Who carries NCCL's collectives  [auto]"
    )
    return sharing(carrier(command))
