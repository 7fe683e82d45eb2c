"""Our estimators against the real SDK's, over a generated grid of calls.

Different on purpose, and left out of the grid: the SDK puts ``azureml-defaults`` into the caller's
own list of ``pip_packages``, keeps blank lines and comments of a requirements file as requirements,
crashes on ``conda_packages=['python']``, adds the public package index as options in
``CondaDependencies.create``, and writes the password of a registry into the definition of a run.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sides import OURS, REAL, New, attempt, built, difference, project, quiet, shown, warned

from simgrid_ml.azure.submission import plan
from simgrid_ml.spec.value import to_plain

pytestmark = pytest.mark.filterwarnings("ignore")
CLUSTER = New("target", ("AmlCompute", "cpu-cluster"))


# -- signatures -------------------------------------------------------------------------------
CLASSES = sorted(vars(OURS.names))


def parameters(thing: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(thing).parameters.values()
    return [(one.name, one.kind, one.default) for one in found]


@pytest.mark.parametrize("name", CLASSES)
def test_every_constructor_has_the_sdks_signature(name: str) -> None:
    ours, theirs = getattr(OURS.names, name), getattr(REAL.names, name)
    assert parameters(ours) == parameters(theirs)


@pytest.mark.parametrize("name", ["Environment", "CondaDependencies", "RunConfiguration"])
def test_every_public_method_has_the_sdks_signature(name: str) -> None:
    ours, theirs = getattr(OURS.names, name), getattr(REAL.names, name)
    for word in vars(theirs):
        if word.startswith("_") or not callable(getattr(theirs, word)):
            continue
        assert parameters(getattr(ours, word)) == parameters(getattr(theirs, word)), word


@pytest.mark.parametrize("name", ["PyTorch", "TensorFlow", "Chainer", "SKLearn"])
def test_framework_estimators_say_the_same_of_themselves(name: str) -> None:
    ours, theirs = getattr(OURS.names, name), getattr(REAL.names, name)
    for word in ("FRAMEWORK_NAME", "DEFAULT_VERSION"):
        assert getattr(ours, word) == getattr(theirs, word)
    assert ours.get_supported_versions() == theirs.get_supported_versions()


def test_exceptions_have_the_sdks_names_bases_and_signatures() -> None:
    import azureml._common.exceptions as base
    import azureml.exceptions as real

    import simgrid_ml.azure.errors as ours

    for name in ours.__all__:
        kind = getattr(ours, name)
        if not isinstance(kind, type) or not issubclass(kind, ours.AzureMLException):
            continue
        theirs = getattr(real, name, None) or getattr(base, name, None)
        if theirs is None:
            from azureml.exceptions import _azureml_exception

            theirs = getattr(_azureml_exception, name)
        assert parameters(kind) == parameters(theirs), name
        public = [one.__name__ for one in theirs.__mro__ if not one.__name__.startswith("_")]
        assert [one.__name__ for one in kind.__mro__ if one.__name__ in public] == public, name


@pytest.mark.parametrize("name", ["TrainingException", "UserErrorException"])
def test_exceptions_print_as_the_sdks_do(name: str) -> None:
    import azureml.exceptions as real

    import simgrid_ml.azure.errors as ours

    assert str(getattr(ours, name)("why")) == str(getattr(real, name)("why"))


# -- the grid ---------------------------------------------------------------------------------
def often(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Mostly the usual value: a call with one odd input says more than one with twenty."""
    return st.sampled_from([usual, usual, usual, *others])


WORDS = st.text("abc -$='\"é", max_size=4)
SCALARS = st.one_of(
    WORDS, st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 0.8, 1e-9])
)
SCRIPT_PARAMS = st.one_of(
    st.none(),
    st.dictionaries(
        st.one_of(st.sampled_from(["--a", "--b", "-c", ""]), WORDS),
        st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(WORDS, SCALARS)),
        max_size=4,
    ),
)
OBJECTS = [
    New("MpiConfiguration"),
    New("MpiConfiguration", (4,)),
    New("MpiConfiguration", (2, 3)),
    New("Mpi"),
    New("Mpi", (3,)),
    New("TensorflowConfiguration"),
    New("TensorflowConfiguration", (2, 1)),
    New("TensorflowConfiguration", (3, 0)),
    New("TensorflowConfiguration", (0, 1)),
    New("TensorflowConfiguration", ("2", 1.5)),
    New("ParameterServer"),
    New("ParameterServer", (2, 2)),
    New("ParameterServer", (2, -1)),
    New("PyTorchConfiguration"),
    New("PyTorchConfiguration", ("Gloo", 4, 2)),
    New("ParallelTaskConfiguration"),
    New("Gloo"),
    New("Nccl"),
    "mpi",
]
TARGETS = [
    New("target", ("KubernetesCompute", "kube")),
    New("target", ("HDInsightCompute", "hdi")),
    "cpu-cluster",
    "local",
    None,
    "amlcompute",
]
DEFINITIONS = [
    New("Environment", ("mine",)),
    New(
        "Environment",
        ("mine",),
        then=(
            (
                "python.conda_dependencies",
                New(
                    "CondaDependencies.create",
                    kwargs={
                        "pip_packages": ["horovod==0.19.5", "torch==1.6.0"],
                        "conda_packages": ["numpy=1.18"],
                        "python_version": "3.7",
                    },
                ),
            ),
            ("docker.base_image", "mine:1"),
            ("docker.enabled", True),
        ),
    ),
    New(
        "Environment",
        ("managed",),
        then=(
            ("python.user_managed_dependencies", True),
            ("environment_variables", {"A": "1"}),
        ),
    ),
]
PACKAGES = [
    ["pillow==5.4.1"],
    ["torch==1.5.0"],
    ["horovod==0.19.5", "azureml-sdk", "tqdm"],
    ["keras"],
    ["keras<=2.3.1", "tensorflow==2.2.0"],
    ["tensorflow-gpu==1.13.1", "cmake"],
    ["chainer", "mpi4py>=3", "azureml-dataset-runtime"],
    ["azureml-defaults"],
    [],
]
CONDA = [
    ["scikit-learn"],
    ["numpy=1.18", "python=3.7.3"],
    ["torch=1.5"],
    ["tensorflow=1.15", "keras"],
    ["chainer", "cupy-cuda90"],
    [],
]
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "compute_target": often(CLUSTER, CLUSTER, *TARGETS),
    "vm_size": often(None, None, "STANDARD_NC6"),
    "vm_priority": often(None, "lowpriority"),
    "entry_script": often("train.py", "train.py", None, "note.ipynb", "missing.py"),
    "script_params": SCRIPT_PARAMS,
    "use_docker": often(True, True, False),
    "custom_docker_image": often(None, None, "continuumio/miniconda"),
    "image_registry_details": often(None, None, New("ContainerRegistry")),
    "user_managed": often(False, False, True),
    "conda_packages": often(None, *CONDA),
    "pip_packages": often(None, *PACKAGES),
    "conda_dependencies_file_path": often(None, None, None, "conda.yml", "missing.yml"),
    "pip_requirements_file_path": often(None, None, None, "requirements.txt", "missing.txt"),
    "conda_dependencies_file": often(None, None, None, "conda.yml", "missing.yml"),
    "pip_requirements_file": often(None, None, None, "requirements.txt"),
    "environment_variables": often(None, {}, {"A": "1"}, {"N": 2}),
    "environment_definition": often(None, None, *DEFINITIONS),
    "inputs": often(None, None, [], ["no data"]),
    "shm_size": often(None, "512m"),
    "resume_from": often(None, None, None, "path"),
    "max_run_duration_seconds": often(None, 60),
}
SEVERAL: dict[str, st.SearchStrategy[Any]] = {
    "node_count": often(1, 2, 3, 0, -1),
    "process_count_per_node": often(1, 1, 2, 0),
    "distributed_backend": often(
        None, None, "mpi", "MPI", "gloo", "nccl", "ps", "Ps", "PS", "horovod", ""
    ),
    "distributed_training": often(None, *OBJECTS, *OBJECTS[:5]),
    "use_gpu": often(False, True),
    "custom_docker_base_image": often(None, None, None, "old/image"),
}
FRAMEWORK = {"_enable_optimized_mode": often(False, False, False, True)}
GRID: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "Estimator": {**COMMON, **SEVERAL},
    "PyTorch": {
        **COMMON,
        **SEVERAL,
        **FRAMEWORK,
        "framework_version": often(None, "1.0", "1.3", "1.4", "1.6", "1.13", 1.4),
    },
    "TensorFlow": {
        **COMMON,
        **SEVERAL,
        **FRAMEWORK,
        "framework_version": often(None, *REAL.names.TensorFlow.get_supported_versions(), "1.4"),
        "worker_count": often(1, 2, 0, -1, "2"),
        "parameter_server_count": often(1, 2, 0, -1, 1.5),
    },
    "Chainer": {
        **COMMON,
        **SEVERAL,
        **FRAMEWORK,
        "framework_version": often(None, "5.1.0", "7.0.0", "7"),
    },
    "SKLearn": {
        **COMMON,
        **FRAMEWORK,
        "framework_version": often(None, "0.20.3", "0.24"),
        "node_count": often("absent", "absent", "absent", 1),
    },
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A class and some of its parameters, most of them left at their defaults."""
    name = draw(st.sampled_from(sorted(GRID)))
    choices = GRID[name]
    chosen = draw(st.sets(st.sampled_from(sorted(choices)), max_size=5))
    chosen |= {"compute_target", "entry_script"}
    if name != "SKLearn" and draw(st.booleans()):
        chosen |= {"node_count", "distributed_training"}
    if name == "TensorFlow" and draw(st.booleans()):
        chosen |= {"distributed_backend", "worker_count", "parameter_server_count"}
    values = {key: draw(choices[key]) for key in sorted(chosen)}
    return name, {key: value for key, value in values.items() if value != "absent"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("oracle") / "a project")


THOROUGH = settings(
    max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@THOROUGH
@given(call=calls())
def test_estimators_accept_refuse_and_configure_as_the_sdk(
    folder: Path, call: tuple[str, dict[str, Any]]
) -> None:
    name, kwargs = call
    results = {}
    for side in (OURS, REAL):
        kind = getattr(side.names, name)
        results[side.target] = attempt(lambda s=side, k=kind: k(str(folder), **built(kwargs, s)))
    (verdict, ours), (their_verdict, theirs) = results.values()
    assert (verdict, ours if verdict == "raised" else None) == (
        their_verdict,
        theirs if their_verdict == "raised" else None,
    )
    if verdict == "made":
        assert not difference(shown(OURS, ours.run_config), cleaned(theirs.run_config))
        assert ours.source_directory == theirs.source_directory
        assert outcome(ours) == outcome(theirs)


@settings(THOROUGH, max_examples=300)
@given(call=calls())
def test_warnings_go_to_the_loggers_of_the_sdk(
    folder: Path, call: tuple[str, dict[str, Any]]
) -> None:
    name, kwargs = call
    loggers = []
    for side in (OURS, REAL):
        with quiet():
            values = built(kwargs, side)
        kind = getattr(side.names, name)
        loggers.append(warned(lambda k=kind, v=values: k(str(folder), **v)))
    assert loggers[0] == loggers[1]


def cleaned(run_config: Any) -> Any:
    """The SDK's run configuration without what ours leaves out on purpose."""
    plain = shown(REAL, run_config)
    environment = plain["environment"]
    environment["docker"]["baseImageRegistry"]["password"] = None
    for package in environment["python"]["condaDependencies"]["dependencies"]:
        if isinstance(package, dict):
            package["pip"] = [line for line in package["pip"] if "pypi.python.org" not in line]
    return plain


def outcome(config: Any) -> Any:
    """The job it becomes, as data, or the name of the error."""
    verdict, result = attempt(lambda: plan(config))
    if verdict == "raised":
        return result
    return json.loads(json.dumps(to_plain(result.job))), result.target, result.vm_size


# -- ScriptRunConfig --------------------------------------------------------------------------
RUN_CONFIGS = [
    New("RunConfiguration"),
    New(
        "RunConfiguration",
        ("train.py", ["--x", 1]),
        then=(
            ("communicator", "OpenMpi"),
            ("node_count", 3),
            ("mpi.process_count_per_node", 2),
            ("target", CLUSTER),
        ),
    ),
    New("RunConfiguration", kwargs={"command": ["python", "train.py"]}),
    New("RunConfiguration", kwargs={"framework": "TensorFlow", "communicator": "ParameterServer"}),
]
DOCKERS = [New("DockerConfiguration"), New("DockerConfiguration", (True, True, ["-v"], "1g")), "no"]
SCRIPT_GRID: dict[str, st.SearchStrategy[Any]] = {
    "script": often("train.py", None, "missing.py", "../outside.py"),
    "arguments": often(None, [], ["--x", 1, "", "two words"], ["--y", None]),
    "run_config": often(None, None, *RUN_CONFIGS),
    "compute_target": often(None, CLUSTER, "local", "cpu-cluster"),
    "environment": often(None, *DEFINITIONS),
    "distributed_job_config": often(None, *OBJECTS, *OBJECTS[:3]),
    "resume_from": often(None, None, "path"),
    "max_run_duration_seconds": often(2592000, 60),
    "command": often(None, None, ["python", "train.py", "--x", 1], "python train.py && ls"),
    "docker_runtime_config": often(None, *DOCKERS),
}


@settings(THOROUGH, max_examples=400)
@given(
    kwargs=st.sets(st.sampled_from(sorted(SCRIPT_GRID)), max_size=6).flatmap(
        lambda names: st.fixed_dictionaries({name: SCRIPT_GRID[name] for name in sorted(names)})
    )
)
def test_script_run_configs_are_as_the_sdks(folder: Path, kwargs: dict[str, Any]) -> None:
    results = [
        attempt(lambda s=side: s.names.ScriptRunConfig(str(folder), **built(kwargs, s)))
        for side in (OURS, REAL)
    ]
    (verdict, ours), (their_verdict, theirs) = results
    assert verdict == their_verdict
    if verdict == "raised":
        assert ours == theirs
        return
    assert not difference(shown(OURS, ours.run_config), cleaned(theirs.run_config))
    for word in ("script", "arguments", "command", "source_directory"):
        assert getattr(ours, word) == getattr(theirs, word)
    assert outcome(ours) == outcome(theirs)


# -- CondaDependencies ------------------------------------------------------------------------
REQUIREMENTS = st.sampled_from(
    [
        "a",
        "a==1",
        "a>0",
        "b[x]~=2.0",
        "b",
        "c!=3",
        "dir/d-1.0-py3-none-any.whl",
        "e;python_version<'3'",
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("add_pip_package"), st.one_of(REQUIREMENTS, st.just("--pre"))),
    st.tuples(st.just("remove_pip_package"), st.one_of(REQUIREMENTS, st.just("azureml-defaults"))),
    st.tuples(
        st.sampled_from(["add_conda_package", "remove_conda_package"]),
        st.sampled_from(["numpy", "numpy=1", "python=3.7", "python=3.8.13", "pip=20"]),
    ),
    st.tuples(
        st.sampled_from(["add_channel", "remove_channel"]), st.sampled_from(["anaconda", "pytorch"])
    ),
    st.tuples(
        st.sampled_from(["set_pip_option", "remove_pip_option"]),
        st.sampled_from(["--pre", "--index-url x", "--index-url y", "torch"]),
    ),
    st.tuples(st.just("set_python_version"), st.sampled_from(["3.7", "3.9.1"])),
    st.tuples(st.just("add_tensorflow_pip_package"), st.sampled_from(["cpu", "gpu", "tpu"])),
)


@settings(THOROUGH, max_examples=300)
@given(steps=st.lists(STEPS, max_size=8))
def test_conda_dependencies_change_as_the_sdks_do(steps: list[tuple[str, str]]) -> None:
    ours, theirs = (side.names.CondaDependencies() for side in (OURS, REAL))
    for method, argument in steps:
        outcomes = []
        for dependencies in (ours, theirs):
            step = getattr(dependencies, method)
            outcomes.append(attempt(lambda s=step, a=argument: s(a)))
        assert outcomes[0] == outcomes[1], (method, argument)
        assert ours.as_dict() == theirs.as_dict(), (method, argument)
    assert ours.get_python_version() == theirs.get_python_version()
    assert list(ours.pip_options) == list(theirs.pip_options)


@settings(THOROUGH, max_examples=100)
@given(lines=st.lists(REQUIREMENTS, max_size=5))
def test_requirements_are_merged_as_by_the_sdk(lines: list[str]) -> None:
    merged = [side.names.CondaDependencies.merge_requirements(lines) for side in (OURS, REAL)]
    assert merged[0] == merged[1]


# -- data -------------------------------------------------------------------------------------
def test_a_real_datastore_and_its_references_become_the_same_arguments(folder: Path) -> None:
    from azureml.data.azure_storage_datastore import AzureBlobDatastore
    from azureml.data.data_reference import DataReference
    from azureml.data.datapath import DataPath

    store = object.__new__(AzureBlobDatastore)
    store.name, store.datastore_type = "images", "AzureBlob"
    store._data_reference = DataReference(store, data_reference_name="images")
    part = DataReference(store, data_reference_name="part", path_on_datastore="birds/train")
    kwargs = {
        "compute_target": "local",
        "entry_script": "train.py",
        "script_params": {"--data_dir": store, "--part": part},
        "resume_from": DataPath(store, "checkpoints", name="old"),
    }
    with quiet():
        ours, theirs = (side.names.Estimator(str(folder), **kwargs) for side in (OURS, REAL))
        assert not difference(shown(OURS, ours.run_config), shown(REAL, theirs.run_config))
        jobs = [plan(config, datastores={"images": "/data"}).job for config in (ours, theirs)]
    assert jobs[0] == jobs[1]
    assert jobs[0].variables["AZUREML_DATAREFERENCE_part"] == "/data/birds/train"
    assert jobs[0].variables["AZUREML_DATAREFERENCE_MODEL_LOCATION"] == "/data/checkpoints"
