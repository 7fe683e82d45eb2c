"""Names of ``azureml.core.script_run_config``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.script_run_config import ScriptRunConfig as ScriptRunConfig

__getattr__ = _coverage.getter(__name__)
