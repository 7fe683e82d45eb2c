"""From an estimator or a script run to the job the engine runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.azure.conda_dependencies import CondaDependencies
from simgrid_ml.azure.distributed import Gloo, Nccl, ParameterServer
from simgrid_ml.azure.dnn import Chainer, PyTorch, TensorFlow
from simgrid_ml.azure.environment import ContainerRegistry, Environment, RegistryIdentity
from simgrid_ml.azure.errors import (
    ExperimentExecutionException,
    RunConfigurationException,
    TrainingException,
    UserErrorException,
)
from simgrid_ml.azure.estimator import Estimator
from simgrid_ml.azure.runconfig import (
    MpiConfiguration,
    PyTorchConfiguration,
    RunConfiguration,
    TensorflowConfiguration,
)
from simgrid_ml.azure.script_run_config import ScriptRunConfig
from simgrid_ml.azure.sklearn import SKLearn
from simgrid_ml.azure.submission import plan
from simgrid_ml.errors import NotEmulated
from simgrid_ml.spec.job import Mpi, Plain
from simgrid_ml.spec.job import ParameterServer as Tasks
from simgrid_ml.spec.job import TorchDistributed as Ranks


class AmlCompute:
    name = "cluster"


class Datastore:
    name = "images"


CLUSTER = AmlCompute()


@pytest.fixture
def source(tmp_path: Path) -> str:
    folder = tmp_path / 'a project\'s "folder"'
    folder.mkdir()
    (folder / "train.py").write_text("")
    (folder / "sub").mkdir()
    (folder / "sub" / "step.py").write_text("")
    (tmp_path / "outside.py").write_text("")
    return str(folder)


def estimator(source: str, **kwargs: Any) -> Estimator:
    return Estimator(source, **{"compute_target": CLUSTER, "entry_script": "train.py", **kwargs})


# -- the image --------------------------------------------------------------------------------
def test_images_the_sdk_fills_in_are_nobodys_wish(source: str) -> None:
    for config in (
        estimator(source),
        PyTorch(source, compute_target=CLUSTER, entry_script="train.py"),
    ):
        assert plan(config).job.environment.wanted_image is None


def test_a_named_image_is_fetched_from_its_registry_as_its_user(source: str) -> None:
    registry = ContainerRegistry()
    registry.address, registry.username, registry.password = "mine.azurecr.io", "me", "secret"
    config = estimator(source, custom_docker_image="lab/torch:1", image_registry_details=registry)
    environment = plan(config).job.environment
    image = environment.wanted_image
    assert image is not None and image.registry is not None
    assert image.name == "mine.azurecr.io/lab/torch:1"
    assert (image.registry.username, image.registry.password) == ("me", "secret")
    assert not image.user_managed
    assert "secret" not in repr(environment)
    assert "secret" not in str(plan(config).definition)


def test_a_user_managed_image_runs_the_script_with_its_own_python(source: str) -> None:
    config = estimator(source, custom_docker_image="lab/torch:1", user_managed=True)
    image = plan(config).job.environment.wanted_image
    assert image is not None
    assert (image.user_managed, image.python) == (True, None)
    config.run_config.environment.python.interpreter_path = "/opt/conda/bin/python"
    image = plan(config).job.environment.wanted_image
    assert image is not None and image.python == "/opt/conda/bin/python"


def test_the_identity_of_a_cloud_machine_opens_no_registry_here(source: str) -> None:
    registry = ContainerRegistry()
    registry.address, registry.registry_identity = "mine.azurecr.io", RegistryIdentity()
    config = estimator(source, custom_docker_image="i", image_registry_details=registry)
    plan(config)
    registry.registry_identity.client_id = "1234"
    with pytest.raises(NotEmulated, match="managed identities"):
        plan(config)


# -- the program ------------------------------------------------------------------------------
def test_the_whole_request_arrives_in_the_job(source: str) -> None:
    submission = plan(
        PyTorch(
            source,
            script_params={"--num_epochs": 30, "--output_dir": "./outputs", "--verbose": ""},
            compute_target=CLUSTER,
            entry_script="train.py",
            node_count=2,
            distributed_training=MpiConfiguration(2),
            pip_packages=["pillow==5.4.1"],
            use_gpu=True,
            environment_variables={"A": 1},  # type: ignore[dict-item]
            shm_size="512m",
            max_run_duration_seconds=60,
        )
    )
    job = submission.job
    assert (job.source, job.entry_script) == (source, "train.py")
    assert job.arguments == ("--num_epochs", "30", "--output_dir", "./outputs", "--verbose")
    assert job.distribution == Mpi(nodes=2, processes_per_node=2)
    assert job.variables["A"] == "1" and job.variables["NCCL_TREE_THRESHOLD"] == "0"
    assert (job.max_run_s, job.shm_size_bytes) == (60.0, 512 * 2**20)
    environment = job.environment
    assert (environment.framework, environment.framework_version) == ("pytorch", "1.4")
    assert (environment.pip, environment.conda) == (("pillow==5.4.1",), ())
    assert environment.use_gpu and environment.image is None and environment.python is None
    assert (submission.target, submission.compute) == ("cluster", CLUSTER)
    assert not submission.warnings


def test_planning_changes_nothing(source: str) -> None:
    config = estimator(source, script_params={"--a": 1})
    before = repr(config.run_config)
    first = plan(config, script_params={"--a": 2})
    assert repr(config.run_config) == before
    assert first.job.arguments == ("--a", "2")
    assert plan(config).job.arguments == ("--a", "1")


@pytest.mark.parametrize("script", ["gone.py", "../outside.py", "sub", None, ""])
def test_a_script_that_is_not_in_the_folder_is_refused(source: str, script: Any) -> None:
    with pytest.raises(ExperimentExecutionException, match=r"script"):
        plan(estimator(source, entry_script=script))


def test_an_absolute_path_outside_is_refused_and_one_inside_is_made_relative(source: str) -> None:
    with pytest.raises(ExperimentExecutionException):
        plan(estimator(source, entry_script=sys.executable))
    job = plan(estimator(source, entry_script=f"{source}/sub/../sub/step.py")).job
    assert job.entry_script == "sub/step.py"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExperimentExecutionException, match="project folder"):
        plan(estimator(str(tmp_path / "gone")))


def test_a_notebook_is_refused_with_the_way_out(source: str) -> None:
    with pytest.raises(TrainingException, match="nbconvert"):
        plan(estimator(source, entry_script="note.ipynb"))


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (["python", "train.py", "--x", 1], ("python", "train.py", "--x", "1")),
        ("python train.py && ls", ("bash", "-c", "python train.py && ls")),
        (["echo", "a", "&&", "ls"], ("bash", "-c", "echo a && ls")),
    ],
)
def test_a_command_replaces_the_script(source: str, command: Any, argv: tuple[str, ...]) -> None:
    job = plan(ScriptRunConfig(source, command=command)).job
    assert (job.entry_script, job.command) == (None, argv)


def test_a_command_and_a_script_exclude_each_other(source: str) -> None:
    with pytest.raises(ExperimentExecutionException, match="both"):
        plan(ScriptRunConfig(source, script="train.py", command=["ls"]))


def test_arguments_of_a_script_run_are_kept_as_they_are(source: str) -> None:
    config = ScriptRunConfig(source, "train.py", ["--x", 1, "", "two words", True])
    assert plan(config).job.arguments == ("--x", "1", "", "two words", "True")


# -- how it is distributed --------------------------------------------------------------------
@pytest.mark.parametrize("name", ["IntelMpi", "OpenMpi", "mpi", "MPI", "openmpi"])
def test_any_mpi_by_any_spelling_is_mpi(source: str, name: str) -> None:
    config = RunConfiguration("train.py", communicator=name)
    config.node_count = 3
    config.mpi.process_count_per_node = 2
    job = plan(ScriptRunConfig(source, run_config=config)).job
    assert job.distribution == Mpi(nodes=3, processes_per_node=2)


def test_the_objects_process_count_wins_over_the_estimators(source: str) -> None:
    config = estimator(
        source,
        node_count=2,
        process_count_per_node=4,
        distributed_training=MpiConfiguration(1, 9),
    )
    submission = plan(config)
    assert submission.job.distribution == Mpi(nodes=2, processes_per_node=1)
    assert [line.partition(": ")[2] for line in submission.warnings] == [
        "the job has node_count=2",
        "the MpiConfiguration says 1",
    ]


def test_nodes_without_a_communicator_are_said_to_be_on_their_own(source: str) -> None:
    config = RunConfiguration("train.py")
    config.node_count = 3
    submission = plan(ScriptRunConfig(source, run_config=config))
    assert submission.job.distribution == Plain(nodes=3)
    assert submission.warnings == (
        "no communicator: each of the 3 nodes runs the script on its own",
    )


@pytest.mark.parametrize("odd", [TensorflowConfiguration(2), "mpi"])
def test_odd_distributions_run_the_script_on_every_node(source: str, odd: Any) -> None:
    submission = plan(estimator(source, node_count=2, distributed_training=odd))
    assert submission.job.distribution == Plain(nodes=2)
    assert "does not distribute" in submission.warnings[0]


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        (Estimator, {"distributed_training": ParameterServer(2, 1)}, Tasks(workers=2)),
        (Estimator, {"distributed_training": Nccl()}, Ranks(backend="nccl")),
        (PyTorch, {"distributed_training": Gloo()}, Ranks(backend="gloo")),
        (PyTorch, {"distributed_backend": "Gloo"}, Ranks(backend="gloo")),
        (PyTorch, {"distributed_backend": "nccl", "node_count": 3}, Ranks(nodes=3)),
        (TensorFlow, {"distributed_backend": "ps"}, Tasks()),
        (
            TensorFlow,
            {"node_count": 2, "distributed_training": TensorflowConfiguration(3, 0)},
            Tasks(nodes=2, workers=3, servers=0),
        ),
        (TensorFlow, {"distributed_backend": "mpi", "node_count": 2}, Mpi(nodes=2)),
        (
            Chainer,
            {"node_count": 2, "process_count_per_node": 2, "distributed_backend": "mpi"},
            Mpi(nodes=2, processes_per_node=2),
        ),
    ],
)
def test_words_and_objects_distribute(
    source: str, kind: Any, config: dict[str, Any], expected: Any
) -> None:
    config = {"compute_target": CLUSTER, "entry_script": "train.py", **config}
    assert plan(kind(source, **config)).job.distribution == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TensorflowConfiguration(3, 2), Tasks(nodes=3, workers=3, servers=2)),
        (TensorflowConfiguration(2, 0), Tasks(nodes=2, workers=2, servers=0)),
        (PyTorchConfiguration("Gloo", node_count=2), Ranks(nodes=2, backend="gloo")),
        (PyTorchConfiguration("Nccl", 6, 2), Ranks(nodes=2, processes_per_node=3)),
    ],
)
def test_the_distribution_of_a_script_run(source: str, config: Any, expected: Any) -> None:
    submission = plan(ScriptRunConfig(source, "train.py", distributed_job_config=config))
    assert submission.job.distribution == expected
    assert not submission.warnings


def test_processes_that_cannot_be_spread_evenly_are_refused(source: str) -> None:
    config = ScriptRunConfig(
        source, "train.py", distributed_job_config=PyTorchConfiguration("Gloo", 3, 2)
    )
    with pytest.raises(ExperimentExecutionException, match="3 cannot be spread evenly over 2"):
        plan(config)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((0, 1), "worker count should be a whole number and at least 1, not 0"),
        ((-1, 1), "worker count"),
        (("2", 1), "worker count.*not '2'"),
        ((True, 1), "worker count.*not True"),
        ((1, -1), "parameter server count should be a whole number and at least 0, not -1"),
        ((1, None), "parameter server count"),
        ((1, 1.0), "parameter server count.*1.0"),
    ],
)
def test_tensorflow_needs_a_worker_and_whole_numbers(
    source: str, caplog: pytest.LogCaptureFixture, counts: Any, text: str
) -> None:
    config = TensorFlow(
        source,
        compute_target=CLUSTER,
        entry_script="train.py",
        distributed_training=TensorflowConfiguration(*counts),
    )
    assert "this cannot be submitted as it is" in caplog.messages[-1]
    with pytest.raises(ExperimentExecutionException, match=text):
        plan(config)


OPTION = "SIMGRID_ML_TF_"


@pytest.mark.parametrize(
    ("variables", "servers", "expected"),
    [
        ({"FIRST_WORKER": "master"}, 1, Tasks(workers=2, first_worker="master")),
        ({"FIRST_WORKER": "worker", "COORDINATOR": "0"}, 0, Tasks(workers=2, servers=0)),
        ({"COORDINATOR": "1"}, 1, Tasks(workers=2, coordinator=True)),
        ({"SERVER_GRACE_S": "60"}, 1, Tasks(workers=2, server_grace_s=60.0)),
        ({"COORDINATOR": "True", "SERVER_GRACE_S": "0.5"}, 1, None),
    ],
)
def test_variables_of_the_job_say_what_azure_has_no_word_for(
    source: str, variables: dict[str, str], servers: int, expected: Any
) -> None:
    given = {OPTION + name: text for name, text in variables.items()}
    for where in ("run", "environment"):
        config = RunConfiguration("train.py", communicator="ParameterServer")
        config.tensorflow = TensorflowConfiguration(2, servers)
        if where == "run":
            config.environment_variables = given
        else:
            config.environment.environment_variables = given
        job = plan(ScriptRunConfig(source, run_config=config)).job
        if expected is None:
            expected = Tasks(workers=2, coordinator=True, server_grace_s=0.5)
        assert job.distribution == expected
        assert {name: job.variables[name] for name in given} == given


@pytest.mark.parametrize(
    ("variables", "servers", "text"),
    [
        ({"FIRST_WORKER": "chief"}, 1, "'worker' or 'master'"),
        ({"COORDINATOR": "yes please"}, 1, "'1' or '0'"),
        ({"COORDINATOR": ""}, 1, "'1' or '0'"),
        ({"SERVER_GRACE_S": "soon"}, 1, "number of seconds"),
        ({"SERVER_GRACE_S": "-1"}, 1, "number of seconds"),
        ({"SERVER_GRACE_S": "inf"}, 1, "number of seconds"),
        ({"SERVER_GRACE_S": "nan"}, 1, "number of seconds"),
        ({"COORDINATER": "1"}, 1, "COORDINATER: no such option.*_COORDINATOR"),
        ({"COORDINATOR": "1"}, 0, "needs at least one parameter server"),
        ({"COORDINATOR": "1", "FIRST_WORKER": "master"}, 1, "leave one of the two out"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(
    source: str, variables: dict[str, str], servers: int, text: str
) -> None:
    config = RunConfiguration("train.py", communicator="ParameterServer")
    config.tensorflow = TensorflowConfiguration(2, servers)
    config.environment_variables = {OPTION + name: text for name, text in variables.items()}
    with pytest.raises(UserErrorException, match=text):
        plan(ScriptRunConfig(source, run_config=config))


def test_options_of_tensorflows_tasks_are_refused_for_other_jobs(source: str) -> None:
    variables = {f"{OPTION}COORDINATOR": "1"}
    for more in ({}, {"distributed_training": MpiConfiguration()}):
        with pytest.raises(UserErrorException, match="only for TensorFlow's tasks"):
            plan(estimator(source, environment_variables=variables, **more))


@pytest.mark.parametrize(
    ("kind", "kwargs", "texts"),
    [
        (
            TensorFlow,
            {"node_count": 2, "distributed_training": TensorflowConfiguration(5, 1)},
            ["5 workers share 2 node"],
        ),
        (
            TensorFlow,
            {"node_count": 5, "distributed_training": TensorflowConfiguration(2, 1)},
            ["2 of 5 nodes get no task"],
        ),
        (
            TensorFlow,
            {"node_count": 3, "distributed_training": TensorflowConfiguration(2, 2)},
            ["1 of 3 nodes get no task"],
        ),
        (
            TensorFlow,
            {"worker_count": 4},
            ["worker_count=4 is ignored without distributed_backend='ps'"],
        ),
        (
            TensorFlow,
            {"distributed_training": TensorflowConfiguration(1, 1), "parameter_server_count": 3},
            ["parameter_server_count=3 is ignored: the TensorflowConfiguration says 1"],
        ),
        (
            TensorFlow,
            {"distributed_training": ParameterServer(1, 0), "distributed_backend": "ps"},
            ["the ParameterServer is ignored: distributed_backend and the estimator's own counts"],
        ),
        (
            TensorFlow,
            {"distributed_training": MpiConfiguration(), "distributed_backend": "ps"},
            ["the MpiConfiguration is ignored: the job's communicator is 'ParameterServer'"],
        ),
        (
            TensorFlow,
            {"distributed_backend": "ps", "process_count_per_node": 2},
            ["process_count_per_node=2 is ignored: it is read with MPI alone"],
        ),
        (
            PyTorch,
            {"distributed_backend": "nccl", "distributed_training": PyTorchConfiguration("Gloo")},
            ["the PyTorchConfiguration is ignored"],
        ),
        (
            PyTorch,
            {"node_count": 2, "distributed_training": PyTorchConfiguration("Gloo")},
            ["PyTorchConfiguration does not distribute.*give it to ScriptRunConfig"],
        ),
        (
            PyTorch,
            {"distributed_training": TensorflowConfiguration(2, 1)},
            ["TensorflowConfiguration does not distribute"],
        ),
        (PyTorch, {"distributed_training": Gloo(), "distributed_backend": "gloo"}, []),
        (TensorFlow, {"node_count": 2, "distributed_backend": "ps", "worker_count": 2}, []),
    ],
)
def test_what_will_not_happen_is_said_at_construction_and_at_submission(
    source: str,
    caplog: pytest.LogCaptureFixture,
    kind: Any,
    kwargs: dict[str, Any],
    texts: list[str],
) -> None:
    config = kind(source, compute_target=CLUSTER, entry_script="train.py", **kwargs)
    said = [one.getMessage() for one in caplog.records if one.name == "simgrid_ml.azure"]
    for found in (said, plan(config).warnings):
        assert len(found) == len(texts)
        assert all(re.search(text, line) for text, line in zip(texts, found, strict=True))


@pytest.mark.parametrize("count", [0, -1, 1.5, None, "2"])
def test_process_counts_that_are_none_are_refused(source: str, count: Any) -> None:
    config = estimator(source, distributed_training=MpiConfiguration(count))
    with pytest.raises(ExperimentExecutionException, match="at least 1"):
        plan(config)


def test_an_unknown_communicator_is_refused(source: str) -> None:
    config = RunConfiguration("train.py", communicator="pigeons")
    with pytest.raises(RunConfigurationException, match="pigeons"):
        plan(ScriptRunConfig(source, run_config=config))


# -- overrides --------------------------------------------------------------------------------
def test_only_some_parameters_can_be_overridden(source: str) -> None:
    with pytest.raises(TrainingException, match=r"node_count.*cannot be overridden"):
        plan(estimator(source), node_count=2)
    with pytest.raises(TypeError, match="script_params"):
        plan(ScriptRunConfig(source, "train.py"), script_params={"--a": 1})


def test_an_override_behind_a_bare_flag_stays_right_and_is_warned_of(source: str) -> None:
    config = estimator(source, script_params={"--verbose": "", "--lr": 0.1, "--sizes": [1, 2]})
    submission = plan(config, script_params={"--lr": 0.2, "--new": 3})
    assert submission.job.arguments == (
        "--verbose",
        *("--lr", "0.2"),
        *("--sizes", "1", "2"),
        *("--new", "3"),
    )
    assert "pair them wrongly" in submission.warnings[0]


def test_arguments_that_are_no_pairs_cannot_be_overridden(source: str) -> None:
    config = estimator(source, script_params={"--a": 1})
    config.run_config.arguments = ["--a", 1, "--flag"]  # edited: the dictionary is stale
    with pytest.raises(TrainingException, match="no pairs"):
        plan(config, script_params={"--a": 2})


# -- environments -----------------------------------------------------------------------------
def test_ready_image_and_full_build_of_a_framework_are_one_environment(source: str) -> None:
    def environment(**kwargs: Any) -> Any:
        return plan(PyTorch(source, entry_script="train.py", **kwargs)).job.environment

    assert environment(compute_target=CLUSTER) == environment(compute_target="local")


def test_a_users_pin_stays_beside_the_framework(source: str) -> None:
    for packages in ({"pip_packages": ["torch==1.5.0"]}, {"conda_packages": ["torch=1.5"]}):
        config = PyTorch(source, entry_script="train.py", compute_target="local", **packages)  # type: ignore[arg-type]
        environment = plan(config).job.environment
        assert (environment.framework, environment.framework_version) == ("pytorch", "1.4")
        assert len(environment.pip) + len(environment.conda) == 1


@pytest.mark.parametrize(
    ("kind", "version", "packages", "pip"),
    [
        (TensorFlow, None, {"conda_packages": ["scikit-learn"]}, ()),
        (TensorFlow, "1.10", {"pip_packages": ["keras"]}, ("keras",)),
        (TensorFlow, "2.3", {"pip_packages": ["keras", "cmake"]}, ("keras", "cmake")),
        (TensorFlow, "2.2", {"pip_packages": ["tensorflow==2.2.1"]}, ("tensorflow==2.2.1",)),
        (Chainer, None, {"pip_packages": ["pillow"]}, ("pillow",)),
        (Chainer, "7.0.0", {}, ()),
    ],
)
@pytest.mark.parametrize("use_gpu", [False, True])
def test_tensorflow_and_chainer_are_frameworks_whose_pins_are_nobodys_wish(
    source: str, kind: Any, version: str | None, packages: dict[str, Any], pip: Any, use_gpu: bool
) -> None:
    for target in (CLUSTER, "local"):
        config = kind(
            source,
            compute_target=target,
            entry_script="train.py",
            framework_version=version,
            use_gpu=use_gpu,
            **packages,
        )
        environment = plan(config).job.environment
        framework = (kind.__name__.lower(), version or kind.DEFAULT_VERSION)
        assert (environment.framework, environment.framework_version) == framework
        assert environment.pip == pip
        assert environment.conda == tuple(packages.get("conda_packages", ()))
        assert (environment.use_gpu, environment.image, environment.python) == (use_gpu, None, None)


def test_a_script_runs_own_list_of_the_pins_is_the_framework(source: str) -> None:
    mine = Environment("mine")
    mine.python.conda_dependencies = CondaDependencies.create(
        pip_packages=["tensorflow-gpu==1.13.1", "horovod==0.16.1", "keras"]
    )
    environment = plan(ScriptRunConfig(source, "train.py", environment=mine)).job.environment
    assert (environment.framework, environment.framework_version) == ("tensorflow", "1.13")
    assert [line for line in environment.pip if not line.startswith("--")] == ["keras"]


def test_keras_with_the_generic_estimator_is_two_packages(source: str) -> None:
    environment = plan(estimator(source, conda_packages=["tensorflow", "keras"])).job.environment
    assert (environment.framework, environment.conda) == (None, ("tensorflow", "keras"))


def test_sklearn_is_a_framework_as_well(source: str) -> None:
    config = SKLearn(source, entry_script="train.py", compute_target="local", pip_packages=["tqdm"])
    environment = plan(config).job.environment
    assert (environment.framework, environment.framework_version) == ("sklearn", "0.20.3")
    assert environment.pip == ("tqdm",)


def test_an_environment_definition_means_only_what_it_names(source: str) -> None:
    mine = Environment("mine")
    mine.python.conda_dependencies = CondaDependencies.create(
        pip_packages=["torch==1.6.0", "--pre"][:1],
        conda_packages=["numpy=1.18"],
        python_version="3.7",
    )
    mine.python.conda_dependencies.set_pip_option("--pre")
    mine.docker.base_image = "mine:1"
    config = PyTorch(
        source, entry_script="train.py", compute_target="local", environment_definition=mine
    )
    environment = plan(config).job.environment
    assert environment.framework is None
    assert (environment.pip, environment.conda) == (("--pre", "torch==1.6.0"), ("numpy=1.18",))
    assert (environment.name, environment.image, environment.python) == ("mine", "mine:1", "3.7")


def test_user_managed_means_the_python_that_is_here(source: str) -> None:
    environment = plan(estimator(source, user_managed=True)).job.environment
    assert environment.interpreter == sys.executable
    assert not environment.pip

    mine = Environment("mine")
    mine.python.user_managed_dependencies = True
    mine.python.interpreter_path = sys.executable
    config = ScriptRunConfig(source, "train.py", environment=mine)
    assert plan(config).job.environment.interpreter == sys.executable


def test_a_dockerfile_is_refused(source: str) -> None:
    mine = Environment.from_dockerfile("mine", "FROM scratch")
    with pytest.raises(NotEmulated, match="Dockerfile"):
        plan(ScriptRunConfig(source, "train.py", environment=mine))


@pytest.mark.parametrize("size", ["1 parsec", "g"])
def test_a_size_that_is_none_is_a_user_error(source: str, size: str) -> None:
    with pytest.raises(UserErrorException, match="bytes"):
        plan(estimator(source, shm_size=size))


# -- targets ----------------------------------------------------------------------------------
def test_targets_are_named_and_objects_kept(source: str) -> None:
    assert plan(estimator(source)).compute is CLUSTER
    assert plan(estimator(source, compute_target="local")).target == "local"
    adhoc = plan(estimator(source, compute_target=None, vm_size="STANDARD_NC6"))
    assert (adhoc.target, adhoc.vm_size, adhoc.compute) == ("amlcompute", "STANDARD_NC6", None)
    assert plan(ScriptRunConfig(source, "train.py")).target == "local"


def test_an_ad_hoc_cluster_needs_a_size(source: str) -> None:
    with pytest.raises(ExperimentExecutionException, match="VM size"):
        plan(estimator(source, compute_target="amlcompute"))


def test_what_cannot_be_submitted_is_refused() -> None:
    class HyperDriveConfig:
        pass

    with pytest.raises(NotEmulated, match="HyperDriveConfig"):
        plan(HyperDriveConfig())
    with pytest.raises(UserErrorException, match="a str cannot be submitted"):
        plan("train.py")


# -- data -------------------------------------------------------------------------------------
def test_a_datastore_on_this_host_becomes_a_variable(source: str, tmp_path: Path) -> None:
    config = estimator(source, script_params={"--data_dir": Datastore()})
    assert config.run_config.arguments == ["--data_dir", "$AZUREML_DATAREFERENCE_images"]
    submission = plan(config, datastores={"images": str(tmp_path)})
    assert submission.job.arguments == ("--data_dir", "$AZUREML_DATAREFERENCE_images")
    assert submission.job.variables["AZUREML_DATAREFERENCE_images"] == str(tmp_path)
    assert submission.definition["dataReferences"]["images"]["mode"] == "mount"


def test_a_datastore_that_is_not_here_says_so(source: str) -> None:
    config = estimator(source, inputs=[Datastore()])
    with pytest.raises(NotEmulated, match="'images'"):
        plan(config)


def test_a_path_out_of_its_datastore_is_refused(source: str, tmp_path: Path) -> None:
    config = estimator(source, inputs=[Datastore()])
    config.run_config.data_references["images"].path_on_data_store = "../.."
    with pytest.raises(UserErrorException, match="outside"):
        plan(config, datastores={"images": str(tmp_path)})


def test_datasets_are_left_to_a_later_version(source: str) -> None:
    class DatasetConsumptionConfig:
        name, mode = "mnist", "mount"

    config = estimator(source, script_params={"--data": DatasetConsumptionConfig()})
    assert config.run_config.arguments == ["--data", "DatasetConsumptionConfig:mnist"]
    with pytest.raises(NotEmulated, match="mnist"):
        plan(config)


# -- the record -------------------------------------------------------------------------------
def test_the_definition_is_azures_and_keeps_no_password(source: str) -> None:
    registry = ContainerRegistry()
    registry.address, registry.password = "mine.azurecr.io", "secret"
    config = estimator(
        source,
        script_params={"--a": 1},
        custom_docker_image="i",
        image_registry_details=registry,
        node_count=2,
        distributed_training=MpiConfiguration(2),
    )
    definition = plan(config, script_params={"--a": 2}).definition
    assert definition["arguments"] == ["--a", 2]
    assert (definition["script"], definition["target"]) == ("train.py", "cluster")
    assert (definition["nodeCount"], definition["communicator"]) == (2, "IntelMpi")
    assert definition["mpi"] == {"processCountPerNode": 2, "nodeCount": 1}
    assert definition["amlcompute"]["clusterMaxNodeCount"] == 2
    image = definition["environment"]["docker"]
    assert image["baseImageRegistry"]["address"] == "mine.azurecr.io"
    assert "secret" not in repr(definition)
