"""What the ranks of a run find: their environment, their folder, and ``launch.json``.

A job may start ranks itself, by ``mpirun`` or ``horovodrun`` in its script. What these find on PATH
and in the environment is set up here so that neither needs an option that names this emulation.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping
from typing import Any

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo
from simgrid_ml.engine import snapshot
from simgrid_ml.engine.ports import free_ports
from simgrid_ml.errors import SpecError
from simgrid_ml.launch import dialect, mpi, ray, rendezvous
from simgrid_ml.launch.plan import LaunchPlan, Tools
from simgrid_ml.node.task import TaskFile
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.cluster import ClusterSpec, WorkingDirectory
from simgrid_ml.spec.job import JobSpec, RayCluster
from simgrid_ml.spec.placement import Placement

__all__ = [
    "RSH",
    "lay_out",
    "node_environment",
    "tools",
    "work_directory",
    "write_launch",
    "write_program",
]

RSH = "simgrid-ml-rsh"
_PROGRAMS = "bin"
"""Folder in TMP, first on every node's PATH: the clients that stand in for ssh, and horovodrun."""

_INHERITED = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "SHELL", "TERM", "TZ", "USER")
"""What ranks see of the host's environment, besides ``LC_*``; nothing else leaks into them."""

_INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "HOROVOD_GLOO_IFACE", "NCCL_SOCKET_IFNAME")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def lay_out(record: RunRecord, cluster: ClusterSpec, placement: Placement, head: NodeInfo) -> None:
    """Make the folders of the run: working directories with the source, TMPDIRs, Python path."""
    for work in {work_directory(record, cluster, node) for node in placement.nodes}:
        snapshot.unpack(record.file(wire.CODE), work)
        for folder in (wire.OUTPUTS, wire.LOGS):
            os.makedirs(os.path.join(work, folder), exist_ok=True)
    for node in placement.nodes:
        os.makedirs(record.file(wire.TMP, node), exist_ok=True)
    python = record.file(wire.PYTHONPATH)
    os.makedirs(python, exist_ok=True)
    os.symlink(head.package, os.path.join(python, "simgrid_ml"))
    os.symlink(os.path.join(head.package, "shim", "azureml"), os.path.join(python, "azureml"))
    # Open MPI splits its ssh agent at spaces and the paths may have some, so it is given a bare
    # name that is found on PATH.
    write_program(record, RSH, f'exec {shlex.join(head.rsh_command)} "$@"\n')
    write_program(record, "ssh", f'exec {shlex.join(head.rsh_command)} --ssh "$@"\n')


def write_program(record: RunRecord, name: str, lines: str) -> None:
    """Put a program of these shell lines on every node's PATH, in front of all others."""
    os.makedirs(record.file(wire.TMP, _PROGRAMS), exist_ok=True)
    path = record.file(wire.TMP, os.path.join(_PROGRAMS, name))
    with open(path, "w") as stream:
        stream.write("#!/bin/sh\n" + lines)
    os.chmod(path, 0o755)


_HOROVODRUN = """\
# The real horovodrun with three options of this site, behind which the caller's own win:
# - the network interface that connects the nodes. It would find one out by trying, and remember it
#   in $HOME for an hour, across runs whose nodes have other interfaces;
# - Open MPI's options for binding, which it writes with one dash: Open MPI 5 knows two alone.
own=
for word; do
  case "$word" in --network-interface*) own=1 ;; esac
done
[ "$own" ] || set -- --network-interfaces {interface} "$@"
unset {node}  # it would be given to the ranks of every node
exec {program} --disable-cache --binding-args='--bind-to none --map-by slot' "$@"
"""


def _write_horovodrun(record: RunRecord, head: NodeInfo, bin_folder: str) -> None:
    program = os.path.join(bin_folder, "horovodrun")
    if os.path.exists(program):
        lines = _HOROVODRUN.format(
            program=shlex.quote(program), interface=head.interface, node=wire.NODE_VARIABLE
        )
        write_program(record, "horovodrun", lines)


def work_directory(record: RunRecord, cluster: ClusterSpec, node: str) -> str:
    """The working directory of the ranks on ``node``."""
    if cluster.effective_working_directory is WorkingDirectory.SHARED:
        return record.file(wire.WORK)
    return record.file(f"{wire.WORK}-{node}")


def node_environment(record: RunRecord, node: NodeInfo, bin_folder: str) -> dict[str, str]:
    """The environment of everything that is spawned on a node."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith("LC_")
    }
    environment = {
        **inherited,
        "PATH": f"{record.file(wire.TMP, _PROGRAMS)}:{bin_folder}:{_SYSTEM_PATH}",
        "TMPDIR": record.file(wire.TMP, node.name),
        # Each takes any interface of the host otherwise, and a peer that is called from another
        # address than it expects waits for a minute.
        **dict.fromkeys(_INTERFACE_VARIABLES, node.interface),
        **mpi.node_variables(
            record.spec()["job"].get("variables", {}), node.interface, is_root=os.geteuid() == 0
        ),
        wire.RUN_DIR_VARIABLE: record.path,
        wire.NODE_VARIABLE: node.name,
        **node.variables,
    }
    if os.path.exists(os.path.join(bin_folder, "prted")):
        # The wheel of Open MPI was built for another prefix and finds its files by these.
        prefix = os.path.dirname(bin_folder)
        environment.update(dict.fromkeys(("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX"), prefix))
    return environment


def tools(record: RunRecord, head: NodeInfo) -> Tools:
    """The launcher's programs as the head node sees them."""
    return Tools(
        rank_command=head.rank_command,
        run_dir=record.path,
        rsh_name=RSH,
        interface=head.interface,
        is_root=os.geteuid() == 0,
    )


def write_launch(
    record: RunRecord,
    job: JobSpec,
    cluster: ClusterSpec,
    placement: Placement,
    plan: LaunchPlan,
    nodes: Mapping[str, NodeInfo],
    python: str,
    attempt: int = 1,
    hooks: Collection[str] = (),
    libraries: str = "",
) -> tuple[dict[str, str], dict[str, str]]:
    """Write what every task runs.

    Returns the path of each task's log, and ``address:port`` of those that are to listen.

    Args:
        attempt: how often the job has begun.
        hooks: of the job's environment, see ``shim/hooks``.
        libraries: folder of libraries that tasks find before all others.

    Raises:
        SpecError: an argument or a variable of the job cannot be given to a process.
    """
    identity = _identity(record)
    addresses = {name: node.address for name, node in nodes.items()}
    _write_hosts(record, identity, placement, addresses)
    head = nodes[placement.nodes[0]]
    _write_horovodrun(record, head, os.path.dirname(python))
    environment = _environment(
        *(record, job, placement, hooks, libraries),
        dialect.common_variables(identity, job, cluster, placement, addresses, attempt),
    )
    if environment.get(wire.HOOKS_VARIABLE):
        name = "sitecustomize.py"
        hook_file = os.path.join(head.package, "shim", "hooks", name)
        os.symlink(hook_file, record.file(wire.PYTHONPATH, name))
    own_network = [name for name, node in nodes.items() if "network" in node.isolation]
    listening = rendezvous.endpoints(
        job.distribution, placement, addresses, own_network, free_ports(f"{record.id}/{attempt}")
    )
    init_file = record.file(wire.TMP, f"pytorch-init-{attempt}")
    for folder in (wire.TASKS, wire.LAUNCH_TASKS):
        os.makedirs(record.file(folder), exist_ok=True)
    tasks = {}
    for task in placement.tasks:
        log = record.file(wire.ARTIFACTS, dialect.task_log(cluster.era, job, placement, task))
        os.makedirs(os.path.dirname(log), exist_ok=True)
        work = work_directory(record, cluster, task.node)
        node = nodes[task.node]
        literal, words = _words(job, node, plan, python)
        if isinstance(job.distribution, RayCluster):
            started_by = ray.words(job.distribution, placement, task, listening, node.address)
            program = os.path.join(node.package, "node", "ray_task.py")
            before = [python, program, *started_by]
            literal, words = len(before) + literal, [*before, *words]
        tasks[task.name] = TaskFile(
            journal=record.file(wire.TASKS, task.name + ".jsonl"),
            log=log,
            cwd=work,
            min_life_s=wire.RANK_MIN_LIFE_S,
            rank=task.rank,
            local_rank=task.local_rank,
            world_size=placement.world_size,
            literal=literal,
            words=words,
            variables={
                **environment,
                wire.TASK_VARIABLE: task.name,
                wire.RANK_VARIABLE: str(task.rank),
                wire.LOCAL_RANK_VARIABLE: str(task.local_rank),
                "AZUREML_OUTPUT_DIRECTORY": os.path.join(work, wire.OUTPUTS),
                **dialect.task_variables(job, cluster, placement, task),
                **rendezvous.variables(
                    *(cluster.era, job.distribution, placement, task, listening, init_file)
                ),
            },
        )
    for name, file in tasks.items():
        _write_task(record.file(wire.LAUNCH_TASKS, name), file)
    document = {
        "endpoints": listening,
        "environment": environment,
        "plan": plan.to_json(),
        "tasks": {name: _for_people(file, environment) for name, file in tasks.items()},
        "world_size": placement.world_size,
    }
    write_json(record.file(wire.LAUNCH), document)
    return {name: file.log for name, file in tasks.items()}, listening


def _identity(record: RunRecord) -> dialect.Identity:
    spec = record.spec()
    workspace = spec.get("workspace") or {}
    return dialect.Identity(
        run_id=record.id,
        experiment=spec["experiment"],
        workspace=workspace.get("name", "local"),
        run_dir=record.path,
        **{k: workspace[k] for k in ("subscription_id", "resource_group") if workspace.get(k)},
    )


def _write_hosts(
    record: RunRecord,
    identity: dialect.Identity,
    placement: Placement,
    addresses: Mapping[str, str],
) -> None:
    """Open MPI's host file, and the names by which our remote-shell client finds nodes."""
    with open(identity.host_file, "w") as hosts:
        hosts.writelines(
            f"{addresses[node]} slots={len(placement.on(node))}\n" for node in placement.nodes
        )
    with open(record.file(wire.TMP, wire.NODES), "w") as known:
        known.writelines(f"{addresses[node]} {node}\n" for node in placement.nodes)


def _environment(
    record: RunRecord,
    job: JobSpec,
    placement: Placement,
    hooks: Collection[str],
    libraries: str,
    era: Mapping[str, str],
) -> dict[str, str]:
    """What all tasks find in their environment; ``era``: what the era's dialect adds."""
    share = str(max(1, placement.cpus // placement.world_size))
    environment = {
        # Each rank gets its share of the cores; numerical libraries take all of them otherwise,
        # and ranks that outnumber cores then wait for each other's threads. TensorFlow's pool reads
        # a variable of its own: four ranks on two cores need a third less CPU time for a step of
        # wide layers. How many operations overlap is left to it, as some of them only wait.
        "OMP_NUM_THREADS": share,
        "TF_NUM_INTRAOP_THREADS": share,
        **era,
        **job.variables,
        "PYTHONPATH": ":".join(
            filter(None, (record.file(wire.PYTHONPATH), job.variables.get("PYTHONPATH")))
        ),
    }
    if libraries and "LD_LIBRARY_PATH" in job.variables:  # the nodes' own has it already
        environment["LD_LIBRARY_PATH"] = f"{libraries}:{job.variables['LD_LIBRARY_PATH']}"
    if hooks:
        # A job that sets the variable itself decides for itself; empty, it turns hooks off.
        environment.setdefault(wire.HOOKS_VARIABLE, ",".join(hooks))
    return environment


def _write_task(path: str, file: TaskFile) -> None:
    try:
        content = file.encode()
    except ValueError as error:
        raise SpecError(
            f"{error}, so no process can be given it",
            remedy="remove it from the arguments and the environment variables",
            where="job",
        ) from error
    with open(path, "wb") as stream:
        stream.write(content)


def _words(job: JobSpec, node: NodeInfo, plan: LaunchPlan, python: str) -> tuple[int, list[str]]:
    """A task's command, and how many of its first words are not the user's."""
    if job.command is not None:
        return 0, list(job.command)
    main = os.path.join(node.package, "node", "main.py")
    ours = [python, main, "abort" if plan.abort_on_error else "plain", str(job.entry_script)]
    return len(ours), [*ours, *job.arguments]


def _for_people(file: TaskFile, environment: Mapping[str, str]) -> dict[str, Any]:
    own = {k: v for k, v in file.variables.items() if environment.get(k) != v}
    return {"argv": file.words, "cwd": file.cwd, "environment": own, "log": file.log}
