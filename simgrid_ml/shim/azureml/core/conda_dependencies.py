"""Names of ``azureml.core.conda_dependencies``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.conda_dependencies import PYTHON_DEFAULT_VERSION as PYTHON_DEFAULT_VERSION
from simgrid_ml.azure.conda_dependencies import CondaDependencies as CondaDependencies

__getattr__ = _coverage.getter(__name__)
