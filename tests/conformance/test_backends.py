"""Every backend that is installed passes the suite, on every rung of isolation it has."""

import pytest

from simgrid_ml.testing.conformance import BackendConformance


class TestProcess(BackendConformance):
    backend_name = "process"


class TestProcessWithHostNamesOnly(BackendConformance):
    backend_name = "process"

    @pytest.fixture(autouse=True)
    def isolation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SIMGRID_ML_ISOLATION", "hostname")


class TestProcessWithoutIsolation(BackendConformance):
    backend_name = "process"

    @pytest.fixture(autouse=True)
    def isolation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SIMGRID_ML_ISOLATION", "none")


@pytest.mark.usefixtures("docker_engine")
class TestDocker(BackendConformance):
    backend_name = "docker"
