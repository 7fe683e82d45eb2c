"""Names of ``azureml.widgets``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.widgets import RunDetails as RunDetails

__getattr__ = _coverage.getter(__name__)
