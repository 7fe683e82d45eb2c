"""Names of ``azureml.core.container_registry``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.environment import ContainerRegistry as ContainerRegistry

__getattr__ = _coverage.getter(__name__)
