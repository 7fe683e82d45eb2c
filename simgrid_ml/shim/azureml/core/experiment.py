"""Names of ``azureml.core.experiment``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.experiment import Experiment as Experiment
from simgrid_ml.azure.experiment import ViewType as ViewType

__getattr__ = _coverage.getter(__name__)
