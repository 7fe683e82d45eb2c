"""Estimators: what they refuse, what they write into their run configuration, what they log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.azure.arguments import flatten, pair
from simgrid_ml.azure.dnn import Chainer, Gloo, Mpi, Nccl, ParameterServer, PyTorch, TensorFlow
from simgrid_ml.azure.environment import Environment
from simgrid_ml.azure.errors import (
    ComputeTargetException,
    RunConfigurationException,
    TrainingException,
    UserErrorException,
)
from simgrid_ml.azure.estimator import Estimator
from simgrid_ml.azure.runconfig import (
    DockerConfiguration,
    MpiConfiguration,
    ParallelTaskConfiguration,
    PyTorchConfiguration,
    RunConfiguration,
    TensorflowConfiguration,
)
from simgrid_ml.azure.script_run_config import ScriptRunConfig
from simgrid_ml.azure.sklearn import SKLearn


class AmlCompute:
    """As the estimators know it: by the name of its class."""

    def __init__(self, name: str = "cluster") -> None:
        self.name = name


class HDInsightCompute:
    name = "hadoop"


CLUSTER = AmlCompute()


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "requirements.txt").write_text("# ours\n\npillow==5.4.1\n--pre\n")
    (tmp_path / "conda.yml").write_text("dependencies: [python=3.7, {pip: [tqdm]}]\n")
    return str(tmp_path)


def messages(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == logger]


# -- refusals ---------------------------------------------------------------------------------
REFUSED: list[tuple[type, dict[str, Any], type[Exception], str]] = [
    (Estimator, {"node_count": 0}, TrainingException, "(?i)node count should be at least 1"),
    (
        Estimator,
        {"process_count_per_node": 0},
        TrainingException,
        "(?i)process count per node should be at least 1",
    ),
    (Estimator, {"node_count": 2}, TrainingException, "must be specified"),
    (PyTorch, {"process_count_per_node": 2}, TrainingException, "must be specified"),
    (
        PyTorch,
        {"distributed_backend": "horovod"},
        TrainingException,
        r"Unsupported distributed backend value: horovod.*\['mpi', 'gloo', 'nccl'\]",
    ),
    (Estimator, {"distributed_backend": "nccl"}, TrainingException, r"Unsupported.*\['mpi'\]"),
    (
        PyTorch,
        {"distributed_training": ParameterServer()},
        TrainingException,
        "Unsupported framework",
    ),
    (Estimator, {"compute_target": None}, TrainingException, "Either compute target or VM size"),
    (
        Estimator,
        {
            "compute_target": "cluster",
            "node_count": 2,
            "distributed_training": MpiConfiguration(),
        },
        TrainingException,
        "AmlCompute or KubernetesCompute",
    ),
    (
        Estimator,
        {"use_docker": False, "custom_docker_image": "i"},
        TrainingException,
        "not allowed",
    ),
    (
        Estimator,
        {"custom_docker_base_image": "a", "custom_docker_image": "b"},
        TrainingException,
        "'custom_docker_image' only",
    ),
    *(
        (
            Estimator,
            {"environment_definition": Environment("e"), key: value},
            TrainingException,
            f"cannot be specified.*{key}",
        )
        for key, value in {
            "pip_packages": ["a"],
            "conda_packages": ["a"],
            "pip_requirements_file": "requirements.txt",
            "conda_dependencies_file": "conda.yml",
            "custom_docker_image": "i",
            "image_registry_details": object(),
            "use_gpu": True,
            "user_managed": True,
            "shm_size": "1g",
            "environment_variables": {"A": "1"},
        }.items()
    ),
    (
        Estimator,
        {"conda_dependencies_file": "conda.yml", "pip_packages": ["a"]},
        TrainingException,
        "cannot be specified",
    ),
    (
        PyTorch,
        {"framework_version": "1.13"},
        TrainingException,
        "PyTorch 1.13 is not currently supported by the PyTorch estimator",
    ),
    (
        TensorFlow,
        {"framework_version": "1.15"},
        TrainingException,
        r"TensorFlow 1\.15 is not currently supported.*1\.13, 2\.0",
    ),
    (
        Chainer,
        {"framework_version": "7"},
        TrainingException,
        "Chainer 7 is not currently supported",
    ),
    (PyTorch, {"distributed_backend": "ps"}, TrainingException, r"\['mpi', 'gloo', 'nccl'\]"),
    (TensorFlow, {"distributed_backend": "gloo"}, TrainingException, r"\['mpi', 'ps'\]"),
    (TensorFlow, {"distributed_training": Nccl()}, TrainingException, "Unsupported framework"),
    (TensorFlow, {"node_count": 2, "worker_count": 2}, TrainingException, "must be specified"),
    (Chainer, {"distributed_backend": "ps"}, TrainingException, r"value: ps.*\['mpi'\]"),
    (  # the SDK contradicts itself here as well
        Chainer,
        {"distributed_backend": "mpi", "distributed_training": Gloo()},
        TrainingException,
        r"Unsupported distributed backend value: mpi.*\['mpi'\]",
    ),
    (Chainer, {"distributed_training": ParameterServer()}, TrainingException, "Supported framew"),
    (Chainer, {"worker_count": 2}, TypeError, "worker_count"),
    (
        PyTorch,
        {"compute_target": "local", "_enable_optimized_mode": True},
        TrainingException,
        "Optimized mode is not supported",
    ),
    (
        Estimator,
        {"conda_dependencies_file": "gone.yml"},
        UserErrorException,
        "gone.yml path doesn't exist.*inside the project folder",
    ),
    (Estimator, {"pip_requirements_file": "gone"}, UserErrorException, "path doesn't exist"),
    (
        Estimator,
        {"user_managed": True, "pip_packages": ["a"]},
        UserErrorException,
        "user_managed is True",
    ),
    (Estimator, {"resume_from": "outputs"}, UserErrorException, "DataPath"),
    (Estimator, {"inputs": ["outputs"]}, UserErrorException, "not supported for inputs"),
    (
        Estimator,
        {"compute_target": HDInsightCompute()},
        ComputeTargetException,
        "Unsupported compute target",
    ),
    (SKLearn, {"node_count": 1}, TypeError, "node_count"),
    (Estimator, {"framework_version": "1.4"}, TypeError, "framework_version"),
]


@pytest.mark.parametrize(
    ("kind", "kwargs", "error", "text"),
    REFUSED,
    ids=[f"{row[0].__name__}-{'-'.join(row[1])}" for row in REFUSED],
)
def test_an_estimator_refuses(
    source: str, kind: Any, kwargs: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        kind(source, **{"compute_target": CLUSTER, "entry_script": "train.py", **kwargs})


def test_only_the_source_directory_is_positional(source: str) -> None:
    with pytest.raises(TypeError):
        Estimator(source, CLUSTER)  # type: ignore[misc]


def test_the_first_broken_rule_decides_the_exception(source: str) -> None:
    with pytest.raises(TrainingException):  # and not UserErrorException for user_managed
        Estimator(source, node_count=0, user_managed=True, pip_packages=["a"])


def test_an_unknown_torch_backend_is_refused() -> None:
    with pytest.raises(RunConfigurationException, match="'Nccl' or 'Gloo'"):
        PyTorchConfiguration("mpi")


# -- what goes into the run configuration -----------------------------------------------------
@pytest.mark.parametrize(
    ("kwargs", "framework", "communicator", "processes"),
    [
        ({}, "Python", "None", 1),
        ({"distributed_backend": "mpi", "process_count_per_node": 3}, "Python", "IntelMpi", 3),
        ({"distributed_backend": "MPI"}, "Python", "IntelMpi", 1),
        ({"distributed_training": MpiConfiguration(2, 5)}, "Python", "IntelMpi", 2),
        (
            {"distributed_training": MpiConfiguration(2), "process_count_per_node": 7},
            "Python",
            "IntelMpi",
            2,
        ),
        ({"distributed_training": Mpi(4)}, "python", "Mpi", 4),
        ({"distributed_training": Gloo()}, "pytorch", "Gloo", 1),
        ({"distributed_training": Nccl()}, "pytorch", "Nccl", 1),
        ({"distributed_backend": "NCCL"}, "PyTorch", "nccl", 1),
        ({"distributed_training": ParallelTaskConfiguration()}, "Python", "ParallelTask", 1),
        ({"distributed_training": TensorflowConfiguration(2)}, "Python", "None", 1),
        ({"distributed_training": PyTorchConfiguration()}, "Python", "None", 1),
        ({"distributed_training": "mpi"}, "Python", "None", 1),
    ],
)
def test_a_distribution_sets_framework_communicator_and_processes(
    source: str, kwargs: dict[str, Any], framework: str, communicator: str, processes: int
) -> None:
    nodes = 2 if kwargs else 1
    config = PyTorch(source, compute_target=CLUSTER, node_count=nodes, **kwargs).run_config
    assert (config.framework, config.communicator) == (framework, communicator)
    assert config.mpi.process_count_per_node == processes
    assert config.node_count == nodes


@pytest.mark.parametrize(
    ("kwargs", "framework", "communicator", "tasks"),
    [
        ({}, "Python", "None", (1, 1)),
        ({"worker_count": 4, "parameter_server_count": 2}, "Python", "None", (1, 1)),
        ({"distributed_backend": "ps"}, "TensorFlow", "ParameterServer", (1, 1)),
        (
            {"distributed_backend": "PS", "worker_count": 2, "parameter_server_count": 0},
            "TensorFlow",
            "ParameterServer",
            (2, 0),
        ),
        ({"distributed_backend": "mpi", "worker_count": 2}, "Python", "IntelMpi", (1, 1)),
        (
            {"distributed_training": TensorflowConfiguration(3, 2), "worker_count": 9},
            "TensorFlow",
            "ParameterServer",
            (3, 2),
        ),
        ({"distributed_training": ParameterServer(3, 2)}, "tensorflow", "ParameterServer", (3, 2)),
        (  # the word wins over the older object, and loses against the newer one
            {"distributed_training": ParameterServer(3, 2), "distributed_backend": "ps"},
            "TensorFlow",
            "ParameterServer",
            (1, 1),
        ),
        (
            {"distributed_training": TensorflowConfiguration(3, 2), "distributed_backend": "ps"},
            "TensorFlow",
            "ParameterServer",
            (3, 2),
        ),
    ],
)
def test_tensorflow_is_told_its_workers_and_parameter_servers(
    source: str,
    kwargs: dict[str, Any],
    framework: str,
    communicator: str,
    tasks: tuple[int, int],
) -> None:
    config = TensorFlow(source, compute_target=CLUSTER, **kwargs).run_config
    assert (config.framework, config.communicator) == (framework, communicator)
    assert (config.tensorflow.worker_count, config.tensorflow.parameter_server_count) == tasks


@pytest.mark.parametrize(
    ("kind", "kwargs", "image", "pip"),
    [
        (
            TensorFlow,
            {"pip_packages": ["keras"]},
            "mcr.microsoft.com/azureml/intelmpi2018.3-ubuntu16.04:20200423.v1",
            ["keras", "azureml-dataset-runtime[fuse,pandas]", "tensorflow==1.13.1"],
        ),
        (
            TensorFlow,
            {"pip_packages": ["keras"], "use_gpu": True, "framework_version": "2.0"},
            "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.1-cudnn8-ubuntu20.04:20200704.v1",
            ["keras", "azureml-dataset-runtime[fuse,pandas]", "tensorflow-gpu==2.0.0"],
        ),
        (
            Chainer,
            {"pip_packages": ["mpi4py"], "use_gpu": True},
            "mcr.microsoft.com/azureml/base-gpu:intelmpi2018.3-cuda9.0-cudnn7-ubuntu16.04",
            ["mpi4py", "chainer==5.1.0", "cupy-cuda90==5.2.0"],
        ),
        (TensorFlow, {"framework_version": "2.3"}, "tensorflow:2.3-cpu", ["azureml-defaults"]),
        (Chainer, {"use_gpu": True}, "chainer:5.1.0-gpu", ["azureml-defaults"]),
    ],
)
def test_a_framework_brings_the_image_and_the_pins_of_its_version(
    source: str, kind: Any, kwargs: dict[str, Any], image: str, pip: list[str]
) -> None:
    estimator = kind(source, compute_target=CLUSTER, **kwargs)
    assert estimator.run_config.environment.docker.base_image == image
    assert [line for line in estimator.conda_dependencies.pip_packages if line in pip] == pip


def test_the_run_configuration_has_what_was_given(source: str) -> None:
    estimator = Estimator(
        source,
        vm_size="STANDARD_NC6",
        vm_priority="lowpriority",
        entry_script="train.py",
        environment_variables={"A": "1"},
        shm_size="1g",
        max_run_duration_seconds=60,
        custom_docker_image="continuumio/miniconda",
    )
    config = estimator.run_config
    assert (config.target, config.script) == ("amlcompute", "train.py")
    assert (config.amlcompute.vm_size, config.amlcompute.vm_priority) == (
        "STANDARD_NC6",
        "lowpriority",
    )
    assert config.environment_variables == {"A": "1"}
    assert (config.docker.use_docker, config.docker.shm_size) == (True, "1g")
    assert config.max_run_duration_seconds == 60
    assert config.environment.docker.base_image == "continuumio/miniconda"
    assert config.environment.name == "default-environment"


def test_packages_are_merged_and_the_callers_list_is_left_alone(source: str) -> None:
    pip = ["requests"]
    estimator = Estimator(
        source,
        compute_target="local",
        pip_packages=pip,
        pip_requirements_file="requirements.txt",
        conda_packages=["numpy"],
    )
    dependencies = estimator.conda_dependencies
    assert list(dependencies.pip_packages) == ["azureml-defaults", "pillow==5.4.1", "requests"]
    assert list(dependencies.pip_options) == ["--pre"]
    assert list(dependencies.conda_packages) == ["python=3.8.13", "numpy"]
    assert pip == ["requests"]


def test_packages_can_be_changed_after_construction(source: str) -> None:
    estimator = PyTorch(source, compute_target="local", pip_packages=["onnx"])
    estimator.conda_dependencies.remove_pip_package("onnx")
    estimator.conda_dependencies.add_pip_package("onnx==1.6")
    assert "onnx==1.6" in estimator.run_config.environment.python.conda_dependencies.pip_packages  # type: ignore[union-attr]


def test_an_environment_definition_stays_the_users_object(source: str) -> None:
    mine = Environment("mine")
    estimator = Estimator(source, compute_target="local", environment_definition=mine)
    assert estimator.run_config.environment is mine
    assert estimator.run_config.docker.use_docker is False  # the default of the environment


def test_torch_on_a_cluster_takes_the_ready_image(source: str) -> None:
    environment = PyTorch(source, compute_target=CLUSTER, use_gpu=True).run_config.environment
    assert environment.docker.base_image == "pytorch:1.4-gpu"
    assert environment.python.user_managed_dependencies is True
    assert environment.environment_variables["NCCL_TREE_THRESHOLD"] == "0"


def test_torch_with_packages_is_built_and_the_users_pin_wins(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    estimator = PyTorch(source, compute_target=CLUSTER, pip_packages=["torch==1.5.0"])
    assert list(estimator.conda_dependencies.pip_packages) == [
        "torch==1.5.0",
        "azureml-defaults",
        "torchvision==0.5.0",
        "horovod==0.18.1",
        "tensorboard==1.14.0",
        "future==0.17.1",
    ]
    assert any("override" in text and "torch" in text for text in caplog.messages)


def test_a_misspelt_attribute_is_refused(source: str) -> None:
    config = Estimator(source, compute_target="local").run_config
    with pytest.raises(AttributeError, match="node_cout"):
        config.node_cout = 2  # type: ignore[attr-defined]


def test_lists_and_dicts_are_not_shared_between_configurations() -> None:
    first, second = RunConfiguration(), RunConfiguration()
    first.docker.arguments.append("-v")
    first.arguments.append("--x")
    first.data_references["a"] = 1
    assert not (second.docker.arguments or second.arguments or second.data_references)
    assert DockerConfiguration().arguments == []


# -- script_params ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("params", "flat"),
    [
        (None, []),
        ({"--regularization": 0.8}, ["--regularization", 0.8]),
        ({"--verbose": ""}, ["--verbose"]),
        ({"--verbose": None}, ["--verbose"]),
        ({"--z": 0, "--b": False, "--f": 0.0}, ["--z", 0, "--b", False, "--f", 0.0]),
        ({"--text": "two words"}, ["--text", "two words"]),
        ({"--list": [1, "2"], "--tuple": (3,)}, ["--list", 1, "2", "--tuple", 3]),
        ({"--dict": {"a": 1, "b": 2}}, ["--dict", "a", "b"]),
        ({"--nested": [(1, 2), "a"]}, ["--nested", "(1, 2)", "a"]),
        ({"": "positional", None: "another"}, ["positional", "another"]),
    ],
)
def test_script_params_are_flattened(params: dict[Any, Any], flat: list[Any]) -> None:
    result = flatten(params)
    assert result == flat
    assert [type(item) for item in result] == [type(item) for item in flat]


@given(st.dictionaries(st.text("abc-", min_size=1), st.integers() | st.text(min_size=1)))
def test_flags_with_one_value_each_can_be_read_back(params: dict[str, Any]) -> None:
    assert pair(flatten(params)) == params


# -- logs -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "logger"),
    [
        (Estimator, "azureml.train.estimator._estimator"),
        (PyTorch, "azureml.train.dnn._pytorch"),
        (TensorFlow, "azureml.train.dnn._tensorflow"),
        (Chainer, "azureml.train.dnn._chainer"),
        (SKLearn, "azureml.train.sklearn"),
    ],
)
def test_every_estimator_logs_that_it_is_deprecated(
    source: str, caplog: pytest.LogCaptureFixture, kind: Any, logger: str
) -> None:
    kind(source, compute_target="local", entry_script="train.py")
    (text,) = messages(caplog, logger)
    assert f"'{kind.__name__}' estimator is deprecated" in text and "ScriptRunConfig" in text


@pytest.mark.parametrize(
    ("kwargs", "texts"),
    [
        ({"distributed_backend": "mpi"}, ["'distributed_backend' will be deprecated"]),
        (
            {"process_count_per_node": 2, "distributed_training": MpiConfiguration(2)},
            ["'process_count_per_node' will be deprecated", "only together with"],
        ),
        (
            {"process_count_per_node": 2, "distributed_backend": "mpi"},
            ["'process_count_per_node' will be", "'distributed_backend' will be"],
        ),
        ({"use_docker": False}, ["'use_docker' will be deprecated"]),
        ({"conda_dependencies_file_path": "conda.yml"}, ["'conda_dependencies_file_path' is"]),
        ({"pip_requirements_file_path": "requirements.txt"}, ["'pip_requirements_file_path' is"]),
    ],
)
def test_deprecated_parameters_are_logged_to_the_root_logger(
    source: str, caplog: pytest.LogCaptureFixture, kwargs: dict[str, Any], texts: list[str]
) -> None:
    Estimator(source, compute_target=CLUSTER, entry_script="train.py", **kwargs)
    found = messages(caplog, "root")
    assert len(found) == len(texts)
    assert all(text in line for text, line in zip(texts, found, strict=True))


@pytest.mark.parametrize(
    ("kwargs", "texts"),
    [
        ({"worker_count": 2}, ["'worker_count' will be", "only together with"]),
        (
            {"worker_count": 2, "parameter_server_count": 2, "distributed_backend": "ps"},
            ["'worker_count' will", "'parameter_server_count' will", "'distributed_backend' will"],
        ),
        ({"parameter_server_count": 1}, []),
    ],
)
def test_the_older_counts_of_tensorflow_are_called_deprecated(
    source: str, caplog: pytest.LogCaptureFixture, kwargs: dict[str, Any], texts: list[str]
) -> None:
    TensorFlow(source, compute_target=CLUSTER, entry_script="train.py", **kwargs)
    found = messages(caplog, "root")
    assert len(found) == len(texts)
    assert all(text in line for text, line in zip(texts, found, strict=True))


def test_the_default_framework_version_is_logged(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    logger = "azureml.train.estimator._framework_base_estimator"
    PyTorch(source, compute_target="local")
    assert any("defaulting to version 1.4" in text for text in messages(caplog, logger))
    TensorFlow(source, compute_target="local")
    Chainer(source, compute_target="local")
    assert [text[-5:] for text in messages(caplog, logger)] == ["n 1.4", " 1.13", "5.1.0"]
    caplog.clear()
    PyTorch(source, compute_target="local", framework_version="1.6")
    SKLearn(source, compute_target="local")  # has but one version
    assert not messages(caplog, logger)


def test_older_distribution_objects_name_their_replacement(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Mpi(2), ParameterServer(), Gloo(), Nccl()
    found = messages(caplog, "azureml.train._distributed_training")
    assert [text.split("'")[3].split(".")[-1] for text in found] == [
        "MpiConfiguration",
        "TensorflowConfiguration",
        "PyTorchConfiguration",
        "PyTorchConfiguration",
    ]


def test_a_cluster_made_for_the_run_prints_a_notice(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Estimator(source, vm_size="STANDARD_NC6", entry_script="train.py")
    assert "DEPRECATED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        (
            {"node_count": 2, "distributed_training": PyTorchConfiguration()},
            "PyTorchConfiguration does not distribute this job",
        ),
        ({"node_count": 3, "distributed_training": "mpi"}, "each of its 3 node"),
        (
            {"process_count_per_node": 4, "distributed_training": MpiConfiguration()},
            "process_count_per_node=4 is ignored",
        ),
        ({"distributed_training": MpiConfiguration(1, 8)}, "node_count=8 is ignored"),
        ({"entry_script": "gone.py"}, "'gone.py' is not in"),
        ({"source_directory": "/nowhere/at/all"}, "'/nowhere/at/all' does not exist"),
    ],
)
def test_what_azure_takes_without_a_word_is_logged_by_us(
    source: str, caplog: pytest.LogCaptureFixture, kwargs: dict[str, Any], text: str
) -> None:
    given_ = {"source_directory": source, "compute_target": CLUSTER, "entry_script": "train.py"}
    Estimator(**{**given_, **kwargs})
    (found,) = messages(caplog, "simgrid_ml.azure")
    assert text in found


def test_an_ordinary_estimator_logs_no_odd_input(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    mpi = MpiConfiguration(2)
    PyTorch(
        source,
        compute_target=CLUSTER,
        entry_script="train.py",
        node_count=2,
        distributed_training=mpi,
    )
    assert not messages(caplog, "simgrid_ml.azure")


# -- ScriptRunConfig --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("job", "nodes", "framework", "communicator"),
    [
        (MpiConfiguration(2, 3), 3, "Python", "IntelMpi"),
        (TensorflowConfiguration(4, 1), 4, "TensorFlow", "ParameterServer"),
        (PyTorchConfiguration("Gloo", 4, 2), 2, "PyTorch", "gloo"),
    ],
)
def test_the_distribution_of_a_script_run_says_how_many_nodes(
    source: str, job: Any, nodes: int, framework: str, communicator: str
) -> None:
    config = ScriptRunConfig(source, script="train.py", distributed_job_config=job).run_config
    assert (config.node_count, config.framework, config.communicator) == (
        nodes,
        framework,
        communicator,
    )
    assert config.max_run_duration_seconds == 30 * 24 * 3600


@pytest.mark.parametrize("name", ["distributed_job_config", "docker_runtime_config"])
def test_a_script_run_refuses_objects_of_another_class(source: str, name: str) -> None:
    with pytest.raises(RunConfigurationException, match=name):
        ScriptRunConfig(source, script="train.py", **{name: "mpi"})


def test_a_run_configuration_fills_what_the_script_run_leaves_open(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    given_ = RunConfiguration("other.py", ["--x"])
    config = ScriptRunConfig(source, script="train.py", run_config=given_, compute_target="local")
    assert (config.script, config.arguments) == ("train.py", ["--x"])
    assert config.run_config is given_
    assert len(messages(caplog, "root")) == 2
    assert caplog.records[0].levelno == logging.WARNING
