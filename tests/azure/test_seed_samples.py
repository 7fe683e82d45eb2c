"""What the tutorials of 2019 and 2020 call, call by call, through ``import azureml``.

Written anew from their signatures. The engine is replaced by one that writes down what it is
asked for and leaves a finished run with a model in its outputs; that the engine does it for
real is tests/e2e.
"""

import io
import os
import shutil
import sys
from pathlib import Path

import pytest

import simgrid_ml
from simgrid_ml.engine import prepare
from simgrid_ml.errors import NotEmulated
from simgrid_ml.record.run import RunLock, RunState
from simgrid_ml.spec.job import Mpi, ParameterServer, Plain
from simgrid_ml.spec.placement import HostInventory, place

SHIM = Path(simgrid_ml.__file__).parent / "shim"


@pytest.fixture(autouse=True)
def azureml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SHIM))
    before = {name: sys.modules.pop(name) for name in [*sys.modules] if name[:7] == "azureml"}
    yield
    for name in [name for name in sys.modules if name[:7] == "azureml"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def jobs(monkeypatch):
    asked = []

    def submit(job, cluster, *, store, experiment, tags, properties, extra):
        prepare.check_source(job)
        place(job, cluster, HostInventory(cpus=2, memory_bytes=2**32))
        asked.append((job, cluster))
        record = store.create(experiment, {"cluster": {"name": cluster.name}, **extra})
        lock = RunLock.take(record.path)
        record.put_artifact("azureml-logs/70_driver_log_0.txt", io.BytesIO(b"epoch 1\n"))
        record.put_artifact("outputs/model.pt", io.BytesIO(b"weights"))
        S = RunState
        for state in (S.PREPARING, S.QUEUED, S.RUNNING, S.FINALIZING, S.COMPLETED):
            record.advance(state)
        lock.close()
        return record

    monkeypatch.setattr(prepare, "submit", submit)
    return asked


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "proj"
    folder.mkdir()
    for name in ("train.py", "keras_train.py"):
        (folder / name).write_text("import torch\n")
    return "./proj"


@pytest.fixture
def compute_target():
    from azureml.core import Workspace
    from azureml.core.compute import AmlCompute, ComputeTarget

    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=4)
    return ComputeTarget.create(Workspace.from_config(), "gpucluster", config)


@pytest.fixture
def exp():
    from azureml.core import Experiment, Workspace

    return Experiment(Workspace.from_config(), "samples")


def test_the_pytorch_how_to_from_workspace_to_downloaded_model(jobs, tmp_path, capsys):
    from azureml.core import Experiment
    from azureml.core.compute import AmlCompute, ComputeTarget
    from azureml.core.compute_target import ComputeTargetException
    from azureml.core.workspace import Workspace
    from azureml.train.dnn import PyTorch

    (tmp_path / "pytorch_train.py").write_text("print('training')\n")
    ws = Workspace.from_config()
    os.makedirs("./pytorch-birds", exist_ok=True)
    experiment = Experiment(ws, name="pytorch-birds")
    shutil.copy("pytorch_train.py", "./pytorch-birds")
    try:
        target = ComputeTarget(workspace=ws, name="gpucluster")
        pytest.fail("there was none")
    except ComputeTargetException:
        config = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=4)
        target = ComputeTarget.create(ws, "gpucluster", config)
        target.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
    estimator = PyTorch(
        source_directory="./pytorch-birds",
        script_params={"--num_epochs": 30, "--output_dir": "./outputs"},
        compute_target=target,
        entry_script="pytorch_train.py",
        use_gpu=True,
        pip_packages=["pillow==5.4.1"],
    )
    run = experiment.submit(estimator)
    run.wait_for_completion(show_output=True)
    model = run.register_model(model_name="pt-dnn", model_path="outputs/")
    os.makedirs("./model", exist_ok=True)
    for f in run.get_file_names():
        if f.startswith("outputs/model"):
            run.download_file(name=f, output_file_path=os.path.join("./model", f.split("/")[-1]))

    (job, cluster), out = jobs[0], capsys.readouterr().out
    assert "Minimum number of nodes requested have been provisioned\n" in out
    assert "Streaming azureml-logs/70_driver_log_0.txt\n" in out
    assert out.rstrip().endswith(run.get_portal_url())
    assert job.arguments == ("--num_epochs", "30", "--output_dir", "./outputs")
    assert job.distribution == Plain(nodes=1)
    assert (job.environment.framework, job.environment.use_gpu) == ("pytorch", True)
    assert any(line.startswith("pillow") for line in job.environment.pip)
    assert (cluster.name, cluster.vm_size) == ("gpucluster", "STANDARD_NC6")
    assert (model.name, model.version) == ("pt-dnn", 1)
    assert (tmp_path / "model" / "model.pt").read_bytes() == b"weights"


def test_horovod_over_two_nodes_with_the_import_the_page_forgot(jobs, project, compute_target, exp):
    from azureml.core.runconfig import MpiConfiguration
    from azureml.train.dnn import PyTorch

    estimator = PyTorch(
        source_directory=project,
        compute_target=compute_target,
        script_params={},
        entry_script="train.py",
        node_count=2,
        process_count_per_node=1,
        distributed_training=MpiConfiguration(),
        framework_version="1.6",
        use_gpu=True,
    )
    exp.submit(estimator)
    assert jobs[0][0].distribution == Mpi(nodes=2, processes_per_node=1)
    assert jobs[0][0].environment.framework_version == "1.6"


def test_the_version_the_page_asks_for_is_refused_as_azure_refuses_it(project, compute_target):
    from azureml.core.runconfig import MpiConfiguration
    from azureml.exceptions import TrainingException
    from azureml.train.dnn import PyTorch

    with pytest.raises(TrainingException, match=r"1\.13 is not currently supported"):
        PyTorch(
            source_directory=project,
            compute_target=compute_target,
            entry_script="train.py",
            node_count=2,
            distributed_training=MpiConfiguration(),
            framework_version="1.13",
        )


def test_a_script_the_page_misnames_is_noticed_at_the_submission(project, compute_target, exp):
    from azureml.exceptions import ExperimentExecutionException
    from azureml.train.dnn import PyTorch

    estimator = PyTorch(project, compute_target=compute_target, entry_script="script.py")
    with pytest.raises(ExperimentExecutionException, match=r"script\.py"):
        exp.submit(estimator)


def test_the_older_pytorch_page_names_its_backend_by_a_word(
    jobs, project, compute_target, exp, caplog
):
    from azureml.train.dnn import PyTorch

    estimator = PyTorch(
        source_directory=project,
        script_params={},
        compute_target=compute_target,
        entry_script="train.py",
        node_count=2,
        process_count_per_node=1,
        distributed_backend="mpi",
        use_gpu=True,
    )
    exp.submit(estimator)
    assert jobs[0][0].distribution == Mpi(nodes=2, processes_per_node=1)
    assert "distributed_backend" in caplog.text


def test_the_generic_estimator_takes_packages_arguments_and_an_image(
    jobs, project, compute_target, exp
):
    from azureml.core.runconfig import MpiConfiguration
    from azureml.train.estimator import Estimator

    single = Estimator(
        source_directory=project,
        script_params={"--regularization": 0.8, "--verbose": ""},
        compute_target=compute_target,
        entry_script="train.py",
        conda_packages=["scikit-learn"],
    )
    run = exp.submit(single)
    assert run.get_portal_url().startswith("http://localhost:")
    distributed = Estimator(
        source_directory=project,
        compute_target=compute_target,
        entry_script="train.py",
        node_count=2,
        process_count_per_node=1,
        distributed_training=MpiConfiguration(),
        conda_packages=["tensorflow", "keras"],
        custom_docker_image="continuumio/miniconda",
    )
    exp.submit(distributed)
    (first, _), (second, _) = jobs
    assert first.arguments == ("--regularization", "0.8", "--verbose")
    assert "scikit-learn" in first.environment.conda
    assert second.distribution == Mpi(nodes=2, processes_per_node=1)
    assert second.environment.image == "continuumio/miniconda"


def test_a_model_registered_without_a_path_needs_an_artifact_of_its_name(
    jobs, project, exp, compute_target
):
    from azureml.exceptions import ModelPathNotFoundException
    from azureml.train.estimator import Estimator

    run = exp.submit(Estimator(project, compute_target=compute_target, entry_script="train.py"))
    with pytest.raises(ModelPathNotFoundException):
        run.register_model(model_name="sklearn-sample", model_path=None)
    run.upload_file("sklearn-sample", io.BytesIO(b"m"))
    assert run.register_model(model_name="sklearn-sample", model_path=None).version == 1


def test_one_estimator_runs_on_every_kind_of_target(jobs, project, exp, compute_target):
    from azureml.train.estimator import Estimator

    for target in ("local", compute_target):
        exp.submit(Estimator(project, compute_target=target, entry_script="train.py"))
    exp.submit(Estimator(project, vm_size="STANDARD_NC6", entry_script="train.py"))
    assert [cluster.name for _, cluster in jobs] == ["local", "gpucluster", "amlcompute"]


# -- TensorFlow and Keras, 2019 ---------------------------------------------------------------
def test_tensorflow_on_one_node_gets_its_arguments_and_scikit_learn(
    jobs, project, compute_target, exp
):
    from azureml.train.dnn import TensorFlow

    script_params = {"--batch-size": 50, "--learning-rate": 0.01}
    tf_est = TensorFlow(
        source_directory=project,
        script_params=script_params,
        compute_target=compute_target,
        entry_script="train.py",
        conda_packages=["scikit-learn"],
        use_gpu=True,
    )
    exp.submit(tf_est)
    job = jobs[0][0]
    assert job.arguments == ("--batch-size", "50", "--learning-rate", "0.01")
    assert job.distribution == Plain(nodes=1)
    environment = job.environment
    assert (environment.framework, environment.framework_version) == ("tensorflow", "1.13")
    assert (environment.conda, environment.pip) == (("scikit-learn",), ())
    assert environment.use_gpu and environment.image is None


def test_tensorflow_with_horovod_over_two_nodes(jobs, project, compute_target, exp):
    from azureml.train.dnn import TensorFlow

    tf_est = TensorFlow(
        source_directory=project,
        script_params={},
        compute_target=compute_target,
        entry_script="train.py",
        node_count=2,
        process_count_per_node=1,
        distributed_backend="mpi",
        use_gpu=True,
    )
    exp.submit(tf_est)
    assert jobs[0][0].distribution == Mpi(nodes=2, processes_per_node=1)
    assert jobs[0][0].environment.framework == "tensorflow"


def test_a_parameter_server_and_the_two_workers_of_the_code(jobs, project, compute_target, exp):
    from azureml.train.dnn import TensorFlow

    tf_est = TensorFlow(
        source_directory=project,
        script_params={},
        compute_target=compute_target,
        entry_script="train.py",
        node_count=2,
        worker_count=2,
        parameter_server_count=1,
        distributed_backend="ps",
        use_gpu=True,
    )
    exp.submit(tf_est)
    assert jobs[0][0].distribution == ParameterServer(nodes=2, workers=2, servers=1)


def test_keras_is_one_more_package_of_tensorflow(jobs, project, compute_target, exp):
    from azureml.train.dnn import TensorFlow

    keras_est = TensorFlow(
        source_directory=project,
        script_params={"--batch-size": 50},
        compute_target=compute_target,
        entry_script="keras_train.py",
        pip_packages=["keras"],
        use_gpu=True,
    )
    exp.submit(keras_est)
    environment = jobs[0][0].environment
    assert (environment.framework, environment.pip) == ("tensorflow", ("keras",))


def test_keras_by_conda_packages_of_the_generic_estimator(jobs, project, compute_target, exp):
    from azureml.core.runconfig import MpiConfiguration
    from azureml.train.estimator import Estimator

    estimator = Estimator(
        source_directory=project,
        compute_target=compute_target,
        entry_script="train.py",
        node_count=2,
        process_count_per_node=1,
        distributed_training=MpiConfiguration(),
        conda_packages=["tensorflow", "keras"],
    )
    exp.submit(estimator)
    environment = jobs[0][0].environment
    assert (environment.framework, environment.conda) == (None, ("tensorflow", "keras"))


def test_more_parameter_servers_than_nodes_are_refused_at_the_submission(
    jobs, project, compute_target, exp
):
    from azureml.exceptions import ExperimentExecutionException
    from azureml.train.dnn import ParameterServer, TensorFlow

    estimator = TensorFlow(
        project,
        compute_target=compute_target,
        entry_script="train.py",
        node_count=2,
        distributed_training=ParameterServer(worker_count=2, parameter_server_count=3),
    )
    with pytest.raises(ExperimentExecutionException, match="3 parameter servers on 2 nodes"):
        exp.submit(estimator)


def test_data_of_the_pages_is_planned_and_says_so():
    from azureml.core import Workspace

    with pytest.raises(NotEmulated, match="later version"):
        Workspace.from_config().get_default_datastore()
    with pytest.raises(NotEmulated, match="later version"):
        from azureml.core import Dataset  # noqa: F401
