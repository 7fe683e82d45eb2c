"""Submit a job: check it, place it, snapshot its source, seal the directory, start the supervisor.

Whatever can be refused is refused here, in the caller's process, before anything exists.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from simgrid_ml import __version__, wire
from simgrid_ml.backends.image import OffersImages
from simgrid_ml.engine import plugins, snapshot
from simgrid_ml.engine.gpu_requests import for_pool, planned
from simgrid_ml.environments import requirements
from simgrid_ml.errors import HostError, PlacementError, SpecError
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunLock, RunRecord
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.capacity import Capacity, size_nodes
from simgrid_ml.spec.cluster import ClusterSpec, stored_cluster
from simgrid_ml.spec.gpus import GpuPlan
from simgrid_ml.spec.job import JobSpec, Mpi
from simgrid_ml.spec.placement import Placement, place
from simgrid_ml.spec.value import from_plain, to_plain

__all__ = ["Prospect", "check_source", "prospect", "submit"]


def submit(
    job: JobSpec,
    cluster: ClusterSpec,
    *,
    store: RunStore,
    experiment: str = "default",
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Start ``job`` on ``cluster`` and return at once; the run goes on without this process.

    Args:
        job: what to run.
        cluster: on what.
        store: the workspace that keeps the run.
        experiment: the name runs are grouped by.
        run_id: the run's id; None: ``<experiment>_<unix seconds>_<8 hex digits>``.
        tags, properties: first attributes of the run.
        extra: further keys of the run's ``spec.json``.

    Raises:
        UsageError: the job cannot be run as it stands (``SpecError``, ``PlacementError``,
            ``SnapshotError``, ``ConflictError``).
        HostError: the supervisor could not be started.
    """
    ahead = prospect(job, cluster, store=store)
    spec = {
        "job": to_plain(job),
        "cluster": to_plain(cluster),
        "created": time.time(),
        "submitter": f"process {os.getpid()} since {_started()}",
        "pooled": ahead.pooled,
        **(extra or {}),
    }
    record, lock = store.create_held(experiment, spec, run_id)
    try:
        taken = snapshot.take(
            job.source, record.file(wire.CODE), limit_bytes=job.snapshot_limit_bytes
        )
        given = {"ContentSnapshotId": taken.id, **(properties or {})}
        _write_attributes(record, tags or {}, given)
        write_json(record.file(wire.PROVENANCE), _provenance(taken))
        _start_supervisor(record, lock)
    except BaseException:
        shutil.rmtree(record.path, ignore_errors=True)
        raise
    finally:
        lock.close()  # the supervisor has its own descriptor of it
    return record


class Prospect(NamedTuple):
    """What a run would be given; ``pooled``: nodes that it shares with others of its cluster."""

    placement: Placement
    capacity: Capacity
    gpus: GpuPlan | None
    pooled: bool


def prospect(job: JobSpec, cluster: ClusterSpec, *, store: RunStore) -> Prospect:
    """What ``submit`` would start; nothing is started or written.

    Raises:
        UsageError: the job cannot be run as it stands, as for ``submit``.
    """
    from_plain(to_plain(job), JobSpec, "job")  # as the supervisor will: it checks every range
    from_plain(to_plain(cluster), ClusterSpec, "cluster")
    check_source(job)
    requirements.check(job.environment)
    _check_workspace(store)
    backend = plugins.backend(cluster.backend)
    host = backend.inventory()
    placement = place(job, cluster, host)
    pooled = _is_stored(cluster, store)
    nodes_at_once = cluster.max_nodes if pooled else len(placement.nodes)
    capacity = size_nodes(cluster, nodes_at_once, host, job.shm_size_bytes)
    gpus = None
    if cluster.gpus_per_node:
        contained = isinstance(backend, OffersImages)
        seen = for_pool(host) if pooled and contained else host
        gpus = planned(cluster, placement, seen, contained=contained and not pooled)
    if cluster.links is not None:
        from simgrid_ml.engine.links import check_links  # 20 ms that few need

        check_links(backend, cluster, placement.nodes, capacity)
    if isinstance(job.distribution, Mpi) and job.distribution.nodes > wire.MAX_NODES_PER_MPI_RUN:
        raise PlacementError(
            f"an MPI run has at most {wire.MAX_NODES_PER_MPI_RUN} nodes, as in Azure ML",
            remedy="use more processes per node",
        )
    return Prospect(placement, capacity, gpus, pooled)


def check_source(job: JobSpec) -> None:
    """Refuse a job whose folder or entry script is not there.

    Raises:
        SpecError: naming the missing path.
    """
    if not os.path.isdir(job.source):
        raise SpecError(
            f"the source folder {job.source!r} does not exist",
            remedy="give the folder that holds the entry script",
            where="job.source",
        )
    if job.entry_script is None:
        return
    script = os.path.normpath(os.path.join(job.source, job.entry_script))
    if os.path.relpath(script, job.source).startswith(os.pardir) or os.path.isabs(job.entry_script):
        raise SpecError(
            f"the entry script {job.entry_script!r} is outside the source folder {job.source!r}",
            remedy="only the source folder is copied to the nodes: move the script into it",
            where="job.entry_script",
        )
    if not os.path.isfile(script):
        raise SpecError(
            f"the entry script {job.entry_script!r} does not exist in {job.source!r}",
            remedy="the path is relative to the source folder",
            where="job.entry_script",
        )


def _is_stored(cluster: ClusterSpec, store: RunStore) -> bool:
    """Whether the workspace has just this cluster, whose nodes its runs then share."""
    stored = store.clusters()
    return cluster.name in stored and stored_cluster(stored, cluster.name) == cluster


def _started() -> int:
    """When this process was started; tells it from others of its number."""
    with open("/proc/self/stat", "rb") as stream:
        return int(stream.read().rpartition(b")")[2].split()[19])


def _check_workspace(store: RunStore) -> None:
    if os.pathsep in store.root:
        raise SpecError(
            f"runs cannot be kept in {store.root!r}: PATH cannot hold a folder with "
            f"{os.pathsep!r} in its name",
            remedy=f"set {wire.STATE_HOME_VARIABLE} to another folder",
        )


def _write_attributes(
    record: RunRecord, tags: Mapping[str, str], properties: Mapping[str, str]
) -> None:
    journal = record.journal(wire.ATTRIBUTES, "driver")
    now = time.time()
    for kind, values in (("property", properties), ("tag", tags)):
        for key, value in values.items():
            journal.append({"t": now, "set": kind, "key": key, "value": value})
    journal.close()


def _provenance(taken: snapshot.Snapshot) -> dict[str, Any]:
    host = os.uname()  # platform.platform() starts a process
    return {
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "host": host.nodename,
        "platform": f"{host.sysname}-{host.release}-{host.machine}",
        "python": platform.python_version(),
        "simgrid_ml": __version__,
        "snapshot": {"id": taken.id, "files": taken.files, "bytes": taken.bytes},
    }


def _start_supervisor(record: RunRecord, lock: RunLock) -> None:
    """Start the detached supervisor; it inherits the run's lock."""
    # The shell ends at once, so the supervisor is nobody's child and leaves no zombie here.
    argv = ["/bin/sh", "-c", '"$@" </dev/null >>"$0" 2>&1 &', record.file(wire.SUPERVISOR_LOG)]
    supervisor = [sys.executable, "-m", "simgrid_ml.engine.supervisor", record.path, str(lock.fd)]
    try:
        subprocess.run(
            argv + supervisor,
            check=True,
            start_new_session=True,
            pass_fds=(lock.fd,),
            cwd="/",
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise HostError(
            f"the supervisor of run {record.id} could not be started: {error}",
            remedy="check that this Python and /bin/sh can be run",
        ) from error
