"""From what ``Experiment.submit`` is given to what the engine runs: ``plan``, with no effects.

Works on this package's estimators and on those of the real SDK alike: both are read through the
public attributes of ``run_config``, so both give the same ``JobSpec``.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simgrid_ml.azure import arguments as script_arguments
from simgrid_ml.azure import frameworks, tasks
from simgrid_ml.azure.conda_dependencies import CondaDependencies, package_name
from simgrid_ml.azure.element import is_a
from simgrid_ml.azure.errors import (
    ExperimentExecutionException,
    TrainingException,
    UserErrorException,
    not_emulated,
    to_azure,
)
from simgrid_ml.azure.lint import odd_inputs
from simgrid_ml.azure.reinforcement import ReinforcementLearningEstimator
from simgrid_ml.azure.runconfig import definition
from simgrid_ml.errors import SpecError
from simgrid_ml.spec.job import EnvironmentSpec, JobSpec, Registry
from simgrid_ml.units import parse_bytes

__all__ = ["Submission", "plan"]

_NO_WISH = ("3.8.13", "3.10.18", "3.6.2")  # Python versions the SDK writes down unasked
_ANY_PYTHON = "python"  # the SDK's default
_SHELL_WORDS = frozenset(["&&", "||", ";", "|", ">", ">>", "<", "2>&1", "&"])
_SDK_INDEX = "pypi.python.org"


@dataclass(frozen=True)
class Submission:
    """A job and what Azure ML's record of it shows.

    Attributes:
        job: for the engine.
        target: name of the compute target; ``"local"``; ``"amlcompute"`` with ``vm_size``.
        compute: the target object, if one was given.
        definition: the ``runDefinition`` of the run's details.
        warnings: what was asked for and will not happen.
        vm_size: size of the nodes of a cluster made for this run.
        tags: of the run.
    """

    job: JobSpec
    target: str
    compute: Any
    definition: dict[str, Any]
    warnings: tuple[str, ...] = ()
    vm_size: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


def plan(
    config: Any,
    *,
    script_params: Mapping[Any, Any] | None = None,
    inputs: Sequence[Any] | None = None,
    source_directory_data_store: Any = None,
    default_compute: Any = None,
    datastores: Mapping[str, str] | None = None,
    **other: Any,
) -> Submission:
    """What submitting ``config`` asks for; ``config`` is not changed.

    Args:
        config: an estimator or a ``ScriptRunConfig``, of this package or of the real SDK.
        script_params: replaces or adds arguments of an estimator.
        inputs: data added to an estimator's.
        source_directory_data_store: recorded.
        default_compute: the target if the configuration names none.
        datastores: name of a datastore to the folder on this host that holds it.
        other: anything else the caller was given; nothing else can be overridden.

    Raises:
        ExperimentExecutionException: there is no such entry script in the source folder.
        TrainingException: an override that is none.
        UserErrorException: not something that can be submitted.
        NotEmulated: a distribution or a kind of data this version has not got.
    """
    overrides = {
        "script_params": script_params,
        "inputs": inputs,
        "source_directory_data_store": source_directory_data_store,
    }
    if is_a(config, "ScriptRunConfig"):
        given = [name for name, value in overrides.items() if value is not None]
        if given or other:
            unknown = [*given, *other][0]
            raise TypeError(f"submit() got an unexpected keyword argument {unknown!r}")
    elif isinstance(config, ReinforcementLearningEstimator):
        config._refuse_overrides(
            [*other, *(name for name, value in overrides.items() if value is not None)]
        )
    elif is_a(config, "MMLBaseEstimator"):
        if other:
            raise TrainingException(
                f"{sorted(other)} cannot be overridden. Only {', '.join(overrides)} can"
            )
    else:
        _refuse(config)

    run_config = config.run_config
    if not hasattr(run_config.environment, "python"):
        raise not_emulated(
            f"a {type(run_config.environment).__name__}", remedy="use Environment.get"
        )
    source = os.path.abspath(config.source_directory or ".")
    warnings: list[str] = list(getattr(config, "_notes", ()))
    script = getattr(config, "script", None) or run_config.script
    command = getattr(config, "command", None) or run_config.command
    arguments = getattr(config, "arguments", None) or run_config.arguments
    if script_params:
        arguments = _overridden(config, arguments, script_params, warnings)
    if not isinstance(arguments, str):  # the SDK takes a line as well
        arguments = list(arguments or ())
    _refuse_bare_datasets(arguments)

    references = dict(run_config.data_references or {})
    datasets = {**(run_config.data or {}), **(run_config.output_data or {})}
    added = script_arguments.collect(script_params, inputs, source_directory_data_store)
    references.update(added.references)
    datasets.update({**added.datasets, **added.outputs})
    _refuse_datasets(datasets, arguments)

    shown = definition(run_config)
    variables = tasks.variables(run_config) | _data_variables(references, datastores or {})
    what = _what_to_run(source, script, command, arguments)
    shown |= {"script": what.get("entry_script", script), "arguments": _plain_list(arguments)}
    shown["command"] = command or ""
    if source_directory_data_store is not None:
        shown["sourceDirectoryDataStore"] = source_directory_data_store.name

    distribution = getattr(config, "_distribution", None) or tasks.distribution(run_config)
    distributed = getattr(config, "_distributed_backend", None)
    warnings += odd_inputs(
        run_config,
        script=None,  # its absence is an error by now
        source_directory=source,
        distributed=distributed,
        process_count_per_node=getattr(config, "_process_count_per_node", 1),
        asked_tasks=getattr(config, "_asked_tasks", None),
    )
    if run_config.docker and run_config.docker.arguments:
        warnings.append(f"arguments of docker are not used: {run_config.docker.arguments}")
    job = JobSpec(
        source=source,
        distribution=distribution,
        environment=_environment(config, warnings),
        variables=variables,
        **what,
        **_limits(run_config),
    )
    compute = getattr(config, "_compute_target", None)
    if compute is None or isinstance(compute, str):
        compute = None
    target = run_config.target
    if not target and default_compute is not None:
        is_name = isinstance(default_compute, str)
        target = default_compute if is_name else default_compute.name
        compute = None if is_name else default_compute
    vm_size = run_config.amlcompute.vm_size
    if target == "amlcompute" and not vm_size:
        raise ExperimentExecutionException("a cluster made for the run needs a VM size: vm_size")
    return Submission(
        job=job,
        target=target or "local",
        compute=compute,
        definition=shown | {"target": target or "local"},
        warnings=tuple(warnings),
        vm_size=vm_size,
    )


def _refuse(config: Any) -> None:
    name = type(config).__name__
    if name in ("HyperDriveConfig", "HyperDriveRunConfig", "Pipeline", "AutoMLConfig"):
        raise not_emulated(f"submitting a {name}", later=name.startswith("HyperDrive"))
    raise UserErrorException(
        f"a {name} cannot be submitted; give an estimator or a ScriptRunConfig"
    )


# -- what is run ------------------------------------------------------------------------------
def _what_to_run(source: str, script: str | None, command: Any, arguments: Any) -> dict[str, Any]:
    """The part of a ``JobSpec`` that names the program."""
    if command:
        if script:
            raise ExperimentExecutionException(
                f"both a command and a script ({script}) are given; give one of them"
            )
        return {"command": _argv(command)}
    if not script:
        raise ExperimentExecutionException("no entry script is given")
    if script.lower().endswith(".ipynb"):
        raise TrainingException(
            f"{script} is a notebook, and azureml-contrib-notebook is not there to run it. "
            "Convert it: jupyter nbconvert --to script"
        )
    path = os.path.normpath(os.path.join(source, script))
    inside = os.path.relpath(path, source)
    if not os.path.isfile(path) or inside.split(os.sep)[0] == os.pardir:
        raise ExperimentExecutionException(
            f"{path} script path doesn't exist. The script should be inside the project folder "
            f"{source}"
        )
    texts = shlex.split(arguments) if isinstance(arguments, str) else map(str, arguments)
    return {"entry_script": inside, "arguments": tuple(texts)}


def _argv(command: Any) -> tuple[str, ...]:
    """The service joins a list and hands the line to a shell; so only shell words need one."""
    if isinstance(command, str):
        return ("bash", "-c", command)
    words = tuple(map(str, command))
    if _SHELL_WORDS.intersection(words):
        return ("bash", "-c", " ".join(words))
    return words


def _overridden(
    config: Any, arguments: Any, script_params: Mapping[Any, Any], warnings: list[str]
) -> list[Any]:
    """The arguments with those of ``submit(script_params=...)`` in place of the estimator's.

    The SDK no longer knows the dictionary by then: it reads the flat list back two by two, which
    garbles everything behind a bare flag. With the dictionary at hand we need not.
    """
    pairs = script_arguments.pair(arguments)
    original = getattr(config, "_script_params", None)
    if isinstance(original, Mapping) and script_arguments.flatten(original) == arguments:
        if script_arguments.flatten(pairs) != arguments or list(pairs) != list(original):
            warnings.append(
                "script_params hold a flag without a value or with several: Azure ML would pair "
                "them wrongly when some are overridden at the submission"
            )
        pairs = dict(original)
    elif script_arguments.flatten(pairs) != list(arguments):
        raise TrainingException(
            f"the arguments {list(arguments)} are no pairs of flag and value, so script_params "
            "cannot override them"
        )
    return script_arguments.flatten({**pairs, **script_params})


# -- data -------------------------------------------------------------------------------------
def _refuse_bare_datasets(arguments: Any) -> None:
    for item in () if isinstance(arguments, str) else arguments:
        if is_a(item, "AbstractDataset", "_Dataset"):
            raise UserErrorException(
                "a dataset cannot be an argument; call as_mount(), as_download() or "
                "as_named_input() on it and give the result"
            )


def _refuse_datasets(datasets: Mapping[str, Any], arguments: Any) -> None:
    in_arguments = [
        item.name
        for item in (() if isinstance(arguments, str) else arguments)
        if is_a(item, "DatasetConsumptionConfig", "OutputDatasetConfig")
    ]
    names = sorted({*datasets, *in_arguments})
    if names:
        raise not_emulated(
            f"datasets as inputs and outputs ({', '.join(names)})",
            remedy="give the script the path of a folder on this host",
            later=True,
        )


def _data_variables(references: Mapping[str, Any], datastores: Mapping[str, str]) -> dict[str, str]:
    """What ``$AZUREML_DATAREFERENCE_<name>`` in the arguments stands for on every node.

    The nodes share this host's files, so mounting and downloading come to the same path.
    """
    variables = {}
    for name, reference in references.items():
        store, mode = reference.data_store_name, reference.mode
        if store not in datastores or mode == "upload":
            raise not_emulated(
                f"the data reference {name!r} ({mode} of datastore {store!r})",
                remedy="give the script the path of a folder on this host",
                later=True,
            )
        root = os.path.abspath(datastores[store])
        path = os.path.normpath(os.path.join(root, reference.path_on_data_store or ""))
        if os.path.commonpath([root, path]) != root:
            raise UserErrorException(f"{path} is outside the datastore {store!r}")
        variables[f"AZUREML_DATAREFERENCE_{name}"] = path
    return variables


# -- limits -----------------------------------------------------------------------------------
def _limits(run_config: Any) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    seconds = run_config.max_run_duration_seconds
    if seconds is not None:
        if not seconds > 0:
            raise ExperimentExecutionException(
                f"max_run_duration_seconds should be above 0, not {seconds}"
            )
        limits["max_run_s"] = float(seconds)
    docker = run_config.docker
    size = (docker and docker.shm_size) or run_config.environment.docker.shm_size
    if size:
        try:
            limits["shm_size_bytes"] = parse_bytes(size)
        except SpecError as error:
            raise to_azure(error) from error
    return limits


# -- with what --------------------------------------------------------------------------------
def _environment(config: Any, warnings: list[str]) -> EnvironmentSpec:
    """The environment as the engine knows it: what the user named, the framework by its name."""
    environment = config.run_config.environment
    python, docker = environment.python, environment.docker
    if docker.base_dockerfile or docker.build_context:
        raise not_emulated("environments from a Dockerfile", later=True)
    image = docker.base_image
    ready = frameworks.of_framework_image(image)
    use_gpu = bool(image) and ("cuda" in image or "gpu" in image)
    common: dict[str, Any] = {
        "name": environment.name,
        "use_gpu": use_gpu or getattr(config, "_framework_processor", "cpu") == "gpu",
    }
    if image and not frameworks.is_service_image(image):  # the SDK's own choice is no wish
        common |= {"image": image, "registry": _registry(docker.base_image_registry)}
    if python.user_managed_dependencies and ready is None:
        path = python.interpreter_path
        inside = path if common.get("image") and path != _ANY_PYTHON else None
        return EnvironmentSpec(interpreter=_interpreter(path), image_python=inside, **common)
    conda = python.conda_dependencies or CondaDependencies(_underlying_structure={})
    pip = [line for line in _pip_lines(conda) if line.strip() != "azureml-defaults"]
    packages = [line for line in conda.conda_packages if package_name(line) != "python"]
    framework, version = ready[:2] if ready else _framework_in(pip, packages, config)
    if framework and version and ready is None:
        brought = {
            line
            for processor in ("cpu", "gpu")
            for line in frameworks.pins(framework, version, processor)
        }
        pip = [line for line in pip if line not in brought]
    wished = conda.get_python_version()
    return EnvironmentSpec(
        framework=framework,
        framework_version=version,
        pip=tuple(pip),
        conda=tuple(packages),
        python=None if wished in _NO_WISH else wished,
        **common,
    )


def _pip_lines(conda: Any) -> list[str]:
    """Options first; without those the SDK adds, which point at an index that is always used."""
    options = [line for line in conda.pip_options if _SDK_INDEX not in line]
    return [*options, *conda.pip_packages]


def _framework_in(
    pip: Sequence[str], conda: Sequence[str], config: Any
) -> tuple[str | None, str | None]:
    """Which framework's pins the packages hold; of a pin the user overrode the name is enough."""
    name = getattr(config, "FRAMEWORK_NAME", None)
    names = {package_name(line) for line in (*pip, *conda)}
    known = [(name.lower(), config.framework_version)] if name else frameworks.releases()
    for framework, version in known:
        for processor in ("cpu", "gpu"):
            pins = [p for p in frameworks.pins(framework, version, processor) if _matters(p)]
            exact = [pin for pin in pins if pin in pip]
            itself = [pin for pin in exact if frameworks.is_framework(framework, package_name(pin))]
            if all(package_name(pin) in names for pin in pins) and (exact if name else itself):
                return framework, version
    return None, None


def _matters(pin: str) -> bool:
    """Whether it says anything of the framework; the rest is there, or needed, in any case."""
    return package_name(pin) not in ("azureml-dataset-runtime", "cmake")


def _registry(given: Any) -> Registry | None:
    """Where the image comes from, where that is not the place its name says."""
    if given is None or not (given.address or given.username):
        return None
    identity = getattr(given, "registry_identity", None)
    if identity is not None and (identity.resource_id or identity.client_id):
        raise not_emulated(
            "managed identities of registries", remedy="give a user name and a password"
        )
    return Registry(address=given.address, username=given.username, password=given.password)


def _interpreter(path: str | None) -> str:
    """The Python a user-managed environment means; on this host the name ``python`` is ours."""
    if path and os.path.isabs(path) and os.access(path, os.X_OK):
        return path
    return sys.executable


# -- plain data -------------------------------------------------------------------------------
def _plain_list(arguments: Any) -> Any:
    if isinstance(arguments, str):
        return arguments
    simple = (str, int, float, bool)
    return [item if isinstance(item, simple) else str(item) for item in arguments]
