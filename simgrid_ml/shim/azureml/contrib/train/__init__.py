"""Names of ``azureml.contrib.train``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage

__getattr__ = _coverage.getter(__name__)
