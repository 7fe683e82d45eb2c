"""Names of ``azureml.core.compute``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.compute import AmlCompute as AmlCompute
from simgrid_ml.azure.compute import ComputeTarget as ComputeTarget

__getattr__ = _coverage.getter(__name__)
