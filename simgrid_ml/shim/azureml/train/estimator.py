"""Names of ``azureml.train.estimator``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.estimator import Estimator as Estimator
from simgrid_ml.azure.estimator import Gloo as Gloo
from simgrid_ml.azure.estimator import MMLBaseEstimator as MMLBaseEstimator
from simgrid_ml.azure.estimator import Mpi as Mpi
from simgrid_ml.azure.estimator import Nccl as Nccl
from simgrid_ml.azure.estimator import ParameterServer as ParameterServer

__getattr__ = _coverage.getter(__name__)
