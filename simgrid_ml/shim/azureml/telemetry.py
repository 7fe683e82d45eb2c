"""Names of ``azureml.telemetry``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.widgets import set_diagnostics_collection as set_diagnostics_collection

__getattr__ = _coverage.getter(__name__)
