"""Names of ``azureml.contrib.train.rl``; docs/coverage.md says which are emulated."""

from simgrid_ml.azure import coverage as _coverage
from simgrid_ml.azure.reinforcement import Ray as Ray
from simgrid_ml.azure.reinforcement import (
    ReinforcementLearningEstimator as ReinforcementLearningEstimator,
)
from simgrid_ml.azure.reinforcement import RLFramework as RLFramework
from simgrid_ml.azure.reinforcement import WorkerConfiguration as WorkerConfiguration

__getattr__ = _coverage.getter(__name__)
