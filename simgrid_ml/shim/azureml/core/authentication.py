"""Names of ``azureml.core.authentication``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.authentication import AbstractAuthentication as AbstractAuthentication
from simgrid_ml.azure.authentication import AzureCliAuthentication as AzureCliAuthentication
from simgrid_ml.azure.authentication import (
    InteractiveLoginAuthentication as InteractiveLoginAuthentication,
)
from simgrid_ml.azure.authentication import MsiAuthentication as MsiAuthentication
from simgrid_ml.azure.authentication import (
    ServicePrincipalAuthentication as ServicePrincipalAuthentication,
)

__getattr__ = _coverage.getter(__name__)
