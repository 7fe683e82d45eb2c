"""Names of ``azureml.core.run``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.offline import _OfflineRun as _OfflineRun
from simgrid_ml.azure.run import Run as Run
from simgrid_ml.azure.run import get_run as get_run

__getattr__ = _coverage.getter(__name__)
