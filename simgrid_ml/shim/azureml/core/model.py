"""Names of ``azureml.core.model``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.model import Model as Model

__getattr__ = _coverage.getter(__name__)
