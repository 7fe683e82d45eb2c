"""Horovod's learning-rate callbacks as they were: the rate to begin with may be left out.

Every Keras script of then says ``LearningRateWarmupCallback(warmup_epochs=5, verbose=1)``.
"""

from __future__ import annotations

__all__ = ["apply"]


def apply(module):
    """Without ``initial_lr`` the callbacks of ``module`` take that of the optimizer."""
    for callback in (module.LearningRateScheduleCallback, module.LearningRateWarmupCallback):
        callback.__init__ = _with_rate_last(callback.__init__)


def _with_rate_last(construct):
    def __init__(self, *args, **kwargs):
        rate = kwargs.pop("initial_lr", None)
        construct(self, 0.0, *args, **kwargs)  # None is refused here
        self.initial_lr = rate  # and stands for the optimizer's when training begins

    return __init__
