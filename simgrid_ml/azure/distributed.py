"""The older objects for ``distributed_training=``, all deprecated in favour of ``runconfig``'s."""

from __future__ import annotations

import logging

from simgrid_ml.azure.runconfig import MpiConfiguration, TensorflowConfiguration

__all__ = ["DistributedTraining", "Gloo", "Mpi", "Nccl", "ParameterServer"]

_log = logging.getLogger("azureml.train._distributed_training")


class DistributedTraining:
    """Base of all.

    Attributes:
        _supported_frameworks: class names, in lower case, of the estimators that take the object.
        _framework: what becomes of the run configuration's ``framework``.
    """

    _supported_frameworks: tuple[str, ...] = ("estimator", "pytorch")
    _framework = "python"

    def _get_framework(self) -> str:
        return self._framework

    def __str__(self) -> str:
        return type(self).__name__.lower()


class Mpi(DistributedTraining):
    """MPI with this many processes on every node."""

    _supported_frameworks = ("pytorch", "tensorflow", "chainer", "estimator", "lightgbm")

    def __init__(self, process_count_per_node: int = 1) -> None:
        _deprecated("Mpi", "MpiConfiguration")
        self.process_count_per_node = process_count_per_node

    def _get_configuration(self) -> MpiConfiguration:
        return MpiConfiguration(process_count_per_node=self.process_count_per_node)


class ParameterServer(DistributedTraining):
    """TensorFlow's parameter servers and workers."""

    _supported_frameworks = ("tensorflow", "estimator")
    _framework = "tensorflow"

    def __init__(self, worker_count: int = 1, parameter_server_count: int = 1) -> None:
        _deprecated("ParameterServer", "TensorflowConfiguration")
        self.worker_count = worker_count
        self.parameter_server_count = parameter_server_count

    def _get_configuration(self) -> TensorflowConfiguration:
        return TensorflowConfiguration(self.worker_count, self.parameter_server_count)

    def __str__(self) -> str:
        return "ps"


class Gloo(DistributedTraining):
    """torch.distributed over Gloo."""

    _framework = "pytorch"

    def __init__(self) -> None:
        _deprecated("Gloo", "PyTorchConfiguration")


class Nccl(DistributedTraining):
    """torch.distributed over NCCL."""

    _framework = "pytorch"

    def __init__(self) -> None:
        _deprecated("Nccl", "PyTorchConfiguration")


def _deprecated(name: str, instead: str) -> None:
    _log.warning(
        "'%s' is deprecated. Please use 'azureml.core.runconfig.%s' instead", name, instead
    )
