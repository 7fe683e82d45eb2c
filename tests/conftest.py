"""What all tests share: homes of their own, the real environments once, and the leak check."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.process import wanted_isolation
from simgrid_ml.errors import HostError
from simgrid_ml.network.choose import abilities
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.pools import stop_pools
from simgrid_ml.testing.runs import Runs

settings.register_profile("untimed", deadline=None)  # machines may be busy
settings.load_profile("untimed")

INTERPRETER_VARIABLE = "SIMGRID_ML_TEST_INTERPRETER"
"""A Python with Open MPI, mpi4py, torch and Horovod to use instead of building one."""

SPEC = EnvironmentSpec(framework="pytorch", framework_version="1.4", conda=("scikit-learn",))
"""The same as the demo's, so that one build serves both."""

TENSORFLOW = EnvironmentSpec(
    framework="tensorflow",
    framework_version="2.3",
    conda=("scikit-learn",),
    pip=("tf2onnx", "onnxruntime"),
)
"""TensorFlow 2. With ``framework_version="1.13"`` the packages are the same, the hooks are not."""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No test sees or touches the user's workspaces; the cache of environments is shared."""
    home = tmp_path / "home"
    monkeypatch.setenv("SIMGRID_ML_HOME", str(home))
    yield home
    stop_pools(str(home))


@pytest.fixture(scope="session")
def environment() -> EnvironmentSpec:
    """What the jobs run in: Open MPI, mpi4py, torch, Horovod. Built where there is none yet."""
    given = os.environ.get(INTERPRETER_VARIABLE)
    if given:
        return EnvironmentSpec(interpreter=given)
    from simgrid_ml.environments.build import ensure

    ensure(SPEC)
    return SPEC


@pytest.fixture(scope="session")
def tensorflow() -> EnvironmentSpec:
    """As ``environment``, with TensorFlow, Keras and their Horovod."""
    from simgrid_ml.environments.build import ensure

    ensure(TENSORFLOW)
    return TENSORFLOW


REQUIRE_DOCKER_VARIABLE = "SIMGRID_ML_REQUIRE_DOCKER"
"""Set where an engine is promised, as by ``.ci/run``: its absence then fails the tests."""


@pytest.fixture(scope="session")
def docker_engine() -> Engine:
    """The container engine of this host; tests that need one are skipped where there is none."""
    try:
        engine = Engine()
        engine.version()
    except HostError as error:
        if os.environ.get(REQUIRE_DOCKER_VARIABLE):
            pytest.fail(f"{REQUIRE_DOCKER_VARIABLE} is set, but: {error}")
        pytest.skip(str(error))
    return engine


@pytest.fixture
def shaped_links() -> None:
    """Tests of nodes with shaped links are skipped where the host can give them none."""
    lacks = abilities(wanted_isolation()).no_networks
    if lacks:
        pytest.skip(f"{lacks}: `simgrid-ml doctor` says what to do")


@pytest.fixture
def workspace(tmp_path: Path, environment: EnvironmentSpec) -> Iterator[Runs]:
    """Submits jobs; nothing of them is left when the test ends."""
    with nothing_left(str(tmp_path)):
        yield Runs(str(tmp_path), environment)


@pytest.fixture
def tensorflow_runs(tmp_path: Path, tensorflow: EnvironmentSpec) -> Iterator[Runs]:
    """As ``workspace``, with TensorFlow."""
    with nothing_left(str(tmp_path)):
        yield Runs(str(tmp_path), tensorflow, deadline_s=240.0)


@pytest.fixture
def pooled(tmp_path: Path, environment: EnvironmentSpec) -> Iterator[Runs]:
    """As ``workspace``, for clusters that keep nodes: these end before the look at what is left."""
    with nothing_left(str(tmp_path)):
        runs = Runs(str(tmp_path), environment)
        yield runs
        for record in runs.store.list():
            record.request_cancel()
            runs.ended(record)
        stop_pools(str(tmp_path))
