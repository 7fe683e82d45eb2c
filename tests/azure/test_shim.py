"""``import azureml``: every name is the very object of simgrid_ml.azure."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import simgrid_ml
from simgrid_ml.azure import coverage
from simgrid_ml.errors import NotEmulated

PACKAGE = Path(simgrid_ml.__file__).parent
SHIM = PACKAGE / "shim"
FILES = sorted(path.relative_to(SHIM) for path in (SHIM / "azureml").rglob("*.py"))
MODULES = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in FILES]


@pytest.fixture(autouse=True)
def active(monkeypatch):
    """The stand-in is first on the path, and gone from this process afterwards."""
    monkeypatch.syspath_prepend(str(SHIM))
    before = {name: sys.modules.pop(name) for name in [*sys.modules] if _is_azureml(name)}
    finders = [*sys.meta_path]
    yield
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if _is_azureml(name)]:
        del sys.modules[name]
    sys.modules.update(before)


def _is_azureml(name: str) -> bool:
    return name.partition(".")[0] == "azureml"


def run(code: str, *path: str, **variables: str) -> subprocess.CompletedProcess:
    places = [str(SHIM), *path, str(PACKAGE.parent)]
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(places), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_is_a_file_for_every_module_that_has_something():
    packages = {module.rpartition(".")[0] for module in MODULES} | {"azureml"}
    assert set(coverage.EMULATED) == set(MODULES) - (packages - set(coverage.EMULATED))


@pytest.mark.parametrize("module", sorted(coverage.EMULATED))
def test_each_name_is_the_original(module):
    loaded = importlib.import_module(module)
    for name, origin in coverage.EMULATED[module].items():
        assert getattr(loaded, name) is getattr(importlib.import_module(origin), name), name


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_no_name_that_the_table_does_not_know(module):
    loaded = importlib.import_module(module)
    submodules = {name.rpartition(".")[2] for name in MODULES if name.startswith(module + ".")}
    public = {name for name in vars(loaded) if not name.startswith("_")}
    known = set(coverage.EMULATED.get(module, {})) | submodules | {"TYPE_CHECKING", "VERSION"}
    assert public <= known


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, names in coverage.MISSING.items() for name in names],
)
def test_a_missing_name_says_so_and_where_to_look(module, name):
    with pytest.raises(NotEmulated, match=r"docs/coverage\.md") as caught:
        exec(f"from {module} import {name}")
    assert isinstance(caught.value, ImportError)
    said = caught.value.cause.partition(": not emulated")[0]
    assert f"{module}.{name}".startswith(said)
    assert said not in ("azureml", "azureml.core", "azureml.contrib", "azureml.train")


@pytest.mark.parametrize(
    "statement",
    [
        "import azureml.opendatasets",
        "import azureml.core.nonsense",
        "from azureml import interpret",
        "from azureml.contrib.nonsense import X",
        "import azureml.data as data",
        "from azureml.core import webservice",
    ],
)
def test_a_module_that_is_not_there_is_not_emulated(statement):
    with pytest.raises(NotEmulated, match=r"docs/coverage\.md") as caught:
        exec(statement)
    assert isinstance(caught.value, ImportError)


def test_a_missing_module_says_why():
    with pytest.raises(NotEmulated, match=r"azureml\.train\.automl: .*\n.*automated learning"):
        importlib.import_module("azureml.train.automl")
    with pytest.raises(NotEmulated, match=r"hyperdrive: not emulated yet; a later version"):
        importlib.import_module("azureml.train.hyperdrive")


def test_modules_of_others_are_looked_for_as_ever():
    importlib.import_module("azureml")
    importlib.reload(sys.modules["azureml"])
    assert sys.meta_path.count(coverage._OTHER_MODULES) == 1
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module_anywhere")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("azureml_of_somebody_else")


def test_a_name_nobody_knows_is_missing_too_and_a_private_one_is_none():
    core = importlib.import_module("azureml.core")
    with pytest.raises(NotEmulated, match=r"azureml\.core\.Nonsense"):
        core.Nonsense  # noqa: B018
    with pytest.raises(AttributeError):
        core._private  # noqa: B018
    assert not hasattr(core, "__wrapped__")


def test_modules_can_be_imported_in_every_way():
    code = (
        "from azureml.core import compute, runconfig\n"
        "import azureml.core.environment, azureml.train.dnn as dnn\n"
        "from azureml.core.compute_target import ComputeTargetException\n"
        "from azureml.train import sklearn\n"
        "print(compute.AmlCompute.__name__, dnn.PyTorch.__name__, azureml.core.VERSION)"
    )
    done = run(code)
    assert (done.stdout, done.stderr) == ("AmlCompute PyTorch 1.61.0\n", "")


def test_a_rank_needs_the_standard_library_only():
    """``-S -I``: no site-packages, so an import of anything else fails."""
    code = (
        f"import sys; sys.path[:0] = [{str(SHIM)!r}, {str(PACKAGE.parent)!r}]\n"
        "from azureml.core import Experiment, Model, Run, Workspace\n"
        "from azureml.core.run import Run as R, _OfflineRun\n"
        "from azureml.core.workspace import Workspace\n"
        "from azureml.exceptions import UserErrorException\n"
        "import azureml.telemetry\n"
        "print(type(Run.get_context()).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("_OfflineRun\n", "")


def test_beside_the_real_sdk_it_says_once_which_one_is_active(tmp_path):
    (tmp_path / "azureml" / "core").mkdir(parents=True)
    (tmp_path / "azureml" / "core" / "__init__.py").write_text("")
    code = "import azureml.core, azureml.core.run, azureml.train.dnn"
    said = run(code, str(tmp_path)).stderr
    assert said.count("\n") == 1
    assert "azureml is the stand-in" in said
    assert str(tmp_path / "azureml") in said
    assert run(code, str(tmp_path), SIMGRID_ML_TASK="rank-1").stderr == ""


def test_the_widget_prints_where_the_run_stands(capsys):
    from azureml.core import Experiment, Workspace
    from azureml.telemetry import set_diagnostics_collection
    from azureml.widgets import RunDetails

    set_diagnostics_collection(send_diagnostics=True)
    run = Experiment(Workspace.from_config(), "e").start_logging(snapshot_directory=None)
    run.log_list("loss", [3, 2, 1, 0])
    RunDetails(run).show()
    run.complete()
    out = capsys.readouterr().out
    assert f"Run          {run.id}\n" in out
    assert "Status       Running\n" in out
    assert "Metric loss  4 values, last 0\n" in out
    assert RunDetails(run).get_widget_data()["status"] == "Completed"


def test_any_authentication_is_taken():
    from azureml.core import Workspace
    from azureml.core.authentication import ServicePrincipalAuthentication

    auth = ServicePrincipalAuthentication("tenant", "id", service_principal_password="x")
    assert Workspace.get("mine", auth=auth, subscription_id="s").name == "mine"
