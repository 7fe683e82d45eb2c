"""Names of ``azureml.core.compute_target``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.errors import ComputeTargetException as ComputeTargetException
from simgrid_ml.azure.errors import UserErrorException as UserErrorException

__getattr__ = _coverage.getter(__name__)
