"""Names of ``azureml.tensorboard.export``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.tensorboard_export import export_to_tensorboard as export_to_tensorboard

__getattr__ = _coverage.getter(__name__)
