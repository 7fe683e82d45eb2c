"""``Environment``: what a run is executed with, as Azure ML describes it.

A description only. ``submission`` turns it into an ``EnvironmentSpec``; registered ones are JSON
files under the workspace folder.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import re
import tempfile
from typing import Any

from simgrid_ml.azure import frameworks
from simgrid_ml.azure.conda_dependencies import PYTHON_DEFAULT_VERSION, CondaDependencies
from simgrid_ml.azure.element import Element
from simgrid_ml.azure.errors import UserErrorException, not_emulated
from simgrid_ml.azure.frameworks import DEFAULT_CPU_IMAGE, DEFAULT_GPU_IMAGE

__all__ = [
    "DEFAULT_CPU_IMAGE",
    "DEFAULT_GPU_IMAGE",
    "ContainerRegistry",
    "DockerSection",
    "Environment",
    "PythonSection",
    "RegistryIdentity",
    "SparkSection",
]

_log = logging.getLogger("azureml.core.environment")
_DEFAULT_SHM_SIZE = "2g"
_CURATED = re.compile(r"AzureML-(PyTorch|TensorFlow|Chainer)-([\d.]+)-(CPU|GPU)\Z", re.IGNORECASE)


class RegistryIdentity(Element):
    """The managed identity a registry is opened with."""

    def __init__(self) -> None:
        self.resource_id: str | None = None
        self.client_id: str | None = None
        self._close()


class ContainerRegistry(Element):
    """Where an image comes from, and as whom it is fetched."""

    def __init__(self) -> None:
        self.address: str | None = None
        self.username: str | None = None
        self.password: str | None = None
        self.registry_identity: RegistryIdentity | None = None
        self._close()


class PythonSection(Element):
    """The interpreter and its packages, or ``user_managed_dependencies`` to take both as found."""

    def __init__(self, **kwargs: Any) -> None:
        self.interpreter_path = "python"
        self.user_managed_dependencies = False
        self.conda_dependencies: CondaDependencies | None = (
            None if kwargs.get("_skip_defaults") else CondaDependencies()
        )
        self._conda_dependencies_file: str | None = None
        self._base_conda_environment: str | None = None
        self._close()

    @property
    def conda_dependencies_file(self) -> str | None:
        return self._conda_dependencies_file

    @conda_dependencies_file.setter
    def conda_dependencies_file(self, value: str | None) -> None:
        _deprecated("conda_dependencies_file", "Environment.from_conda_specification")
        self._conda_dependencies_file = value or None


class SparkSection(Element):
    """Kept in the definition of a run; nothing here runs Spark."""

    def __init__(self, **kwargs: Any) -> None:
        self.repositories: list[str] = []
        self.packages: list[Any] = []
        self.precache_packages = True
        self._close()


class DockerSection(Element):
    """The image: one of ``base_image``, ``base_dockerfile``, ``build_context``."""

    def __init__(self, **kwargs: Any) -> None:
        bare = bool(kwargs.get("_skip_defaults"))
        self._enabled = False
        self._base_image: str | None = None if bare else DEFAULT_CPU_IMAGE
        self._base_dockerfile: str | None = None
        self._build_context: Any = None
        self._shared_volumes = True
        self._shm_size: str | None = None if bare else _DEFAULT_SHM_SIZE
        self._arguments: list[str] = []
        self.base_image_registry = ContainerRegistry()
        self._close()

    @property
    def base_image(self) -> str | None:
        return self._base_image

    @base_image.setter
    def base_image(self, value: str | None) -> None:
        self._choose("base_image", value)

    @property
    def base_dockerfile(self) -> str | None:
        return self._base_dockerfile

    @base_dockerfile.setter
    def base_dockerfile(self, value: Any) -> None:
        if hasattr(value, "read"):
            value = value.read()
        elif value and os.path.isfile(value):
            with open(value, encoding="utf-8") as stream:
                value = stream.read()
        self._choose("base_dockerfile", value)

    @property
    def build_context(self) -> Any:
        return self._build_context

    @build_context.setter
    def build_context(self, value: Any) -> None:
        self._choose("build_context", value)

    def _choose(self, chosen: str, value: Any) -> None:
        setattr(self, f"_{chosen}", value or None)
        if not value:
            return
        for other in ("base_image", "base_dockerfile", "build_context"):
            if other != chosen and getattr(self, other):
                setattr(self, f"_{other}", None)
                _log.warning("%s is dropped, since %s is set", other, chosen)

    @property
    def enabled(self) -> bool:
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        _deprecated("enabled", "DockerConfiguration(use_docker=...)")
        self._enabled = value

    @property
    def shared_volumes(self) -> bool:
        return self._shared_volumes

    @shared_volumes.setter
    def shared_volumes(self, value: bool) -> None:
        _deprecated("shared_volumes", "DockerConfiguration")
        self._shared_volumes = value

    @property
    def arguments(self) -> list[str]:
        return self._arguments

    @arguments.setter
    def arguments(self, value: list[str]) -> None:
        _deprecated("arguments", "DockerConfiguration")
        self._arguments = value

    @property
    def shm_size(self) -> str | None:
        return self._shm_size

    @shm_size.setter
    def shm_size(self, value: str | None) -> None:
        _deprecated("shm_size", "DockerConfiguration")
        self._shm_size = value

    @property
    def gpu_support(self) -> bool:
        _log.warning("'gpu_support' has no effect: GPUs are found where there are any")
        return True

    @gpu_support.setter
    def gpu_support(self, value: bool) -> None:
        _log.warning("'gpu_support' has no effect: GPUs are found where there are any")


class Environment(Element):
    """A named environment; without more said, Azure ML's default one.

    Args:
        name: for people and for ``register``.
    """

    def __init__(self, name: str | None, **kwargs: Any) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of an environment is a str, not {type(name).__name__}")
        self.name = name
        self.version: str | None = None
        self.python = PythonSection(**kwargs)
        self.docker = DockerSection(**kwargs)
        self.spark = SparkSection(**kwargs)
        self._environment_variables: dict[str, str] = (
            {} if kwargs.get("_skip_defaults") else {"EXAMPLE_ENV_VAR": "EXAMPLE_VALUE"}
        )
        self.inferencing_stack_version: str | None = None
        self.r: Any = None
        self.asset_id: str | None = None
        self._close()

    @property
    def environment_variables(self) -> dict[str, str]:
        return self._environment_variables

    @environment_variables.setter
    def environment_variables(self, value: dict[str, str]) -> None:
        _deprecated("environment_variables", "RunConfiguration.environment_variables")
        self._environment_variables = value

    def __str__(self) -> str:
        return f"Environment(Name: {self.name},\nVersion: {self.version})"

    def __repr__(self) -> str:
        return json.dumps(self._plain(), indent=4, sort_keys=True, default=str)

    def _plain(self) -> dict[str, Any]:
        from simgrid_ml.azure.runconfig import environment_definition

        return environment_definition(self)

    # -- made from something -----------------------------------------------------------------
    @staticmethod
    def from_conda_specification(name: str, file_path: str) -> Environment:
        environment = Environment(name)
        dependencies = CondaDependencies(conda_dependencies_file_path=file_path)
        if dependencies.get_python_version() is None:
            _log.warning("No Python version provided, defaulting to %s", PYTHON_DEFAULT_VERSION)
            dependencies.set_python_version(PYTHON_DEFAULT_VERSION)
        environment.python.conda_dependencies = dependencies
        return environment

    @staticmethod
    def from_pip_requirements(
        name: str, file_path: str, pip_version: str | None = None
    ) -> Environment:
        environment = Environment(name)
        with open(file_path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
        dependencies = CondaDependencies()
        dependencies.set_pip_requirements(lines)
        dependencies.add_conda_package(f"pip={pip_version}" if pip_version else "pip")
        environment.python.conda_dependencies = dependencies
        return environment

    @staticmethod
    def from_docker_image(
        name: str,
        image: str,
        container_registry: ContainerRegistry | None = None,
        conda_specification: str | None = None,
        pip_requirements: str | None = None,
    ) -> Environment:
        environment = _with_packages(name, conda_specification, pip_requirements)
        environment.docker.base_image = image
        if container_registry is not None:
            environment.docker.base_image_registry = container_registry
        return environment

    @staticmethod
    def from_dockerfile(
        name: str,
        dockerfile: str,
        conda_specification: str | None = None,
        pip_requirements: str | None = None,
    ) -> Environment:
        environment = _with_packages(name, conda_specification, pip_requirements)
        environment.docker.base_image = None
        environment.docker.base_dockerfile = dockerfile
        return environment

    @staticmethod
    def from_existing_conda_environment(
        name: str, conda_environment_name: str
    ) -> Environment | None:
        raise not_emulated(
            "environments of a conda installation",
            remedy="export it to a file and use Environment.from_conda_specification",
        )

    @staticmethod
    def from_docker_build_context(name: str, docker_build_context: Any) -> Environment:
        raise not_emulated("Docker build contexts", later=True)

    def clone(self, new_name: str) -> Environment:
        if not new_name:
            raise UserErrorException("a clone of an environment needs a name")
        twin = copy.deepcopy(self)
        twin.name = new_name
        twin.version = None
        twin.asset_id = None
        return twin

    # -- kept in the workspace ---------------------------------------------------------------
    def register(self, workspace: Any) -> Environment:
        """Stores the environment as the next version of its name and returns it with that."""
        registered = copy.deepcopy(self)
        folder = os.path.join(_folder(workspace), _file_name(self.name))
        os.makedirs(folder, exist_ok=True)
        while True:
            registered.version = self.version or str(max(_versions(folder), default=0) + 1)
            path = os.path.join(folder, f"{_file_name(registered.version)}.json")
            handle, scratch = tempfile.mkstemp(dir=folder, suffix=".tmp")
            try:
                with open(handle, "w", encoding="utf-8") as stream:
                    json.dump(registered._plain(), stream, indent=1, default=str)
                if self.version:
                    os.replace(scratch, path)
                else:
                    os.link(scratch, path)  # of two that register at once, one gets the next
                return registered
            except FileExistsError:
                continue
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(scratch)

    @staticmethod
    def get(
        workspace: Any, name: str, version: str | None = None, label: str | None = None
    ) -> Environment:
        """A registered environment, else a curated one, as ``AzureML-TensorFlow-2.3-CPU``."""
        if label and version:
            raise UserErrorException("give a version or a label of the environment, not both")
        folder = os.path.join(_folder(workspace), _file_name(name))
        known = _versions(folder)
        if version is None and known:
            version = str(max(known))
        path = os.path.join(folder, f"{version}.json")
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as stream:
                return _from_plain(json.load(stream))
        curated = _CURATED.match(name)
        if curated and not known:
            return _curated(name, *curated.groups())
        raise UserErrorException(f"no environment {name!r} (version {version}) is registered")

    @staticmethod
    def list(workspace: Any) -> dict[str, Environment]:
        folder = _folder(workspace)
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        return {name: Environment.get(workspace, name) for name in names}

    @staticmethod
    def label(workspace: Any, name: str, version: str, labels: Any) -> None:
        raise not_emulated("labels of environments", later=True)

    # -- elsewhere ---------------------------------------------------------------------------
    @staticmethod
    def add_private_pip_wheel(workspace: Any, file_path: str, exist_ok: bool = False) -> str:
        """The wheel's own address: everything runs on this host."""
        if not os.path.isfile(file_path):
            raise UserErrorException(f"there is no wheel at {file_path}")
        return "file://" + os.path.abspath(file_path)

    def get_image_details(self, workspace: Any) -> Any:
        raise not_emulated("details of images", later=True)

    def build(self, workspace: Any, image_build_compute: Any = None) -> Any:
        raise not_emulated("Environment.build", remedy="use `simgrid-ml env build`")

    def build_local(self, workspace: Any, platform: str | None = None, **kwargs: Any) -> Any:
        raise not_emulated("Environment.build_local", remedy="use `simgrid-ml env build`")

    def save_to_directory(self, path: str, overwrite: bool = False) -> None:
        os.makedirs(path, exist_ok=overwrite)
        with open(os.path.join(path, _DEFINITION), "w", encoding="utf-8") as stream:
            json.dump(self._plain(), stream, indent=4, default=str)

    @staticmethod
    def load_from_directory(path: str) -> Environment:
        with open(os.path.join(path, _DEFINITION), encoding="utf-8") as stream:
            return _from_plain(json.load(stream))


_DEFINITION = "azureml_environment.json"


def _deprecated(name: str, instead: str) -> None:
    _log.warning("%r is deprecated. Please use %s", name, instead)


def _with_packages(name: str, conda: str | None, pip: str | None) -> Environment:
    if conda and pip:
        raise UserErrorException("give a conda specification or pip requirements, not both")
    if conda:
        return Environment.from_conda_specification(name, conda)
    if pip:
        return Environment.from_pip_requirements(name, pip)
    environment = Environment(name)
    environment.python.user_managed_dependencies = True
    return environment


def _curated(name: str, framework: str, version: str, processor: str) -> Environment:
    if version not in frameworks.versions(framework):
        raise UserErrorException(
            f"no curated environment {name!r}; there are those of {framework} "
            + ", ".join(frameworks.versions(framework))
        )
    environment = Environment(name)
    environment.version = "1"
    environment.docker.base_image = frameworks.base_image(framework, version, processor.lower())
    dependencies = environment.python.conda_dependencies
    assert dependencies is not None
    dependencies._merge(frameworks.dependencies(framework, version, processor.lower()))
    return environment


def _folder(workspace: Any) -> str:
    store = getattr(workspace, "_store", None)
    if store is None:
        raise not_emulated(f"environments of a {type(workspace).__name__}")
    folder: str = store.folder("environments")
    return folder


def _file_name(name: str | None) -> str:
    if not name or not re.fullmatch(r"[\w\-.]{1,200}", name) or name.startswith("."):
        raise UserErrorException(f"{name!r} cannot name an environment")
    return name


def _versions(folder: str) -> list[int]:
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return []
    stems = [name[:-5] for name in found if name.endswith(".json")]
    return [int(stem) for stem in stems if stem.isdigit()]


def _from_plain(content: dict[str, Any]) -> Environment:
    """The environment of its definition, as ``_plain`` wrote it."""
    environment = Environment(content["name"], _skip_defaults=True)
    environment.version = content["version"]
    environment._environment_variables = content["environmentVariables"]
    python, docker = content["python"], content["docker"]
    environment.python.interpreter_path = python["interpreterPath"]
    environment.python.user_managed_dependencies = python["userManagedDependencies"]
    if python["condaDependencies"] is not None:
        environment.python.conda_dependencies = CondaDependencies(
            _underlying_structure=python["condaDependencies"]
        )
    section = environment.docker
    section._enabled = docker["enabled"]
    section._base_image = docker["baseImage"]
    section._base_dockerfile = docker["baseDockerfile"]
    section._shared_volumes = docker["sharedVolumes"]
    section._shm_size = docker["shmSize"]
    section._arguments = docker["arguments"]
    section.base_image_registry.address = docker["baseImageRegistry"]["address"]
    section.base_image_registry.username = docker["baseImageRegistry"]["username"]
    return environment
