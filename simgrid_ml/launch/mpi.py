"""Open MPI: one mpirun on the head node, daemons on the others through our remote-shell client.

Three settings decide whether any figure means something; measured with Open MPI 5.0.11, four
nodes on two cores (``benchmarks/overhead`` repeats it):

* ``mpi_yield_when_idle``: a node sees fewer ranks than cores and spins while it waits; an 8 B
  allreduce takes 7992 us instead of 62;
* ``--bind-to none``: each node's daemon believes it owns the host and binds its first rank to
  core 0, so all nodes queue for one core; 134 us instead of 62, with the yield;
* ``btl self,sm,tcp``: probing the other transports costs a second of MPI_Init.

A variable of the job named ``SIMGRID_ML_MCA_<parameter>`` replaces a setting or adds one, and takes
it away if empty; ``bind_to`` stands for the option. Open MPI's own ``OMPI_MCA_*`` cannot: what is
said on its command line wins over them. An ``mpirun`` that a script starts finds all of these in
its environment, where its own options win.
"""

from __future__ import annotations

from collections.abc import Mapping

from simgrid_ml.launch.plan import Command, LaunchPlan, Tools
from simgrid_ml.spec.job import JobSpec
from simgrid_ml.spec.placement import Placement

__all__ = ["OVERRIDE", "node_variables", "plan"]

OVERRIDE = "SIMGRID_ML_MCA_"
_BIND = "bind-to"
_BINDING_VARIABLE = "PRTE_MCA_hwloc_default_binding_policy"
_RUNTIME = {
    "prte_do_not_resolve": "1",  # node names are in no DNS; asking it can take seconds
    "prte_silence_shared_fs": "1",
}


def plan(job: JobSpec, placement: Placement, tools: Tools) -> LaunchPlan:
    """One mpirun on the first node, ranks mapped explicitly: ``ppr:K:node`` over ``--host``.

    ``--host node0:2,node1:2 -np 4`` alone packs ranks on the first node (seen with 5.0.11).
    """
    nodes = placement.nodes
    per_node = placement.world_size // len(nodes)
    settings = _settings(job.variables, tools.interface, shares_cores=placement.shares_cores)
    parameters = {name: value for name, value in settings.items() if name != _BIND}
    runtime = {
        "plm": "ssh",
        "plm_ssh_agent": tools.rsh_name,
        "plm_ssh_no_tree_spawn": "1",
        "plm_ssh_num_concurrent": str(max(128, len(nodes))),
        **_RUNTIME,
    }
    argv = [
        "mpirun",
        *(["--allow-run-as-root"] if tools.is_root else []),
        "--leave-session-attached",
        *_pairs("--prtemca", runtime),
        *_pairs("--mca", parameters),
        *(["--bind-to", settings[_BIND]] if _BIND in settings else []),
        "--map-by",
        f"ppr:{per_node}:node:oversubscribe",
        "--host",
        ",".join(f"{node}:{per_node}" for node in nodes),
        "-np",
        str(placement.world_size),
        *tools.rank_argv(),
    ]
    return LaunchPlan(
        (Command("mpirun", nodes[0], tuple(argv), log="mpirun"),),
        frozenset({"mpirun"}),
        abort_on_error=True,
        settings=settings,
    )


def node_variables(
    variables: Mapping[str, str], interface: str, *, is_root: bool
) -> dict[str, str]:
    """What makes every ``mpirun`` on a node right, whoever starts it; its own options win.

    How many ranks it will start is not known, so they yield: that costs little where each has a
    core, and spinning costs a hundredfold where they share some.

    Args:
        variables: those of the job.
        interface: the one network interface that reaches the other nodes.
        is_root: Open MPI refuses root unless told.
    """
    settings = _settings(variables, interface, shares_cores=True)
    found = {f"PRTE_MCA_{name}": value for name, value in _RUNTIME.items()}
    for name, value in settings.items():
        variable = _BINDING_VARIABLE if name == _BIND else f"OMPI_MCA_{name}"
        found[variable] = value
    if is_root:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"):
            found |= {name: "1", f"{name}_CONFIRM": "1"}
    return found


def _settings(
    variables: Mapping[str, str], interface: str, *, shares_cores: bool
) -> dict[str, str]:
    settings = {
        _BIND: "none",
        "btl": "self,sm,tcp",
        "pml": "ob1",
        "btl_tcp_if_include": interface,
        "mpi_yield_when_idle": "1" if shares_cores else "0",
    }
    for name, value in variables.items():
        if name.startswith(OVERRIDE):
            settings[name[len(OVERRIDE) :].replace("bind_to", _BIND)] = value
    return {name: value for name, value in settings.items() if value}


def _pairs(flag: str, values: dict[str, str]) -> list[str]:
    return [word for key, value in values.items() for word in (flag, key, value)]
