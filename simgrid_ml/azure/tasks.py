"""From a run configuration to the job's processes: how many there are, and how they meet.

What TensorFlow's tasks can be told beyond Azure ML's words comes from variables of the job, so
that it needs no parameter which the SDK has not got.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

from simgrid_ml.azure.errors import (
    ExperimentExecutionException,
    RunConfigurationException,
    UserErrorException,
    not_emulated,
)
from simgrid_ml.spec.job import Distribution, Mpi, ParameterServer, Plain, TorchDistributed

__all__ = ["MPI", "distribution", "section", "variables"]

MPI = ("mpi", "intelmpi", "openmpi")
_OPTION = "SIMGRID_ML_TF_"
_FIRST_WORKER = f"{_OPTION}FIRST_WORKER"
_COORDINATOR = f"{_OPTION}COORDINATOR"
_SERVER_GRACE = f"{_OPTION}SERVER_GRACE_S"
_SWITCH = {"1": True, "true": True, "0": False, "false": False}


def section(run_config: Any) -> str | None:
    """The part of the run configuration that its communicator reads; None: no distribution."""
    communicator = (run_config.communicator or "None").lower()
    if communicator in MPI:
        return "mpi"
    return {
        "parameterserver": "tensorflow",
        "gloo": "pytorch",
        "nccl": "pytorch",
        "paralleltask": "paralleltask",
    }.get(communicator)


def variables(run_config: Any) -> dict[str, str]:
    """What the job's processes find in their environment; the run's own wins."""
    return {
        str(name): str(value)
        for given in (
            run_config.environment.environment_variables,
            run_config.environment_variables,
        )
        for name, value in (given or {}).items()
    }


def distribution(run_config: Any) -> Distribution:
    """
    Raises:
        ExperimentExecutionException: a count that makes no job.
        RunConfigurationException: an unknown communicator.
        UserErrorException: an option of TensorFlow's tasks that is none, or is for another job.
        NotEmulated: parallel tasks.
    """
    nodes = _count("node count", run_config.node_count)
    kind = section(run_config)
    options = {
        name: text for name, text in variables(run_config).items() if name.startswith(_OPTION)
    }
    if kind == "tensorflow":
        return _tensorflow(run_config.tensorflow, nodes, options)
    if options:
        raise UserErrorException(
            f"{', '.join(sorted(options))}: only for TensorFlow's tasks, and this job's "
            f"communicator is {run_config.communicator!r}; take it out, or use "
            "TensorflowConfiguration"
        )
    if kind == "mpi":
        per_node = run_config.mpi.process_count_per_node
        return Mpi(nodes=nodes, processes_per_node=_count("process count per node", per_node))
    if kind == "pytorch":
        return TorchDistributed(
            nodes=nodes,
            processes_per_node=_per_node(run_config.pytorch.process_count, nodes),
            backend="nccl" if run_config.communicator.lower() == "nccl" else "gloo",
        )
    if kind == "paralleltask":
        raise not_emulated("parallel tasks", remedy="use MpiConfiguration")
    if (run_config.communicator or "None").lower() != "none":
        raise RunConfigurationException(
            f"{run_config.communicator!r} is no communicator; use 'None', 'OpenMpi', 'IntelMpi', "
            "'ParameterServer', 'Gloo' or 'Nccl'"
        )
    return Plain(nodes=nodes)


def _tensorflow(counts: Any, nodes: int, options: Mapping[str, str]) -> ParameterServer:
    unknown = sorted(options.keys() - {_FIRST_WORKER, _COORDINATOR, _SERVER_GRACE})
    if unknown:
        raise UserErrorException(
            f"{', '.join(unknown)}: no such option; there are {_FIRST_WORKER}, {_COORDINATOR} and "
            f"{_SERVER_GRACE}"
        )
    workers = _count("worker count", counts.worker_count)
    servers = _count("parameter server count", counts.parameter_server_count, least=0)
    first_worker = options.get(_FIRST_WORKER, "worker")
    if first_worker not in ("worker", "master"):
        raise UserErrorException(f"{_FIRST_WORKER}={first_worker!r}: 'worker' or 'master'")
    text = options.get(_COORDINATOR, "0")
    coordinator = _SWITCH.get(text.lower())
    if coordinator is None:
        raise UserErrorException(f"{_COORDINATOR}={text!r}: '1' or '0'")
    if coordinator and not servers:
        raise UserErrorException(f"{_COORDINATOR} needs at least one parameter server")
    if coordinator and first_worker == "master":
        raise UserErrorException(
            f"{_COORDINATOR} and {_FIRST_WORKER}=master: with a coordinator all workers are the "
            "same; leave one of the two out"
        )
    grace: dict[str, float] = {}
    if _SERVER_GRACE in options:
        grace["server_grace_s"] = _seconds(_SERVER_GRACE, options[_SERVER_GRACE])
    return ParameterServer(
        nodes=nodes,
        workers=workers,
        servers=servers,
        coordinator=coordinator,
        first_worker="master" if first_worker == "master" else "worker",
        **grace,
    )


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise UserErrorException(f"{name}={text!r}: a number of seconds, 0 or more")
    return seconds


def _per_node(total: Any, nodes: int) -> int:
    """
    Args:
        total: processes of the job; None: one on each node.
    """
    if total is None:
        return 1
    count = _count("process count", total)
    if count % nodes:
        raise ExperimentExecutionException(
            f"process_count is the number of all processes: {count} cannot be spread evenly over "
            f"{nodes} nodes"
        )
    return count // nodes


def _count(what: str, number: Any, least: int = 1) -> int:
    try:
        count = operator.index(number)
    except TypeError:
        count = least - 1
    if count < least or isinstance(number, bool):
        raise ExperimentExecutionException(
            f"{what} should be a whole number and at least {least}, not {number!r}"
        )
    return count
