"""Odd inputs Azure ML takes without a word: what will not happen although it was asked for."""

from __future__ import annotations

import os
from typing import Any

from simgrid_ml.azure.element import is_a

__all__ = ["odd_inputs"]


def odd_inputs(
    run_config: Any,
    *,
    script: str | None,
    source_directory: str,
    distributed: Any = None,
    process_count_per_node: int = 1,
) -> tuple[str, ...]:
    """One sentence per odd input.

    Args:
        run_config: the finished run configuration.
        script: the entry script, if there is one.
        source_directory: where it is looked for.
        distributed: what was given as ``distributed_training`` or ``distributed_backend``.
        process_count_per_node: the estimator's own parameter.
    """
    found = []
    nodes = run_config.node_count
    alone = (run_config.communicator or "None").lower() == "none"
    if alone and distributed:
        what = repr(distributed) if isinstance(distributed, str) else type(distributed).__name__
        found.append(
            f"{what} does not distribute this job: "
            f"each of its {nodes} node(s) runs the script on its own, with no rendezvous"
        )
    elif alone and nodes > 1:
        found.append(f"no communicator: each of the {nodes} nodes runs the script on its own")
    if is_a(distributed, "MpiConfiguration"):
        effective = distributed.process_count_per_node
        if process_count_per_node not in (1, effective):
            found.append(
                f"process_count_per_node={process_count_per_node} is ignored: the "
                f"MpiConfiguration says {effective}"
            )
        if distributed.node_count not in (1, nodes):
            found.append(
                f"the MpiConfiguration's node_count={distributed.node_count} is ignored: the job "
                f"has node_count={nodes}"
            )
    if not os.path.isdir(source_directory):
        found.append(f"source directory {source_directory!r} does not exist (yet)")
    elif script and not os.path.isfile(os.path.join(source_directory, script)):
        found.append(f"entry script {script!r} is not in {source_directory!r} (yet)")
    return tuple(found)
