"""The same call on both sides: this package's names and the real SDK's, and how to compare."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from simgrid_ml.azure import conda_dependencies as our_conda
from simgrid_ml.azure import distributed as our_distributed
from simgrid_ml.azure import dnn as our_dnn
from simgrid_ml.azure import environment as our_environment
from simgrid_ml.azure import estimator as our_estimator
from simgrid_ml.azure import runconfig as our_runconfig
from simgrid_ml.azure import script_run_config as our_script
from simgrid_ml.azure import sklearn as our_sklearn
from simgrid_ml.azure.runconfig import definition

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import azureml.core as real_core
    import azureml.core.compute as real_compute
    import azureml.core.conda_dependencies as real_conda
    import azureml.core.runconfig as real_runconfig
    import azureml.data.data_reference as real_reference
    import azureml.data.datapath as real_datapath
    import azureml.train.dnn as real_dnn
    import azureml.train.estimator as real_estimator
    import azureml.train.sklearn as real_sklearn


class ComputeTarget:
    """Stands for ours: the estimators know targets by the names of their classes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.location = self.cluster_location = "westeurope"


class AmlCompute(ComputeTarget):
    pass


class KubernetesCompute(ComputeTarget):
    pass


class HDInsightCompute(ComputeTarget):
    pass


def _real_target(kind: str, name: str) -> Any:
    target = object.__new__(getattr(real_compute, kind))  # the constructor asks the service
    target.name = name
    target.location = target.cluster_location = "westeurope"
    return target


def _our_target(kind: str, name: str) -> Any:
    kinds = {kind.__name__: kind for kind in (AmlCompute, KubernetesCompute, HDInsightCompute)}
    return kinds[kind](name)


@dataclass(frozen=True)
class Side:
    """One of the two SDKs."""

    names: SimpleNamespace
    target: Callable[[str, str], Any]


def _names(estimator: Any, dnn: Any, sklearn: Any, runconfig: Any, *others: Any) -> SimpleNamespace:
    found: dict[str, Any] = {"Estimator": estimator.Estimator, "SKLearn": sklearn.SKLearn}
    for module, names in (
        (dnn, "PyTorch TensorFlow Chainer Mpi ParameterServer Gloo Nccl"),
        (
            runconfig,
            "MpiConfiguration TensorflowConfiguration PyTorchConfiguration "
            "ParallelTaskConfiguration DockerConfiguration RunConfiguration",
        ),
    ):
        found.update({name: getattr(module, name) for name in names.split()})
    for thing in others:
        found[thing.__name__] = thing
    return SimpleNamespace(**found)


OURS = Side(
    _names(
        our_estimator,
        our_dnn,
        our_sklearn,
        our_runconfig,
        our_environment.Environment,
        our_environment.ContainerRegistry,
        our_conda.CondaDependencies,
        our_script.ScriptRunConfig,
    ),
    _our_target,
)
REAL = Side(
    _names(
        real_estimator,
        real_dnn,
        real_sklearn,
        real_runconfig,
        real_core.Environment,
        real_core.ContainerRegistry,
        real_conda.CondaDependencies,
        real_core.ScriptRunConfig,
    ),
    _real_target,
)
assert our_distributed.Mpi is OURS.names.Mpi
DATA_PATH, DATA_REFERENCE = real_datapath.DataPath, real_reference.DataReference


@dataclass(frozen=True)
class New:
    """A value that each side builds for itself, so that neither sees what the other changed."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    then: tuple[tuple[str, Any], ...] = ()  # dotted attribute, value

    def on(self, side: Side) -> Any:
        if self.name == "target":
            return side.target(*self.args)
        made: Any = side.names
        for part in self.name.split("."):
            made = getattr(made, part)
        thing = made(*built(list(self.args), side), **built(dict(self.kwargs), side))
        for path, value in self.then:
            *holders, last = path.split(".")
            holder = thing
            for name in holders:
                holder = getattr(holder, name)
            setattr(holder, last, built(value, side))
        return thing

    def __repr__(self) -> str:
        words = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        words += [f"{path}:={value!r}" for path, value in self.then]
        return f"{self.name}({', '.join(words)})"


def built(value: Any, side: Side) -> Any:
    """``value`` with each ``New`` in it built, and all containers copied."""
    if isinstance(value, New):
        return value.on(side)
    if isinstance(value, dict):
        return {key: built(item, side) for key, item in value.items()}
    if isinstance(value, list):
        return [built(item, side) for item in value]
    return value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Deprecation notices of both go to logging and stdout; thousands of them help nobody."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class _Names(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("simgrid_ml"):
            self.found.append(record.name)


def warned(make: Callable[[], Any]) -> list[str]:
    """The loggers that ``make`` wrote warnings to, in order; our own are left out.

    Empty if it raised: ours writes all warnings before it checks anything.
    """
    root, names = logging.getLogger(), _Names()
    others, root.handlers = root.handlers, [names]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            make()
            return names.found
    finally:
        root.handlers = others
    return []


def attempt(make: Callable[[], Any]) -> tuple[str, Any]:
    """``("raised", class name)`` or ``("made", result)``."""
    with quiet():
        try:
            return "made", make()
        except Exception as error:
            return "raised", type(error).__name__


def shown(side: Side, run_config: Any) -> Any:
    """The run configuration as the side itself serializes it."""
    with quiet():
        if side is OURS:
            return json.loads(json.dumps(definition(run_config), default=str))
        return json.loads(repr(run_config))


def difference(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where ``ours`` says something else than ``theirs``, which may say more."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key, value in ours.items():
            if key not in theirs:
                found.append(f"{where}.{key}: only ours has it")
            else:
                found += difference(value, theirs[key], f"{where}.{key}")
        return found
    return [] if ours == theirs else [f"{where}: ours {ours!r}, theirs {theirs!r}"]


def project(folder: Path) -> Path:
    """A source folder with everything the calls refer to."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text("print('hello')\n")
    (folder / "note.ipynb").write_text("{}\n")
    (folder / "requirements.txt").write_text("pillow==5.4.1\nrequests>=2\nrequests<3\n")
    (folder / "conda.yml").write_text(
        "name: mine\nchannels: [conda-forge]\n"
        "dependencies:\n- python=3.7\n- numpy\n- pip:\n  - tqdm\n"
    )
    return folder
