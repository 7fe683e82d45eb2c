"""Names of ``azureml.core.runconfig``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.conda_dependencies import CondaDependencies as CondaDependencies
from simgrid_ml.azure.environment import Environment as Environment
from simgrid_ml.azure.runconfig import DEFAULT_CPU_IMAGE as DEFAULT_CPU_IMAGE
from simgrid_ml.azure.runconfig import DEFAULT_GPU_IMAGE as DEFAULT_GPU_IMAGE
from simgrid_ml.azure.runconfig import LOCAL_RUNCONFIG_NAME as LOCAL_RUNCONFIG_NAME
from simgrid_ml.azure.runconfig import MPI_CPU_IMAGE as MPI_CPU_IMAGE
from simgrid_ml.azure.runconfig import MPI_GPU_IMAGE as MPI_GPU_IMAGE
from simgrid_ml.azure.runconfig import AmlComputeConfiguration as AmlComputeConfiguration
from simgrid_ml.azure.runconfig import ContainerRegistry as ContainerRegistry
from simgrid_ml.azure.runconfig import DataReferenceConfiguration as DataReferenceConfiguration
from simgrid_ml.azure.runconfig import DockerConfiguration as DockerConfiguration
from simgrid_ml.azure.runconfig import EnvironmentDefinition as EnvironmentDefinition
from simgrid_ml.azure.runconfig import HistoryConfiguration as HistoryConfiguration
from simgrid_ml.azure.runconfig import MpiConfiguration as MpiConfiguration
from simgrid_ml.azure.runconfig import ParallelTaskConfiguration as ParallelTaskConfiguration
from simgrid_ml.azure.runconfig import PyTorchConfiguration as PyTorchConfiguration
from simgrid_ml.azure.runconfig import RunConfiguration as RunConfiguration
from simgrid_ml.azure.runconfig import TensorflowConfiguration as TensorflowConfiguration

__getattr__ = _coverage.getter(__name__)
