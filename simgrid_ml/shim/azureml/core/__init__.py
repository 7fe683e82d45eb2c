"""Names of ``azureml.core``; docs/coverage.md says which are emulated."""

from typing import TYPE_CHECKING

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.experiment import Experiment as Experiment
from simgrid_ml.azure.model import Model as Model
from simgrid_ml.azure.run import Run as Run
from simgrid_ml.azure.run import get_run as get_run
from simgrid_ml.azure.workspace import Workspace as Workspace

if TYPE_CHECKING:  # loaded when first used: a node has only the standard library
    from simgrid_ml.azure.compute import ComputeTarget as ComputeTarget
    from simgrid_ml.azure.environment import ContainerRegistry as ContainerRegistry
    from simgrid_ml.azure.environment import Environment as Environment
    from simgrid_ml.azure.runconfig import RunConfiguration as RunConfiguration
    from simgrid_ml.azure.script_run_config import ScriptRunConfig as ScriptRunConfig

VERSION = "1.61.0"
__version__ = VERSION

__getattr__ = _coverage.getter(__name__)
