"""What of Azure ML SDK v1 is emulated, and what is not and why; the source of docs/coverage.md.

``python -m simgrid_ml.azure.coverage`` prints the page. The stand-in ``azureml`` finds here what
it loads late and what it refuses, so the page cannot say anything else than the code does.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Type

from simgrid_ml.azure import errors
from simgrid_ml.azure.errors import NotEmulatedMember, NotEmulatedName, not_emulated
from simgrid_ml.errors import NotEmulated

__all__ = [
    "EMULATED",
    "MEMBERS",
    "MISSING",
    "PARTLY",
    "Gaps",
    "getter",
    "missing_member",
    "refuse_other_modules",
    "render",
]

_DEPLOY = "deployment is not emulated, training is"
_DATA = "datasets and datastores: planned"
_HYPERDRIVE = "hyperparameter search: planned"
_CLOUD = "belongs to the cloud's resources"
_OTHER_COMPUTE = "the emulated target is AmlCompute; `compute_target='local'` runs on one node"
_SPARK = "Spark and Databricks are not emulated"
_PIPELINE = "pipelines are not emulated; submit each step as a run"
_REINFORCEMENT = "submit the ReinforcementLearningEstimator; its tasks are no runs of their own"
_LATER = (_DATA, _HYPERDRIVE)


def _all_from(origin: str, *names: str) -> Dict[str, str]:
    return dict.fromkeys(names, f"simgrid_ml.azure.{origin}")


_EXCEPTIONS = _all_from("errors", *(name for name in errors.__all__ if name.endswith("Exception")))

EMULATED: Mapping[str, Mapping[str, str]] = {
    "azureml.contrib.train.rl": _all_from(
        "reinforcement",
        "RLFramework",
        "Ray",
        "ReinforcementLearningEstimator",
        "WorkerConfiguration",
    ),
    "azureml.core": {
        **_all_from("workspace", "Workspace"),
        **_all_from("experiment", "Experiment"),
        **_all_from("run", "Run", "get_run"),
        **_all_from("model", "Model"),
        **_all_from("compute", "ComputeTarget"),
        **_all_from("environment", "ContainerRegistry", "Environment"),
        **_all_from("runconfig", "RunConfiguration"),
        **_all_from("script_run_config", "ScriptRunConfig"),
    },
    "azureml.core.authentication": _all_from(
        "authentication",
        "AbstractAuthentication",
        "AzureCliAuthentication",
        "InteractiveLoginAuthentication",
        "MsiAuthentication",
        "ServicePrincipalAuthentication",
    ),
    "azureml.core.compute": _all_from("compute", "AmlCompute", "ComputeTarget"),
    "azureml.core.compute_target": _all_from(
        "errors", "ComputeTargetException", "UserErrorException"
    ),
    "azureml.core.conda_dependencies": {
        **_all_from("conda_dependencies", "CondaDependencies", "PYTHON_DEFAULT_VERSION")
    },
    "azureml.core.container_registry": _all_from("environment", "ContainerRegistry"),
    "azureml.core.environment": {
        **_all_from(
            "environment",
            "DEFAULT_CPU_IMAGE",
            "DEFAULT_GPU_IMAGE",
            "ContainerRegistry",
            "DockerSection",
            "Environment",
            "PythonSection",
        ),
        **_all_from("conda_dependencies", "CondaDependencies"),
    },
    "azureml.core.experiment": _all_from("experiment", "Experiment", "ViewType"),
    "azureml.core.model": _all_from("model", "Model"),
    "azureml.core.run": {
        **_all_from("run", "Run", "get_run"),
        **_all_from("offline", "_OfflineRun"),
    },
    "azureml.core.runconfig": {
        **_all_from(
            "runconfig",
            "AmlComputeConfiguration",
            "ContainerRegistry",
            "DEFAULT_CPU_IMAGE",
            "DEFAULT_GPU_IMAGE",
            "DataReferenceConfiguration",
            "DockerConfiguration",
            "EnvironmentDefinition",
            "HistoryConfiguration",
            "LOCAL_RUNCONFIG_NAME",
            "MPI_CPU_IMAGE",
            "MPI_GPU_IMAGE",
            "MpiConfiguration",
            "ParallelTaskConfiguration",
            "PyTorchConfiguration",
            "RunConfiguration",
            "TensorflowConfiguration",
        ),
        **_all_from("conda_dependencies", "CondaDependencies"),
        **_all_from("environment", "Environment"),
    },
    "azureml.core.script_run_config": _all_from("script_run_config", "ScriptRunConfig"),
    "azureml.core.workspace": _all_from("workspace", "Workspace"),
    "azureml.exceptions": _EXCEPTIONS,
    "azureml.telemetry": _all_from("widgets", "set_diagnostics_collection"),
    "azureml.tensorboard": _all_from("tensorboard", "Tensorboard"),
    "azureml.tensorboard.export": _all_from("tensorboard_export", "export_to_tensorboard"),
    "azureml.train.dnn": _all_from(
        "dnn", "Chainer", "Gloo", "Mpi", "Nccl", "ParameterServer", "PyTorch", "TensorFlow"
    ),
    "azureml.train.estimator": _all_from(
        "estimator", "Estimator", "Gloo", "MMLBaseEstimator", "Mpi", "Nccl", "ParameterServer"
    ),
    "azureml.train.sklearn": _all_from("sklearn", "SKLearn"),
    "azureml.widgets": _all_from("widgets", "RunDetails"),
}
"""Module of the SDK → name → module of ours that has the very object."""

_COMPUTES = (
    "AdlaCompute",
    "AksCompute",
    "BatchCompute",
    "ComputeInstance",
    "DataFactoryCompute",
    "DatabricksCompute",
    "DsvmCompute",
    "HDInsightCompute",
    "KubernetesCompute",
    "KustoCompute",
    "RemoteCompute",
    "SynapseCompute",
)
_HYPERDRIVE_NAMES = (
    "BanditPolicy",
    "BayesianParameterSampling",
    "GridParameterSampling",
    "HyperDriveConfig",
    "HyperDriveRun",
    "MedianStoppingPolicy",
    "NoTerminationPolicy",
    "PrimaryMetricGoal",
    "RandomParameterSampling",
    "TruncationSelectionPolicy",
    "choice",
    "loguniform",
    "normal",
    "uniform",
)

MISSING: Mapping[str, Mapping[str, str]] = {
    "azureml.contrib.train.rl": dict.fromkeys(
        ("ReinforcementLearningConfiguration", "ReinforcementLearningRun"),
        _REINFORCEMENT,
    ),
    "azureml.core": {
        "Dataset": _DATA,
        "Datastore": _DATA,
        "Image": _DEPLOY,
        "Keyvault": "pass secrets in environment_variables",
        "LinkedService": _CLOUD,
        "PrivateEndPoint": _CLOUD,
        "PrivateEndPointConfig": _CLOUD,
        "ScriptRun": "submit returns a Run",
        "SynapseWorkspaceLinkedServiceConfiguration": _CLOUD,
        "Webservice": _DEPLOY,
        "attach_legacy_compute_target": _OTHER_COMPUTE,
        "diagnostic_log": "everything is in the run's folder",
        "is_compute_target_prepared": _OTHER_COMPUTE,
        "prepare_compute_target": _OTHER_COMPUTE,
        "remove_legacy_compute_target": _OTHER_COMPUTE,
    },
    "azureml.core.authentication": {
        "AzureMLTokenAuthentication": _CLOUD,
        "ArmTokenAuthentication": _CLOUD,
        "TokenAuthentication": _CLOUD,
    },
    "azureml.core.compute": dict.fromkeys(_COMPUTES, _OTHER_COMPUTE),
    "azureml.core.compute_target": dict.fromkeys(
        ("AbstractComputeTarget", "LocalTarget"), _OTHER_COMPUTE
    ),
    "azureml.core.databricks": dict.fromkeys(
        ("DatabricksCluster", "DatabricksSection", "PyPiLibrary", "MavenLibrary"), _SPARK
    ),
    "azureml.core.dataset": {"Dataset": _DATA},
    "azureml.core.datastore": {"Datastore": _DATA},
    "azureml.core.environment": {
        "DockerBuildContext": "images are not built",
        "DockerImageDetails": "images are not built",
        "ImageBuildDetails": "images are not built",
        "RCranPackage": "R is not emulated",
        "RGitHubPackage": "R is not emulated",
        "RSection": "R is not emulated",
        "SparkPackage": _SPARK,
        "SparkSection": _SPARK,
    },
    "azureml.core.model": {"InferenceConfig": _DEPLOY, "ModelPackage": _DEPLOY},
    "azureml.core.runconfig": {
        "AzureContainerRegistry": _CLOUD,
        "Data": _DATA,
        "DataLocation": _DATA,
        "DataPath": _DATA,
        "Dataset": _DATA,
        "HdiConfiguration": _SPARK,
        "KubernetesComputeConfiguration": _OTHER_COMPUTE,
        "OutputData": _DATA,
        "SparkConfiguration": _SPARK,
    },
    "azureml.core.script_run": {"ScriptRun": "submit returns a Run"},
    "azureml.core.webservice": {"AciWebservice": _DEPLOY, "AksWebservice": _DEPLOY},
    "azureml.data": {
        "FileDataset": _DATA,
        "OutputFileDatasetConfig": _DATA,
        "TabularDataset": _DATA,
    },
    "azureml.data.data_reference": {"DataReference": _DATA},
    "azureml.exceptions": dict.fromkeys(
        (
            "DatasetTimestampMissingError",
            "ParallelRunException",
            "ServiceException",
            "WorkspacePrivateEndpointException",
        ),
        "nothing emulated raises it",
    ),
    "azureml.pipeline.core": {"Pipeline": _PIPELINE, "PipelineData": _PIPELINE},
    "azureml.pipeline.steps": {"EstimatorStep": _PIPELINE, "PythonScriptStep": _PIPELINE},
    "azureml.train.automl": {"AutoMLConfig": "automated learning is not emulated"},
    "azureml.train.estimator": {
        "MMLBaseEstimatorRunConfig": "internal; use the run_config of an estimator"
    },
    "azureml.train.hyperdrive": dict.fromkeys(_HYPERDRIVE_NAMES, _HYPERDRIVE),
}
"""Module of the SDK → name → why it is missing."""

PARTLY: Mapping[str, Tuple[str, str]] = {
    "ParallelTaskConfiguration": (
        "partly",
        "can be described as in the SDK; submitting it raises `NotEmulated`",
    ),
    "ReinforcementLearningEstimator": (
        "partly",
        "runs today's Ray; head and workers are tasks of one run, not child runs",
    ),
    "WorkerConfiguration": (
        "partly",
        "workers are nodes of the estimator's cluster, in its environment",
    ),
}
"""Names that are there and do not go all the way: how far, and a note."""

MEMBERS: Mapping[str, Mapping[str, str]] = {
    "AmlCompute": {
        "add_identity": _CLOUD,
        "list_quotas": _CLOUD,
        "list_usages": _CLOUD,
        "remove_identity": _CLOUD,
        "update_quotas": _CLOUD,
    },
    "ComputeTarget": {"attach": _OTHER_COMPUTE},
    "Experiment": {
        "from_directory": "use Experiment(workspace, name)",
        "identity": "use name or id",
    },
    "Model": {
        "add_dataset_references": _DATA,
        "deploy": _DEPLOY,
        "deserialize": _DEPLOY,
        "get_sas_urls": "use download",
        "package": _DEPLOY,
        "print_configuration": _DEPLOY,
        "profile": _DEPLOY,
    },
    "Run": {
        "add_type_provider": "all runs are script runs",
        "get_secret": "pass secrets in environment_variables",
        "get_secrets": "pass secrets in environment_variables",
        "identity": "use id",
    },
    "Workspace": {
        "DEFAULT_CPU_CLUSTER_CONFIGURATION": "use AmlCompute.provisioning_configuration",
        "DEFAULT_GPU_CLUSTER_CONFIGURATION": "use AmlCompute.provisioning_configuration",
        "add_private_endpoint": _CLOUD,
        "datasets": _DATA,
        "datastores": _DATA,
        "delete": "`simgrid-ml runs delete` removes its runs",
        "delete_connection": _CLOUD,
        "delete_private_endpoint_connection": _CLOUD,
        "diagnose_workspace": "use `simgrid-ml doctor`",
        "get_connection": _CLOUD,
        "get_default_datastore": _DATA,
        "get_default_keyvault": "pass secrets in environment_variables",
        "get_mlflow_tracking_uri": "MLflow tracking: use Run.log",
        "images": _DEPLOY,
        "linked_services": _CLOUD,
        "list_connections": _CLOUD,
        "list_keys": _CLOUD,
        "private_endpoints": _CLOUD,
        "service_context": _CLOUD,
        "set_connection": _CLOUD,
        "set_default_datastore": _DATA,
        "sync_keys": _CLOUD,
        "update": _CLOUD,
        "update_dependencies": _CLOUD,
        "webservices": _DEPLOY,
    },
}
"""Class → public member → why it raises ``NotEmulated``."""


def getter(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of the stand-in's ``module``: loads late, or says what is missing."""

    def find(name: str) -> Any:
        origin = EMULATED.get(module, {}).get(name)
        if origin is not None:
            return getattr(importlib.import_module(origin), name)
        # The import system looks here before it loads a module.
        if name.startswith("_") or _leads_to_known(f"{module}.{name}"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise _missing(f"{module}.{name}", MISSING.get(module, {}).get(name, ""), NotEmulatedName)

    return find


def _leads_to_known(module: str) -> bool:
    """Whether the module, or one inside it, is in the tables."""
    return any(f"{known}.".startswith(f"{module}.") for known in (*EMULATED, *MISSING))


class _OtherModules:
    """Finds what the stand-in has no file for: refuses it, or makes a package on the way to it.

    So ``import azureml.contrib.train.rl`` is refused by its full name, and not at the first dot.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        if not name.startswith("azureml."):
            return None
        if name not in MISSING and _leads_to_known(name):
            return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        reasons = set(MISSING.get(name, {}).values())
        raise _missing(name, reasons.pop() if len(reasons) == 1 else "", NotEmulatedName)

    def create_module(self, spec: ModuleSpec) -> None:
        """An ordinary one."""

    def exec_module(self, module: Any) -> None:
        module.__getattr__ = getter(module.__name__)


_OTHER_MODULES = _OtherModules()


def refuse_other_modules() -> None:
    """From now on, ``import azureml.x`` of what has no file raises ``NotEmulated``."""
    if _OTHER_MODULES not in sys.meta_path:
        sys.meta_path.append(_OTHER_MODULES)


class Gaps(type):
    """Metaclass whose classes refuse what the SDK's have and they have not: ``Run.x``."""

    def __getattr__(cls, name: str) -> Any:
        return _refuse(cls, name)


def missing_member(thing: object, name: str) -> Any:
    """The ``__getattr__`` of our classes: a member of the SDK's is refused, any other unknown."""
    return _refuse(type(thing), name)


def _refuse(kind: type, name: str) -> Any:
    for base in kind.__mro__:
        reason = MEMBERS.get(base.__name__, {}).get(name)
        if reason is not None:
            raise _missing(f"{base.__name__}.{name}", reason, NotEmulatedMember)
    raise AttributeError(f"{kind.__name__!r} has no attribute {name!r}")


def _missing(what: str, reason: str, kind: Type[NotEmulated]) -> NotEmulated:
    return not_emulated(what, remedy=reason, later=reason in _LATER, kind=kind)


def render() -> str:
    """The page."""
    lines = [
        "# What of Azure ML SDK v1 is emulated",
        "",
        "Generated by `python -m simgrid_ml.azure.coverage`; a test holds it against the code.",
        "",
        "Names marked *yes* can be imported from `azureml` unchanged: in a job's script, and in a",
        "driver started with `simgrid-ml python`. Everything else of `azureml`, listed or not,",
        "raises `NotEmulated`: an `ImportError` for modules and their names, an `AttributeError`",
        "for members of classes.",
        "",
    ]
    for module in sorted({*EMULATED, *MISSING}):
        lines += [f"## `{module}`", "", *_table(_rows(module)), ""]
    lines += ["# Members of emulated classes that are not emulated", ""]
    for kind, members in sorted(MEMBERS.items()):
        lines += [f"## `{kind}`", ""]
        lines += [*_table([(name, "no", why) for name, why in sorted(members.items())]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(module: str) -> List[Tuple[str, str, str]]:
    public = [name for name in EMULATED.get(module, {}) if not name.startswith("_")]
    rows = [(name, *PARTLY.get(name, ("yes", ""))) for name in public]
    rows += [
        (name, "planned" if why in _LATER else "no", why)
        for name, why in MISSING.get(module, {}).items()
    ]
    return sorted(rows)


def _table(rows: List[Tuple[str, str, str]]) -> List[str]:
    body = [f"| `{name}` | {emulated} | {why} |" for name, emulated, why in rows]
    return ["| name | emulated | note |", "|---|---|---|", *body]


if __name__ == "__main__":
    print(render(), end="")
