"""Names of ``azureml.exceptions``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.errors import ActivityFailedException as ActivityFailedException
from simgrid_ml.azure.errors import AuthenticationException as AuthenticationException
from simgrid_ml.azure.errors import AzureMLAggregatedException as AzureMLAggregatedException
from simgrid_ml.azure.errors import AzureMLException as AzureMLException
from simgrid_ml.azure.errors import ComputeTargetException as ComputeTargetException
from simgrid_ml.azure.errors import DiscoveryUrlNotFoundException as DiscoveryUrlNotFoundException
from simgrid_ml.azure.errors import ExperimentExecutionException as ExperimentExecutionException
from simgrid_ml.azure.errors import ModelNotFoundException as ModelNotFoundException
from simgrid_ml.azure.errors import ModelPathNotFoundException as ModelPathNotFoundException
from simgrid_ml.azure.errors import ProjectSystemException as ProjectSystemException
from simgrid_ml.azure.errors import RunConfigurationException as RunConfigurationException
from simgrid_ml.azure.errors import RunEnvironmentException as RunEnvironmentException
from simgrid_ml.azure.errors import SnapshotException as SnapshotException
from simgrid_ml.azure.errors import TrainingException as TrainingException
from simgrid_ml.azure.errors import UserErrorException as UserErrorException
from simgrid_ml.azure.errors import WebserviceException as WebserviceException
from simgrid_ml.azure.errors import WorkspaceException as WorkspaceException

__getattr__ = _coverage.getter(__name__)
