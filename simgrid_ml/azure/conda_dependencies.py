"""``CondaDependencies``: the Python side of an environment, as a conda specification.

It only holds and edits the specification; ``environments`` decides what is installed for it.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from simgrid_ml.azure.errors import UserErrorException, not_emulated

__all__ = ["PYTHON_DEFAULT_VERSION", "CondaDependencies", "package_name"]

PYTHON_DEFAULT_VERSION = "3.10.18"
CPU = "cpu"
GPU = "gpu"
TENSORFLOW_DEFAULT_VERSION = "2.2.0"

_KEYS = ("name", "channels", "dependencies", "prefix", "variables")
_PACKAGE_INDEX = "https://pypi.python.org/simple"
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?([ab]\d+)?\Z")
_NAME_END = re.compile(r"[\[=<>~!|]")


class CondaDependencies:
    """A conda specification; without a file, Azure ML's default one.

    >>> dependencies = CondaDependencies.create(pip_packages=["pillow==5.4.1"])
    >>> dependencies.add_conda_package("numpy")
    >>> list(dependencies.conda_packages), list(dependencies.pip_packages)
    (['python=3.10.18', 'numpy'], ['pillow==5.4.1'])
    """

    def __init__(
        self,
        conda_dependencies_file_path: str | None = None,
        _underlying_structure: dict[str, Any] | None = None,
    ) -> None:
        if conda_dependencies_file_path is not None:
            self._conda_dependencies = _read(os.path.normpath(conda_dependencies_file_path))
        elif _underlying_structure is not None:
            self._conda_dependencies = _underlying_structure
        else:
            self._conda_dependencies = {
                "name": "project_environment",
                "dependencies": ["python=3.8.13", {"pip": ["azureml-defaults"]}],
                "channels": ["anaconda", "conda-forge"],
            }
        _check(self._conda_dependencies)

    @staticmethod
    def create(
        pip_indexurl: str | None = None,
        pip_packages: Iterable[str] | None = None,
        conda_packages: Iterable[str] | None = None,
        python_version: str = PYTHON_DEFAULT_VERSION,
        pin_sdk_version: bool = True,
    ) -> CondaDependencies:
        """The default specification with these packages; ``pip_packages`` replaces its own.

        ``pin_sdk_version`` changes nothing: the SDK's own packages are not installed in a run,
        which gets the stand-in for them.
        """
        created = CondaDependencies()
        if pip_indexurl:
            created.set_pip_option(f"--find-links {pip_indexurl}")
            created.set_pip_option(f"--extra-index-url {_PACKAGE_INDEX}")
        created.set_python_version(python_version)
        if pip_packages is not None:
            for package in created.pip_packages:
                created.remove_pip_package(package)
            for package in pip_packages:
                created.add_pip_package(package)
        wanted = list(conda_packages or ())
        for package in wanted:
            created.remove_conda_package(package)
        for package in wanted:
            created.add_conda_package(package)
        return created

    @staticmethod
    def merge_requirements(requirements: Iterable[str]) -> list[str]:
        """One line per package, its version rules joined by commas.

        Blank lines, comments and options of pip are no packages and are not joined.

        >>> CondaDependencies.merge_requirements(["a>1", "b", "a<3"])
        ['a>1,<3', 'b']
        """
        rules: dict[str, list[str]] = {}
        for line in requirements:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            name = text if _is_option(text) else package_name(text)
            rules.setdefault(name, []).append(text[len(name) :].strip())
        return [name + ",".join(filter(None, parts)) for name, parts in rules.items()]

    @staticmethod
    def sdk_origin_url() -> str:
        return _PACKAGE_INDEX

    # -- channels ----------------------------------------------------------------------------
    @property
    def conda_channels(self) -> Iterator[str]:
        return iter(list(self._conda_dependencies.get("channels") or ()))

    def add_channel(self, channel: str) -> None:
        channels = self._conda_dependencies.setdefault("channels", [])
        if channel not in channels:
            channels.append(channel)

    def remove_channel(self, channel: str) -> None:
        channels = self._conda_dependencies.get("channels") or []
        if channel in channels:
            channels.remove(channel)

    # -- Python ------------------------------------------------------------------------------
    def get_python_version(self) -> str | None:
        """The version in the specification; None if it does not pin one."""
        for package in self.conda_packages:
            if package_name(package) == "python":
                match = _VERSION.search(package)
                return match.group() if match else None
        return None

    def set_python_version(self, version: str) -> None:
        packages = self._packages
        for index, package in enumerate(packages):
            if isinstance(package, str) and package_name(package) == "python":
                packages[index] = f"python={version}"
                return
        packages.append(f"python={version}")

    # -- conda -------------------------------------------------------------------------------
    @property
    def conda_packages(self) -> Iterator[str]:
        found = self._conda_dependencies.get("dependencies") or ()
        return iter([package for package in found if isinstance(package, str)])

    def add_conda_package(self, conda_package: str) -> None:
        packages = self._packages
        if conda_package in packages:
            return
        if package_name(conda_package) != "python":
            packages.append(conda_package)
            return
        match = _VERSION.search(conda_package)
        if match:  # a bare "python" asks for what is there already
            self.set_python_version(match.group())

    def remove_conda_package(self, conda_package: str) -> None:
        packages = self._packages
        if conda_package in packages:
            if package_name(conda_package) == "python":
                raise UserErrorException("python must stay in the conda dependencies")
            packages.remove(conda_package)

    # -- pip ---------------------------------------------------------------------------------
    @property
    def pip_packages(self) -> Iterator[str]:
        return iter([line for line in self._pip_lines() if not _is_option(line)])

    @property
    def pip_options(self) -> Iterator[str]:
        return iter([line for line in self._pip_lines() if _is_option(line)])

    def add_pip_package(self, pip_package: str) -> None:
        """Adds the package, in place of another requirement of the same name."""
        self.remove_pip_package(pip_package)
        self._pip_section().append(pip_package)

    def remove_pip_package(self, pip_package: str) -> None:
        if _is_option(pip_package):
            raise UserErrorException(f"{pip_package!r} is an option of pip, not a package")
        name = package_name(pip_package)
        lines = self._pip_lines()
        lines[:] = [line for line in lines if _is_option(line) or package_name(line) != name]

    def set_pip_option(self, pip_option: str) -> None:
        """Adds the option, in place of another value of the same one."""
        if not _is_option(pip_option):
            raise UserErrorException(f"{pip_option!r} is not an option of pip")
        name, lines = pip_option.split()[0], self._pip_section()
        for index, line in enumerate(lines):
            if _is_option(line) and line.split()[0] == name:
                lines[index] = pip_option
                return
        lines.append(pip_option)

    def remove_pip_option(self, pip_option: str) -> None:
        if not _is_option(pip_option):
            raise UserErrorException(f"{pip_option!r} is not an option of pip")
        name = pip_option.split()[0]
        lines = self._pip_lines()
        lines[:] = [line for line in lines if not _is_option(line) or line.split()[0] != name]

    def set_pip_index_url(self, index_url: str) -> None:
        self.set_pip_option(index_url)

    def set_pip_requirements(self, pip_requirements: Iterable[str]) -> None:
        """Replaces all pip packages and options."""
        self._pip_section()[:] = list(pip_requirements)

    # -- frameworks --------------------------------------------------------------------------
    def add_tensorflow_pip_package(self, core_type: str = CPU, version: str | None = None) -> None:
        name = _flavour("tensorflow", core_type)
        for package in self.pip_packages:
            if package.startswith("tensorflow"):
                self.remove_pip_package(package)
        self.add_pip_package(f"{name}=={version or TENSORFLOW_DEFAULT_VERSION}")

    def add_tensorflow_conda_package(
        self, core_type: str = CPU, version: str | None = None
    ) -> None:
        name = _flavour("tensorflow", core_type)
        for package in self.conda_packages:
            if package.startswith("tensorflow"):
                self.remove_conda_package(package)
        self.add_conda_package(f"{name}={version or TENSORFLOW_DEFAULT_VERSION}")

    def add_cntk_package(self, core_type: str = CPU) -> None:
        raise not_emulated("CNTK, which no maintained Python can run")

    # -- out ---------------------------------------------------------------------------------
    def get_default_number_of_packages(self) -> tuple[int, int]:
        """Conda and pip packages of the default specification."""
        default = CondaDependencies()
        return len(list(default.conda_packages)), len(list(default.pip_packages))

    def as_dict(self) -> dict[str, Any]:
        return copy.deepcopy(self._conda_dependencies)

    def serialize_to_string(self) -> str:
        import yaml

        text: str = yaml.safe_dump(self._conda_dependencies, sort_keys=False)
        return text

    def save(self, path: str | None = None) -> str:
        """Writes the specification to the file ``path``."""
        if path is None or os.path.isdir(path):
            raise UserErrorException("give the path of a file to save the conda specification to")
        folder = os.path.dirname(path)
        if folder and not os.path.isdir(folder):
            raise UserErrorException(f"there is no folder {folder} to save {path} in")
        if self.get_python_version() is None:
            raise UserErrorException("the conda specification names no version of python")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(self.serialize_to_string())
        return path

    def save_to_file(self, base_directory: str, conda_file_path: str | None = None) -> str:
        """Writes it under ``base_directory`` and returns the path inside that folder."""
        inside = conda_file_path or ".azureml/auto_conda_dependencies.yml"
        path = os.path.join(os.path.abspath(base_directory), inside)
        if conda_file_path is None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        self.save(path)
        return inside

    # -- inside ------------------------------------------------------------------------------
    @property
    def _packages(self) -> list[Any]:
        packages: list[Any] = self._conda_dependencies.setdefault("dependencies", [])
        return packages

    def _pip_lines(self) -> list[str]:
        """The list of the pip section itself; an empty one apart if there is none."""
        for package in self._conda_dependencies.get("dependencies") or ():
            if isinstance(package, dict) and "pip" in package:
                lines: list[str] = package["pip"]
                return lines
        return []

    def _pip_section(self) -> list[str]:
        lines = self._pip_lines()
        if not any(
            isinstance(package, dict) and package.get("pip") is lines for package in self._packages
        ):
            self._packages.append({"pip": lines})
        return lines

    def _merge(self, other: CondaDependencies) -> None:
        """Adds everything of ``other``, which wins where both name a package."""
        for channel in other.conda_channels:
            self.add_channel(channel)
        for package in other.conda_packages:
            self.add_conda_package(package)
        for package in other.pip_packages:
            self.add_pip_package(package)


def package_name(requirement: str) -> str:
    """The name without version rules and extras; of a wheel's path, that of the wheel.

    >>> package_name("pillow==5.4.1"), package_name("horovod[pytorch]>=0.2")
    ('pillow', 'horovod')
    """
    if requirement.endswith(".whl"):
        return requirement.rsplit("/", 1)[-1].split("-", 1)[0]
    return _NAME_END.split(requirement, maxsplit=1)[0]


def _is_option(line: str) -> bool:
    return line.startswith("-")


def _flavour(name: str, core_type: str) -> str:
    if core_type not in (CPU, GPU):
        raise UserErrorException(f"core type {core_type!r} is neither 'cpu' nor 'gpu'")
    return f"{name}-gpu" if core_type == GPU else name


def _read(path: str) -> dict[str, Any]:
    import yaml

    with open(path, encoding="utf-8") as stream:
        try:
            content = yaml.safe_load(stream)
        except yaml.YAMLError as error:
            raise UserErrorException(f"{path} is not valid YAML: {error}") from error
    return content  # type: ignore[no-any-return]  # _check refuses what is not a mapping


def _check(content: Any) -> None:
    if not isinstance(content, dict):
        raise UserErrorException("a conda specification is a YAML mapping")
    for key in content:
        if key not in _KEYS:
            raise UserErrorException(f"a conda specification has no key {key!r}")
