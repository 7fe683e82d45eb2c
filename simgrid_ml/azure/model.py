"""``Model``: registered files with a name and a version, over ``record.assets``."""

from __future__ import annotations

import os
import re
import shutil
from datetime import datetime, timezone
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from simgrid_ml import wire
from simgrid_ml.azure.coverage import Gaps, missing_member
from simgrid_ml.azure.errors import (
    ModelNotFoundException,
    UserErrorException,
    WebserviceException,
)
from simgrid_ml.errors import NotFoundError
from simgrid_ml.record.assets import Asset, AssetStore
from simgrid_ml.record.run import RunRecord

__all__ = ["Model", "check_model_name"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-._]{0,254}\Z")
_SERVED_FROM = "azureml-models"


def check_model_name(name: str) -> None:
    """
    Raises:
        WebserviceException: the name breaks the service's rule.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise WebserviceException(
            f"{name!r} cannot name a model: use up to 255 letters, digits, '-', '.' and '_', "
            "first a letter or digit"
        )


class Model(metaclass=Gaps):
    """A registered model, found by name (the newest version) or by id ``name:version``.

    Raises:
        UserErrorException: neither a name nor an id is given.
        WebserviceException: there is no such model; its text begins with ``ModelNotFound``.
    """

    class Framework:
        """Names for ``model_framework``."""

        CUSTOM = "Custom"
        TENSORFLOW = "TensorFlow"
        SCIKITLEARN = "ScikitLearn"
        ONNX = "Onnx"
        PYTORCH = "PyTorch"
        KERAS = "Keras"
        MULTI = "Multi"

    def __init__(
        self,
        workspace: Any,
        name: Optional[str] = None,
        id: Optional[str] = None,
        tags: Optional[Sequence[Any]] = None,
        properties: Optional[Sequence[Any]] = None,
        version: Optional[int] = None,
        run_id: Optional[str] = None,
        model_framework: Optional[str] = None,
        expand: bool = True,
        **kwargs: Any,
    ) -> None:
        self.workspace = workspace
        asset: Optional[Asset] = kwargs.pop("_asset", None)
        if asset is None:
            if not name and not id:
                raise UserErrorException("give the name or the id of the model")
            wanted = name or str(id).rpartition(":")[0]
            number = version if version is not None else _version_of(id)
            candidates = [
                model
                for model in Model.list(workspace, wanted, tags, properties, run_id)
                if number in (None, model.version)
                and model_framework in (None, model.model_framework)
            ]
            if not candidates:
                raise WebserviceException(
                    f"ModelNotFound: Model with name {wanted} not found in provided workspace"
                )
            asset = candidates[0]._asset
        self._asset: Asset = asset

    @classmethod
    def _put(
        cls, workspace: Any, name: str, files: Sequence[Tuple[str, str]], **about: Any
    ) -> Model:
        about["tags"] = {str(k): str(v) for k, v in (about.get("tags") or {}).items()}
        about["properties"] = {str(k): str(v) for k, v in (about.get("properties") or {}).items()}
        asset = AssetStore(workspace._store).put(name, files, about)
        return cls(workspace, _asset=asset)

    # -- finding and making ----------------------------------------------------------------
    @staticmethod
    def register(
        workspace: Any,
        model_path: str,
        model_name: str,
        tags: Optional[Mapping[str, Any]] = None,
        properties: Optional[Mapping[str, Any]] = None,
        description: Optional[str] = None,
        datasets: Any = None,
        model_framework: Optional[str] = None,
        model_framework_version: Optional[str] = None,
        child_paths: Optional[Sequence[str]] = None,
        sample_input_dataset: Any = None,
        sample_output_dataset: Any = None,
        resource_configuration: Any = None,
    ) -> Model:
        """Make the next version of a model from a file or folder of this host.

        Raises:
            WebserviceException: the name breaks the rule, or there is nothing at the path.
        """
        check_model_name(model_name)
        path = os.path.abspath(model_path)
        if not os.path.exists(path):
            raise WebserviceException(f"Error, provided model path {model_path} not found")
        files = [
            (relative, os.path.join(os.path.dirname(path), *relative.split("/")))
            for relative in _below(path)
            if child_paths is None or relative.partition("/")[2] in child_paths
        ]
        return Model._put(
            workspace,
            model_name,
            files,
            tags=tags,
            properties=properties,
            description=description,
            model_framework=model_framework,
            model_framework_version=model_framework_version,
        )

    @staticmethod
    def list(
        workspace: Any,
        name: Optional[str] = None,
        tags: Optional[Sequence[Any]] = None,
        properties: Optional[Sequence[Any]] = None,
        run_id: Optional[str] = None,
        latest: bool = False,
        dataset_id: Optional[str] = None,
        expand: bool = True,
        page_count: int = 255,
        model_framework: Optional[str] = None,
    ) -> List[Model]:
        """Models that have all that is asked for, the newest version of each name first.

        Args:
            workspace: of the models.
            name, run_id, model_framework: only of these.
            tags, properties: keys, or ``[key, value]`` pairs, that they must have.
            latest: only the newest version of each name.
        """
        found: Dict[str, List[Model]] = {}
        for asset in AssetStore(workspace._store).list():
            model = Model(workspace, _asset=asset)
            if (
                name in (None, model.name)
                and run_id in (None, model.run_id)
                and model_framework in (None, model.model_framework)
                and _has_all(model.tags, tags)
                and _has_all(model.properties, properties)
            ):
                found.setdefault(model.name, []).insert(0, model)
        return [model for models in found.values() for model in models[: 1 if latest else None]]

    @staticmethod
    def get_model_path(
        model_name: str, version: Optional[int] = None, _workspace: Any = None
    ) -> str:
        """Where the files of a model are: in a run's script, in a driver with a workspace, or
        below ``azureml-models`` of the current folder.

        Raises:
            ModelNotFoundException: nowhere.
        """
        workspace = _workspace
        if workspace is None and os.environ.get(wire.RUN_DIR_VARIABLE):
            from simgrid_ml.azure.workspace import Workspace

            workspace = Workspace._of_run(RunRecord(os.environ[wire.RUN_DIR_VARIABLE]))
        if workspace is not None:
            try:
                return _only_file(AssetStore(workspace._store).get(model_name, version).path)
            except NotFoundError as error:
                raise ModelNotFoundException(str(error), inner_exception=error) from error
        folder = os.path.join(_SERVED_FROM, model_name)
        numbers = [int(n) for n in _listed(folder) if n.isdecimal()]
        wanted = version if version is not None else max(numbers, default=None)
        if wanted is None or wanted not in numbers:
            raise ModelNotFoundException(
                f"Model {model_name} not found in cache at {_SERVED_FROM} or in current working "
                f"directory {os.getcwd()}"
            )
        return _only_file(os.path.join(folder, str(wanted)))

    # -- what it is ------------------------------------------------------------------------
    @property
    def name(self) -> str:
        return self._asset.name

    @property
    def version(self) -> int:
        return self._asset.version

    @property
    def id(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def tags(self) -> Dict[str, str]:
        return dict(self._asset.about.get("tags") or {})

    @property
    def properties(self) -> Dict[str, str]:
        return dict(self._asset.about.get("properties") or {})

    @property
    def description(self) -> Optional[str]:
        found: Optional[str] = self._asset.about.get("description")
        return found

    @property
    def run_id(self) -> Optional[str]:
        found: Optional[str] = self._asset.about.get("run_id")
        return found

    @property
    def experiment_name(self) -> Optional[str]:
        found: Optional[str] = self._asset.about.get("experiment_name")
        return found

    @property
    def run(self) -> Any:
        """The run it was registered from; None if it was not, or the run is gone."""
        from simgrid_ml.azure.run import Run

        try:
            return Run.get(self.workspace, self.run_id) if self.run_id else None
        except UserErrorException:
            return None

    @property
    def model_framework(self) -> Optional[str]:
        found: Optional[str] = self._asset.about.get("model_framework")
        return found

    @property
    def model_framework_version(self) -> Optional[str]:
        found: Optional[str] = self._asset.about.get("model_framework_version")
        return found

    @property
    def created_time(self) -> datetime:
        return datetime.fromtimestamp(self._asset.about["created"], timezone.utc)

    @property
    def url(self) -> str:
        return f"aml://asset/{self.id}"

    def serialize(self) -> Dict[str, Any]:
        """The service's description of the model."""
        return {
            "createdTime": self.created_time.isoformat(),
            "description": self.description,
            "experimentName": self.experiment_name,
            "framework": self.model_framework,
            "frameworkVersion": self.model_framework_version,
            "id": self.id,
            "name": self.name,
            "properties": self.properties,
            "runId": self.run_id,
            "tags": self.tags,
            "url": self.url,
            "version": self.version,
        }

    # -- what it does ----------------------------------------------------------------------
    def download(
        self, target_dir: str = ".", exist_ok: bool = False, exists_ok: Optional[bool] = None
    ) -> str:
        """Copy the files below ``target_dir``; returns the path of the file or folder.

        Raises:
            WebserviceException: something of that name is there, and ``exist_ok`` is False.
        """
        may_exist = exist_ok if exists_ok is None else exists_ok
        names = self._asset.about["files"]
        for name in names:
            target = os.path.join(target_dir, *name.split("/"))
            if os.path.exists(target) and not may_exist:
                raise WebserviceException(
                    f"Local path {target} already exists; use exist_ok=True to overwrite it"
                )
        for name in names:
            target = os.path.join(target_dir, *name.split("/"))
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            shutil.copyfile(os.path.join(self._asset.path, *name.split("/")), target)
        tops = sorted({name.partition("/")[0] for name in names})
        return os.path.join(target_dir, tops[0]) if len(tops) == 1 else target_dir

    def delete(self) -> None:
        AssetStore(self.workspace._store).delete(self._asset)

    def update(
        self,
        tags: Optional[Mapping[str, Any]] = None,
        description: Optional[str] = None,
        sample_input_dataset: Any = None,
        sample_output_dataset: Any = None,
        resource_configuration: Any = None,
    ) -> None:
        """Replace the tags, the description, or both."""
        changes: Dict[str, Any] = {}
        if tags is not None:
            changes["tags"] = {str(key): str(value) for key, value in tags.items()}
        if description is not None:
            changes["description"] = description
        self._amend(changes)

    def add_tags(self, tags: Mapping[str, Any]) -> None:
        self.update(tags={**self.tags, **tags})

    def remove_tags(self, tags: Sequence[str]) -> None:
        gone = [tags] if isinstance(tags, str) else tags
        self.update(tags={key: value for key, value in self.tags.items() if key not in gone})

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        """Add properties; they are written once.

        Raises:
            UserErrorException: one exists.
        """
        taken = sorted(set(properties) & set(self.properties))
        if taken:
            raise UserErrorException(f"properties exist and cannot be changed: {taken}")
        new = {str(key): str(value) for key, value in properties.items()}
        self._amend({"properties": {**self.properties, **new}})

    def update_tags_properties(
        self,
        add_tags: Optional[Mapping[str, Any]] = None,
        remove_tags: Optional[Sequence[str]] = None,
        add_properties: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self.add_tags(add_tags or {})
        self.remove_tags(remove_tags or [])
        self.add_properties(add_properties or {})

    def _amend(self, changes: Mapping[str, Any]) -> None:
        self._asset = AssetStore(self.workspace._store).amend(self._asset, **changes)

    def __getattr__(self, name: str) -> Any:
        return missing_member(self, name)

    # -- text ------------------------------------------------------------------------------
    def __repr__(self) -> str:
        return (
            f"Model(workspace={self.workspace!r}, name={self.name}, id={self.id}, "
            f"version={self.version}, tags={self.tags}, properties={self.properties})"
        )


def _version_of(id: Optional[str]) -> Optional[int]:
    if id is None:
        return None
    _, _, number = id.rpartition(":")
    if not number.isdecimal():
        raise UserErrorException(f"{id!r} is no model id; it has the form name:version")
    return int(number)


def _has_all(values: Mapping[str, str], wanted: Optional[Sequence[Any]]) -> bool:
    for item in wanted or ():
        key, value = (item, None) if isinstance(item, str) else (item[0], item[1])
        if key not in values or value not in (None, values[key]):
            return False
    return True


def _below(path: str) -> Iterator[str]:
    """Names of the file ``path``, or of all files below it, beginning with its last part."""
    top = os.path.basename(os.path.abspath(path))
    if os.path.isfile(path):
        yield top
        return
    for base, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(files):
            relative = os.path.relpath(os.path.join(base, file), path)
            yield f"{top}/{relative}".replace(os.sep, "/")


def _listed(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _only_file(folder: str) -> str:
    """The one thing in the folder, else the folder."""
    names = _listed(folder)
    return os.path.join(folder, names[0]) if len(names) == 1 else folder
