"""Names of ``azureml.train.dnn``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.dnn import Chainer as Chainer
from simgrid_ml.azure.dnn import Gloo as Gloo
from simgrid_ml.azure.dnn import Mpi as Mpi
from simgrid_ml.azure.dnn import Nccl as Nccl
from simgrid_ml.azure.dnn import ParameterServer as ParameterServer
from simgrid_ml.azure.dnn import PyTorch as PyTorch
from simgrid_ml.azure.dnn import TensorFlow as TensorFlow

__getattr__ = _coverage.getter(__name__)
