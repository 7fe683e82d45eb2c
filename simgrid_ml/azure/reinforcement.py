"""The names of reinforcement learning, so that a driver that imports them runs up to their use."""

from __future__ import annotations

from typing import Any

from simgrid_ml.azure.errors import not_emulated

__all__ = ["REASON", "Ray", "ReinforcementLearningEstimator", "WorkerConfiguration"]

REASON = (
    "it promises Ray 0.8 and its RLlib, which have no build for Python 3.10 or later, and in the "
    "Ray of today the modules that its scripts import, as `ray.rllib.agents`, are gone"
)
_INSTEAD = (
    "today's Ray runs across the nodes of a job with one process on each: add ray to the packages, "
    "distribute by PyTorchConfiguration, and start `ray start --head --port 6399` where RANK is 0 "
    "and `ray start --address=$MASTER_ADDR:6399` elsewhere"
)


class _Refused:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise not_emulated(f"{type(self).__name__}, as {REASON}", remedy=_INSTEAD)


class ReinforcementLearningEstimator(_Refused):
    """Not emulated; see ``REASON``."""


class Ray(_Refused):
    """Not emulated; see ``REASON``."""


class WorkerConfiguration(_Refused):
    """Not emulated; see ``REASON``."""
