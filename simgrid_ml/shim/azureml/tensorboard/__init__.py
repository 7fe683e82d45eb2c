"""Names of ``azureml.tensorboard``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.tensorboard import Tensorboard as Tensorboard

__getattr__ = _coverage.getter(__name__)
