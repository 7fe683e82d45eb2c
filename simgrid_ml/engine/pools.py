"""Finds the pool of a stored cluster, starts it where somebody needs it, and asks it things.

A pool is the process that owns the nodes of one stored cluster (``pool.py``). It lives in
``pools/NAME`` of the workspace, is found by its socket there, and holds the folder's lock for as
long as it lives. Drivers and the command line talk to it with one line of JSON, and get one back.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from simgrid_ml import wire
from simgrid_ml.errors import ConflictError, NodeError, NotFoundError
from simgrid_ml.node.protocol import connect
from simgrid_ml.record.read import tail
from simgrid_ml.record.run import RunLock
from simgrid_ml.record.store import RunStore, state_home
from simgrid_ml.spec.cluster import ClusterSpec, stored_cluster

__all__ = [
    "LOOK_S",
    "NO_POOL",
    "POOL_LOG",
    "START_S",
    "all_pools",
    "check_minimum",
    "cluster_changed",
    "last_words",
    "not_up",
    "pool_folder",
    "preempt",
    "start",
    "status",
    "stop",
]

POOL_LOG = "pool.log"
START_S = 20.0
"""A pool must listen so long after its start."""
LOOK_S = 0.005
_ANSWER_S = 60.0
NO_POOL: Mapping[str, Any] = {
    "errors": [],
    "nodes": [],
    "preempted": [],
    "target": 0,
    "waiting": [],
}
"""``status`` of a cluster that has no pool."""


def pool_folder(store: RunStore, cluster: str) -> str:
    """Where the pool of a stored cluster lives."""
    return store.folder(wire.POOLS, cluster)


def all_pools() -> Iterator[str]:
    """The folders of all pools of this user, in all workspaces, whether they are alive or not."""
    home = os.path.join(state_home(), "workspaces")
    for workspace in _names(home):
        folder = os.path.join(home, workspace, wire.POOLS)
        yield from (os.path.join(folder, name) for name in _names(folder))


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def start(folder: str) -> None:
    """See to it that the pool in ``folder`` lives, or is about to.

    Raises:
        NodeError: it cannot be started.
    """
    os.makedirs(folder, 0o700, exist_ok=True)
    lock = RunLock.take(folder)
    if lock is None:
        return  # it lives, or somebody else is starting it
    log = os.path.join(folder, POOL_LOG)
    argv = ["/bin/sh", "-c", '"$@" </dev/null >>"$0" 2>&1 &', log]
    program = [sys.executable, "-m", "simgrid_ml.engine.pool", folder, str(lock.fd)]
    try:
        subprocess.run(
            argv + program, check=True, start_new_session=True, pass_fds=(lock.fd,), cwd="/"
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise NodeError(
            f"the pool of cluster {os.path.basename(folder)!r} could not be started: {error}",
            remedy="check that this Python and /bin/sh can be run",
        ) from error
    finally:
        lock.close()  # the pool has its own descriptor of it


def ask(folder: str, **message: Any) -> dict[str, Any] | None:
    """What the pool in ``folder`` answers; None: there is none."""
    try:
        connection = connect(os.path.join(folder, wire.SOCKET))
    except OSError:
        return None
    try:
        connection.send(**message)
        readable = select.poll()
        readable.register(connection.fileno(), select.POLLIN)
        while readable.poll(_ANSWER_S * 1000):
            for answer in connection.receive():
                return answer
    except (OSError, EOFError):  # it ended meanwhile
        pass
    finally:
        connection.close()
    return None


def _ask_started(folder: str, **message: Any) -> dict[str, Any]:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        start(folder)
        answer = ask(folder, **message)
        if answer is not None:
            return answer
        time.sleep(LOOK_S)
    raise not_up(folder)


def not_up(folder: str) -> NodeError:
    """The pool in ``folder`` does not come up."""
    return NodeError(
        f"the pool of cluster {os.path.basename(folder)!r} did not come up within {START_S:g} s",
        evidence=last_words(folder),
        remedy="`simgrid-ml doctor` checks what nodes need",
    )


def last_words(folder: str) -> str:
    """The end of a pool's log."""
    return tail(os.path.join(folder, POOL_LOG), 5)


def status(store: RunStore, cluster: str) -> dict[str, Any] | None:
    """The nodes and the queue of a cluster now; None: it has no pool, and so no node and no run."""
    return ask(pool_folder(store, cluster), op="status")


def check_minimum(spec: ClusterSpec) -> None:
    """Refuse a cluster that asks for nodes at all times and cannot have such.

    Raises:
        UsageError: why not.
        HostError: the backend cannot be asked.
    """
    if spec.min_nodes > 0:
        from simgrid_ml.engine.pool import usual_kind  # brings in asyncio

        usual_kind(spec)


def cluster_changed(store: RunStore, cluster: str) -> None:
    """Have a new, changed or deleted cluster take effect on its nodes.

    Raises:
        NodeError: it is to have nodes at all times, and its pool cannot be started.
    """
    folder = pool_folder(store, cluster)
    stored = store.clusters()
    if cluster in stored and stored_cluster(stored, cluster).min_nodes > 0:
        _ask_started(folder, op="update")
    else:
        ask(folder, op="update")


def stop(folder: str, *, runs_too: bool = False, timeout_s: float = 30.0) -> dict[str, Any]:
    """End the idle nodes of the pool in ``folder``; it ends with its last run.

    Args:
        runs_too: end all nodes at once, whatever runs on them.

    Returns:
        ``ended``: how many nodes; ``runs``: those that still use nodes, or wait for some.
    """
    answer = ask(folder, op="stop", runs_too=runs_too)
    if answer is None:
        answer = {"ended": 0, "runs": []}
    deadline = time.monotonic() + timeout_s
    while not answer["runs"] and RunLock.is_held(folder) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return answer


def preempt(store: RunStore, cluster: str, node: str) -> str | None:
    """Take ``node`` away from a low-priority cluster; the run that used it starts again.

    Returns:
        that run's id; None: the node was idle.

    Raises:
        ConflictError: the nodes of this cluster cannot be pre-empted.
        NotFoundError: there is no such node now.
    """
    spec = stored_cluster(store.clusters(), cluster)
    if spec.vm_priority.lower() != "lowpriority":
        raise ConflictError(
            f"the nodes of cluster {cluster!r} are dedicated: only low-priority ones can be "
            "pre-empted",
            remedy="create a cluster with --vm-priority lowpriority",
        )
    answer = ask(pool_folder(store, cluster), op="preempt", node=node)
    if answer is None or "error" in answer:
        there = ", ".join((answer or {}).get("nodes", [])) or "none"
        raise NotFoundError(
            f"cluster {cluster!r} has no node {node!r} now",
            evidence=f"nodes: {there}",
            remedy=f"`simgrid-ml cluster show {cluster}` shows them",
        )
    run: str | None = answer["run"]
    return run
