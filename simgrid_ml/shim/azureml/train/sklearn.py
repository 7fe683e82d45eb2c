"""Names of ``azureml.train.sklearn``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.sklearn import SKLearn as SKLearn

__getattr__ = _coverage.getter(__name__)
