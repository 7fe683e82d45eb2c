"""Reinforcement learning and TensorBoard: their names and parameters against the real ones."""

from __future__ import annotations

import importlib
import inspect
import warnings
from typing import Any

import pytest

from simgrid_ml.azure import coverage

with warnings.catch_warnings():  # the SDK is full of them
    warnings.simplefilter("ignore")
    import azureml.contrib.train.rl as real_rl
    import azureml.tensorboard as real_tensorboard
    import azureml.tensorboard.export as real_export

pytestmark = pytest.mark.filterwarnings("ignore")
REAL = {
    "azureml.contrib.train.rl": real_rl,
    "azureml.tensorboard": real_tensorboard,
    "azureml.tensorboard.export": real_export,
}
EMULATED = [(module, name) for module in REAL for name in coverage.EMULATED[module]]


def parameters(thing: Any) -> list[tuple[str, Any]]:
    return [(one.name, one.kind) for one in inspect.signature(thing).parameters.values()]


@pytest.mark.parametrize(("module", "name"), EMULATED)
def test_every_name_is_the_sdks_with_its_parameters(module: str, name: str) -> None:
    ours = getattr(importlib.import_module(coverage.EMULATED[module][name]), name)
    theirs = getattr(REAL[module], name)
    assert parameters(ours) == parameters(theirs)
    for word, member in vars(theirs).items() if inspect.isclass(theirs) else ():
        if not word.startswith("_") and inspect.isfunction(member):
            assert parameters(getattr(ours, word)) == parameters(member), word


def test_no_name_of_reinforcement_learning_is_forgotten() -> None:
    module = "azureml.contrib.train.rl"
    known = {*coverage.EMULATED[module], *coverage.MISSING[module]}
    assert known == set(real_rl.__all__)


def test_ray_has_the_sdks_versions() -> None:
    from simgrid_ml.azure.reinforcement import Ray

    assert Ray.supported_versions() == real_rl.Ray.supported_versions()
    assert Ray().version == real_rl.Ray().version
    assert repr(Ray("0.8.3")) == repr(real_rl.Ray("0.8.3"))
    for kind in (Ray, real_rl.Ray):
        with pytest.raises(Exception, match=r"0\.9") as caught:
            kind("0.9")
        assert type(caught.value).__name__ == "UserErrorException"
