"""Names of ``azureml.core.workspace``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.workspace import Workspace as Workspace

__getattr__ = _coverage.getter(__name__)
