"""Names of ``azureml.core.environment``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.conda_dependencies import CondaDependencies as CondaDependencies
from simgrid_ml.azure.environment import DEFAULT_CPU_IMAGE as DEFAULT_CPU_IMAGE
from simgrid_ml.azure.environment import DEFAULT_GPU_IMAGE as DEFAULT_GPU_IMAGE
from simgrid_ml.azure.environment import ContainerRegistry as ContainerRegistry
from simgrid_ml.azure.environment import DockerSection as DockerSection
from simgrid_ml.azure.environment import Environment as Environment
from simgrid_ml.azure.environment import PythonSection as PythonSection

__getattr__ = _coverage.getter(__name__)
