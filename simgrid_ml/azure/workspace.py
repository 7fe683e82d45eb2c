"""``Workspace``: a name, and the folder that keeps its runs, clusters and models.

A workspace exists once it is named: there is no service that could refuse it, and a script made
for one in the cloud should run here as it is.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from simgrid_ml import wire
from simgrid_ml.azure.coverage import Gaps, missing_member
from simgrid_ml.azure.errors import UserErrorException, WorkspaceException
from simgrid_ml.record.ids import guid
from simgrid_ml.record.journal import read_json, write_json
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import WORKSPACE, RunStore, state_home

__all__ = ["LOCAL", "PORTAL", "Workspace"]

PORTAL = "http://localhost:8787"
LOCAL = "local"
_NOBODY = "00000000-0000-0000-0000-000000000000"
_RESOURCE_GROUP = "simgrid-ml"
_LOCATION = "local"
_DOCUMENT = "workspace.json"
_CONFIG_NAMES = ("config.json", "project.json")
_CONFIG_FOLDERS = (".azureml", "aml_config", "")
_log = logging.getLogger("azureml.core.workspace")


class Workspace(metaclass=Gaps):
    """The workspace ``workspace_name``.

    Args:
        subscription_id, resource_group: kept and shown; any text will do.
        workspace_name: 3 to 33 letters, digits, ``-`` and ``_``, first a letter or digit.

    Raises:
        UserErrorException: the name breaks the rule.
    """

    DEFAULT_CPU_CLUSTER_NAME = "cpu-cluster"
    DEFAULT_GPU_CLUSTER_NAME = "gpu-cluster"

    def __init__(
        self,
        subscription_id: Optional[str],
        resource_group: Optional[str],
        workspace_name: str,
        auth: Any = None,
        _location: Optional[str] = None,
        _disable_service_check: bool = False,
        _workspace_id: Optional[str] = None,
        sku: str = "basic",
        tags: Optional[Mapping[str, str]] = None,
        _cloud: str = "AzureCloud",
    ) -> None:
        if not WORKSPACE.match(workspace_name or ""):
            raise UserErrorException(
                f"{workspace_name!r} cannot name a workspace: use 3 to 33 letters, digits, "
                "'-' and '_', first a letter or digit"
            )
        about = {
            "subscription_id": subscription_id,
            "resource_group": resource_group,
            "location": _location,
            "sku": sku,
            "tags": dict(tags or {}),
        }
        self._set(RunStore.of_workspace(workspace_name), workspace_name, about)

    def _set(self, store: RunStore, name: str, about: Mapping[str, Any]) -> None:
        self._store = store
        self._name = name
        self._about: Dict[str, Any] = {
            "subscription_id": about.get("subscription_id") or _NOBODY,
            "resource_group": about.get("resource_group") or _RESOURCE_GROUP,
            "location": about.get("location") or _LOCATION,
            "sku": about.get("sku") or "basic",
            "tags": about.get("tags") or {},
        }

    # -- finding and making workspaces -----------------------------------------------------
    @classmethod
    def local(cls) -> Workspace:
        """The workspace that needs no configuration."""
        return cls(None, None, LOCAL)

    @staticmethod
    def from_config(
        path: Optional[str] = None,
        auth: Any = None,
        _logger: Any = None,
        _file_name: Optional[str] = None,
    ) -> Workspace:
        """The workspace a ``config.json`` names.

        It is looked for in ``.azureml``, in ``aml_config`` and beside them, in the current
        folder (or ``path``) and upwards. Where there is none, the local workspace is meant;
        with ``SIMGRID_ML_STRICT_CONFIG=1`` that is an error, as in the cloud.

        Raises:
            UserErrorException: the file is missing where it must not be, or is incomplete.
        """
        start = os.path.abspath(path or os.getcwd())
        found = _find_config(start, _file_name)
        if found is None:
            if path is not None or os.environ.get(wire.STRICT_CONFIG_VARIABLE):
                raise UserErrorException(
                    f"We could not find config.json in: {start} or in its parent directories. "
                    "Please provide the full path to the config file or ensure that config.json "
                    "exists in the parent directories."
                )
            _log.warning("no config.json in %s or above: using the local workspace", start)
            return Workspace.local()
        try:
            with open(found, encoding="utf-8") as stream:
                config = dict(json.load(stream))
            names = _from_scope(config) or [
                config[key] for key in ("subscription_id", "resource_group", "workspace_name")
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise UserErrorException(
                f"The config file {found} must hold subscription_id, resource_group and "
                f"workspace_name ({error})"
            ) from error
        _log.info("Found the config file in: %s", found)
        return Workspace(names[0], names[1], names[2])

    @staticmethod
    def get(
        name: str,
        auth: Any = None,
        subscription_id: Optional[str] = None,
        resource_group: Optional[str] = None,
        location: Optional[str] = None,
        cloud: str = "AzureCloud",
        id: Optional[str] = None,
    ) -> Workspace:
        """The workspace ``name``."""
        known = read_json(RunStore.of_workspace(name).folder(_DOCUMENT), {}) if name else {}
        return Workspace(
            subscription_id or known.get("subscription_id"),
            resource_group or known.get("resource_group"),
            name,
            _location=location or known.get("location"),
            sku=known.get("sku", "basic"),
            tags=known.get("tags"),
        )

    @staticmethod
    def create(
        name: str,
        auth: Any = None,
        subscription_id: Optional[str] = None,
        resource_group: Optional[str] = None,
        location: Optional[str] = None,
        create_resource_group: bool = True,
        sku: str = "basic",
        tags: Optional[Mapping[str, str]] = None,
        friendly_name: Optional[str] = None,
        storage_account: Any = None,
        key_vault: Any = None,
        app_insights: Any = None,
        container_registry: Any = None,
        adb_workspace: Any = None,
        primary_user_assigned_identity: Any = None,
        cmk_keyvault: Any = None,
        resource_cmk_uri: Any = None,
        hbi_workspace: bool = False,
        default_cpu_compute_target: Any = None,
        default_gpu_compute_target: Any = None,
        private_endpoint_config: Any = None,
        private_endpoint_auto_approval: bool = True,
        exist_ok: bool = False,
        show_output: bool = True,
        user_assigned_identity_for_cmk_encryption: Any = None,
        system_datastores_auth_mode: str = "accessKey",
        v1_legacy_mode: Any = None,
    ) -> Workspace:
        """Make the workspace ``name``; what belongs to the cloud's resources is accepted.

        Raises:
            WorkspaceException: it exists, and ``exist_ok`` is False.
        """
        workspace = Workspace(
            subscription_id, resource_group, name, _location=location, sku=sku, tags=tags
        )
        document = workspace._store.folder(_DOCUMENT)
        if os.path.exists(document) and not exist_ok:
            raise WorkspaceException(
                f"Workspace with name '{name}' already exists; use Workspace.get, or exist_ok=True"
            )
        os.makedirs(workspace._store.root, exist_ok=True)
        write_json(document, workspace._about)
        return workspace

    @staticmethod
    def list(
        subscription_id: str, auth: Any = None, resource_group: Optional[str] = None
    ) -> Dict[str, List[Workspace]]:
        """The workspaces on this host, by name."""
        try:
            names = sorted(os.listdir(os.path.join(state_home(), "workspaces")))
        except FileNotFoundError:
            return {}
        return {name: [Workspace.get(name)] for name in names if WORKSPACE.match(name)}

    @staticmethod
    def setup() -> Workspace:
        """As ``from_config``: there is nothing to ask for."""
        return Workspace.from_config()

    @classmethod
    def _of_run(cls, record: RunRecord) -> Workspace:
        """The workspace whose folder the run is in, also where ``$SIMGRID_ML_HOME`` is not set."""
        root = os.path.dirname(os.path.dirname(record.path))
        workspace = cls.__new__(cls)
        about = record.spec().get("workspace") or {}
        workspace._set(RunStore(root), os.path.basename(root), about)
        return workspace

    def write_config(self, path: Optional[str] = None, file_name: Optional[str] = None) -> None:
        """Write ``.azureml/config.json`` below ``path`` or the current folder."""
        folder = os.path.join(path or os.getcwd(), ".azureml")
        os.makedirs(folder, exist_ok=True)
        name = file_name or _CONFIG_NAMES[0]
        write_json(
            os.path.join(folder, name if name.endswith(".json") else name + ".json"),
            {
                "subscription_id": self.subscription_id,
                "resource_group": self.resource_group,
                "workspace_name": self.name,
            },
        )

    # -- what it is ------------------------------------------------------------------------
    @property
    def name(self) -> str:
        return self._name

    @property
    def subscription_id(self) -> str:
        return str(self._about["subscription_id"])

    @property
    def resource_group(self) -> str:
        return str(self._about["resource_group"])

    @property
    def location(self) -> str:
        return str(self._about["location"])

    @property
    def sku(self) -> str:
        return str(self._about["sku"])

    @property
    def tags(self) -> Dict[str, str]:
        return dict(self._about["tags"])

    @property
    def discovery_url(self) -> str:
        return f"{PORTAL}/discovery"

    def get_details(self) -> Dict[str, Any]:
        """The service's description of the workspace, as far as there is something to say."""
        return {
            "id": self._arm_id,
            "name": self.name,
            "location": self.location,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "tags": self.tags,
            "sku": self.sku,
            "friendlyName": self.name,
            "workspaceid": guid(self.name),
            "discoveryUrl": self.discovery_url,
        }

    @property
    def _arm_id(self) -> str:
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )

    @property
    def _scope(self) -> str:
        """The query part of every portal address."""
        return (
            f"wsid=/subscriptions/{self.subscription_id}/resourcegroups/{self.resource_group}"
            f"/workspaces/{self.name}&tid={_NOBODY}"
        )

    def _describe(self) -> Dict[str, Any]:
        """What a run keeps of its workspace."""
        keys = ("subscription_id", "resource_group", "location")
        return {"name": self.name, **{key: self._about[key] for key in keys}}

    # -- what is in it ---------------------------------------------------------------------
    @property
    def compute_targets(self) -> Dict[str, Any]:
        from simgrid_ml.azure.compute import ComputeTarget

        return {target.name: target for target in ComputeTarget.list(self)}

    def get_default_compute_target(self, type: str) -> Any:
        """The target called ``cpu-cluster`` or ``gpu-cluster``; None if there is none."""
        if type not in ("CPU", "GPU"):
            raise UserErrorException(f"type must be 'CPU' or 'GPU', not {type!r}")
        return self.compute_targets.get(f"{type.lower()}-cluster")

    @property
    def experiments(self) -> Dict[str, Any]:
        from simgrid_ml.azure.experiment import Experiment

        return {experiment.name: experiment for experiment in Experiment.list(self)}

    def get_run(self, run_id: str) -> Any:
        from simgrid_ml.azure.run import Run

        return Run.get(self, run_id)

    @property
    def models(self) -> Dict[str, Any]:
        """The newest version of each model."""
        from simgrid_ml.azure.model import Model

        return {model.name: model for model in Model.list(self, latest=True)}

    @property
    def environments(self) -> Mapping[str, Any]:
        from simgrid_ml.azure.environment import Environment

        found: Mapping[str, Any] = Environment.list(self)
        return found

    def __getattr__(self, name: str) -> Any:
        return missing_member(self, name)

    # -- text ------------------------------------------------------------------------------
    def __repr__(self) -> str:
        return (
            f"Workspace.create(name={self.name!r}, subscription_id={self.subscription_id!r}, "
            f"resource_group={self.resource_group!r})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workspace) and other._store.root == self._store.root

    def __hash__(self) -> int:
        return hash(self._store.root)


def _find_config(start: str, file_name: Optional[str]) -> Optional[str]:
    if os.path.isfile(start):
        return start
    names: Tuple[str, ...] = (file_name,) if file_name else _CONFIG_NAMES
    for folder in _upwards(start):
        for inside in _CONFIG_FOLDERS:
            for name in names:
                candidate = os.path.join(folder, inside, name)
                if os.path.isfile(candidate) and _is_config(candidate, bool(inside)):
                    return candidate
    return None


def _is_config(path: str, certain: bool) -> bool:
    """Any program may keep a ``config.json`` at its root: only one that names a workspace counts,
    unless it is in a folder of Azure ML."""
    if certain:
        return True
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and ("workspace_name" in found or "Scope" in found)


def _from_scope(config: Mapping[str, Any]) -> Optional[List[str]]:
    """The names in the legacy ``project.json``: one resource path."""
    scope = config.get("Scope")
    if not scope:
        return None
    parts = str(scope).strip("/").split("/")
    known = {parts[i].lower(): parts[i + 1] for i in range(0, len(parts) - 1, 2)}
    return [known["subscriptions"], known["resourcegroups"], known["workspaces"]]


def _upwards(folder: str) -> Iterator[str]:
    while True:
        yield folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return
        folder = parent
