"""``ComputeTarget`` and ``AmlCompute``: clusters whose nodes come with runs, and stay a while.

What Azure takes minutes for takes less than a second. What the signatures of Azure ML have no
room for is said in tags::

    AmlCompute.provisioning_configuration(
        vm_size="STANDARD_NC6", max_nodes=4,
        tags={"simgrid-ml.backend": "process", "simgrid-ml.era": "E3"})
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from simgrid_ml.azure.compute_status import AmlComputeStatus, vm_priority
from simgrid_ml.azure.coverage import Gaps, missing_member
from simgrid_ml.azure.errors import (
    ComputeTargetException,
    UserErrorException,
    not_emulated,
    to_azure,
)
from simgrid_ml.azure.provisioning import AmlComputeProvisioningConfiguration, ScaleSettings
from simgrid_ml.engine import pools
from simgrid_ml.errors import NotFoundError, SimgridError, SpecError
from simgrid_ml.launch import dialect
from simgrid_ml.spec.cluster import RESERVED_NAMES, ClusterSpec, is_cluster_name, stored_cluster
from simgrid_ml.spec.links_text import LINK_WORDS, with_default
from simgrid_ml.spec.value import from_plain, to_plain

__all__ = [
    "AmlCompute",
    "ComputeTarget",
    "stored_spec",
]

TAG_PREFIX = "simgrid-ml."
_DEFAULT_SIZE = "STANDARD_D2_V2"
_FROM_TAGS = ("backend", "era", "gpu_sharing", "nccl", "scale", "working_directory")
_LOOK_S = 0.1


def stored_spec(workspace: Any, name: str) -> ClusterSpec:
    """The cluster ``name`` of the workspace, however it was stored: here or by the command line.

    Raises:
        NotFoundError: there is none.
    """
    return stored_cluster(workspace._store.clusters(), name)


class ComputeTarget(metaclass=Gaps):
    """``ComputeTarget(workspace, name)`` gives the ``AmlCompute`` of that name.

    Raises:
        ComputeTargetException: there is none; its text begins with ``ComputeTargetNotFound``.
    """

    def __new__(cls, workspace: Any, name: str) -> ComputeTarget:
        target = super().__new__(AmlCompute)
        target._load(workspace, name)
        return target

    def __init__(self, workspace: Any, name: str) -> None:
        """``__new__`` did it all: ``AmlCompute`` is the only kind there is."""

    def _load(self, workspace: Any, name: str) -> None:
        raise NotImplementedError

    @staticmethod
    def create(workspace: Any, name: str, provisioning_configuration: Any) -> ComputeTarget:
        """Store a cluster; one of this name is replaced.

        Raises:
            UserErrorException: the name is reserved.
            ComputeTargetException: the name breaks the rule, or no such cluster can be.
        """
        if name.lower() in RESERVED_NAMES:
            raise UserErrorException(
                f"Please specify a different target name. {name} is a reserved name."
            )
        if not is_cluster_name(name):
            raise ComputeTargetException(
                f"{name!r} cannot name a compute target: use 2 to 24 letters, digits and '-', "
                "first a letter, and a letter after every '-'"
            )
        if not hasattr(provisioning_configuration, "scale_settings"):
            raise not_emulated(
                f"compute of a {type(provisioning_configuration).__name__}",
                remedy="use AmlCompute.provisioning_configuration",
            )
        now = datetime.now(timezone.utc).isoformat()
        azure = {
            "created": now,
            "modified": now,
            "description": provisioning_configuration.description,
            "location": provisioning_configuration.compute_location,
            "tags": dict(provisioning_configuration.tags or {}),
        }
        _put(workspace, _spec(name, provisioning_configuration), azure)
        return ComputeTarget(workspace, name)

    @staticmethod
    def list(workspace: Any) -> list[Any]:
        """Every target of the workspace, by name."""
        return [ComputeTarget(workspace, name) for name in sorted(workspace._store.clusters())]

    @staticmethod
    def deserialize(workspace: Any, object_dict: Mapping[str, Any]) -> ComputeTarget:
        return ComputeTarget(workspace, object_dict["name"])


class AmlCompute(ComputeTarget):
    """An emulated cluster. Its nodes come with runs, and stay until they are idle for too long."""

    type = "AmlCompute"

    def _load(self, workspace: Any, name: str) -> None:
        self.workspace = workspace
        self.name = name
        self.refresh_state()

    def refresh_state(self) -> None:
        """Read the cluster again.

        Raises:
            ComputeTargetException: it is gone.
        """
        try:
            self._spec = stored_spec(self.workspace, self.name)
        except (NotFoundError, SpecError) as error:
            raise ComputeTargetException(
                f"ComputeTargetNotFound: Compute Target with name {self.name} not found in "
                f"provided workspace",
                inner_exception=error,
            ) from error
        stored = self.workspace._store.clusters().get(self.name, {})
        self._azure: dict[str, Any] = stored.get("azure") or {}

    # -- what it is ------------------------------------------------------------------------
    @property
    def id(self) -> str:
        return f"{self.workspace._arm_id}/computes/{self.name}"

    @property
    def vm_size(self) -> str:
        return self._spec.vm_size

    @property
    def vm_priority(self) -> str:
        return vm_priority(self._spec)

    @property
    def scale_settings(self) -> ScaleSettings:
        spec = self._spec
        return ScaleSettings(spec.min_nodes, spec.max_nodes, spec.idle_seconds_before_scaledown)

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._azure.get("tags") or {})

    @property
    def description(self) -> str | None:
        found: str | None = self._azure.get("description")
        return found

    @property
    def location(self) -> str:
        return str(self._azure.get("location") or self.workspace.location)

    @property
    def cluster_location(self) -> str:
        return self.location

    @property
    def cluster_resource_id(self) -> str:
        return self.id

    @property
    def provisioning_state(self) -> str:
        return "Succeeded"

    @property
    def provisioning_errors(self) -> None:
        return None

    @property
    def status(self) -> AmlComputeStatus:
        return self.get_status()

    # -- making ----------------------------------------------------------------------------
    provisioning_configuration = AmlComputeProvisioningConfiguration

    def wait_for_completion(
        self,
        show_output: bool = False,
        min_node_count: int | None = None,
        timeout_in_minutes: float = 25,
        is_delete_operation: bool = False,
    ) -> None:
        """Wait until so many nodes are there, or cannot be had, or time is up: that does not raise.

        Args:
            show_output: print what Azure prints.
            min_node_count: how many; None: the cluster's minimum. More come with runs only.
            timeout_in_minutes: wait no longer.
        """
        if is_delete_operation:
            if show_output:
                sys.stdout.write("Deleting.\nSucceeded\n")
            return
        deadline = time.monotonic() + timeout_in_minutes * 60
        status = self.get_status()
        wanted = self._spec.min_nodes if min_node_count is None else min_node_count
        while (
            status.current_node_count < wanted and not status.errors and time.monotonic() < deadline
        ):
            time.sleep(_LOOK_S)
            status = self.get_status()
        if not show_output:
            return
        sys.stdout.write("Creating.\nSucceeded\nAmlCompute wait for completion finished\n\n")
        if status.current_node_count >= wanted:
            print("Minimum number of nodes requested have been provisioned")
        elif status.errors:
            print("Errors have been reported:")
            for error in status.errors:
                print(error["error"]["message"])
        else:
            print("Wait timeout has been reached")
            print(
                f'Current provisioning state of AmlCompute is "{status.provisioning_state}" and '
                f'current node count is "{status.current_node_count}"'
            )

    def update(
        self,
        min_nodes: int | None = None,
        max_nodes: int | None = None,
        idle_seconds_before_scaledown: int | None = None,
    ) -> None:
        """Change the scale; runs already submitted keep what they were submitted with.

        Raises:
            ComputeTargetException: the counts do not fit.
        """
        changes = {
            "min_nodes": min_nodes,
            "max_nodes": max_nodes,
            "idle_seconds_before_scaledown": idle_seconds_before_scaledown,
        }
        given = {key: value for key, value in changes.items() if value is not None}
        if not given:
            return
        self.refresh_state()
        spec = _checked({**to_plain(self._spec), **given})
        modified = datetime.now(timezone.utc).isoformat()
        _put(self.workspace, spec, {**self._azure, "modified": modified})
        self.refresh_state()

    def delete(self) -> None:
        """Forget the cluster; its runs stay.

        Raises:
            ComputeTargetException: it is gone already.
        """
        try:
            self.workspace._store.delete_cluster(self.name)
        except NotFoundError as error:
            raise to_azure(error, not_found=ComputeTargetException) from error
        pools.cluster_changed(self.workspace._store, self.name)

    def detach(self) -> None:
        raise ComputeTargetException(
            "Detach is not supported for AmlCompute object. Try to use delete instead."
        )

    # -- its nodes and runs ----------------------------------------------------------------
    def get_status(self) -> AmlComputeStatus:
        self.refresh_state()
        now = datetime.now(timezone.utc).isoformat()
        created = datetime.fromisoformat(self._azure.get("created", now))
        modified = datetime.fromisoformat(self._azure.get("modified", now))
        pool = pools.status(self.workspace._store, self.name)
        return AmlComputeStatus(self._spec, created, modified, pool)

    def get(self) -> dict[str, Any]:
        return self.serialize()

    def serialize(self) -> dict[str, Any]:
        """The service's description of the target."""
        return {
            "id": self.id,
            "name": self.name,
            "location": self.location,
            "tags": self.tags,
            "identity": None,
            "properties": {
                "description": self.description,
                "resourceId": self.cluster_resource_id,
                "computeType": self.type,
                "computeLocation": self.cluster_location,
                "provisioningState": self.provisioning_state,
                "provisioningErrors": None,
                "properties": {
                    "vmSize": self.vm_size,
                    "vmPriority": self.vm_priority,
                    "scaleSettings": self.scale_settings.serialize(),
                },
                "status": self.get_status().serialize(),
            },
        }

    def list_nodes(self) -> list[dict[str, Any]]:
        """The nodes that there are now."""
        pool = pools.status(self.workspace._store, self.name) or pools.NO_POOL
        return [
            {
                "nodeId": dialect.node_id(self._spec, node["name"]),
                "port": None,  # nobody listens for ssh
                "publicIpAddress": None,
                "privateIpAddress": node["address"],
                "nodeState": node["state"],
                "runId": node["run"],
            }
            for node in pool["nodes"]
        ]

    def get_active_runs(
        self, type: str | None = None, tags: Any = None, properties: Any = None, status: Any = None
    ) -> Any:
        """Runs on this cluster that have not ended, newest first."""
        from simgrid_ml.azure.run import Run

        for record in self._records():
            run = Run._of(record)
            if run._fits(type, tags, properties, status):
                yield run

    def _records(self) -> Any:
        for record in self.workspace._store.list():
            cluster = record.spec().get("cluster") or {}
            is_ours = cluster.get("name") == self.name
            if is_ours and record.is_supervised() and not record.state.is_terminal:
                yield record

    # -- sizes -----------------------------------------------------------------------------
    @staticmethod
    def supported_vmsizes(workspace: Any, location: str | None = None) -> Any:
        """The known sizes, as the service lists them."""
        from simgrid_ml.spec.vm_sizes import VM_SIZES

        return [
            {
                "name": size.name,
                "vCPUs": size.vcpus,
                "gpus": size.gpus,
                "memoryGB": size.memory_bytes / 2**30,
                "maxResourceVolumeMB": size.disk_bytes // 2**20,
            }
            for size in VM_SIZES.values()
        ]

    def __getattr__(self, name: str) -> Any:
        return missing_member(self, name)

    # -- text ------------------------------------------------------------------------------
    def __repr__(self) -> str:
        return (
            f"AmlCompute(workspace={self.workspace!r}, name={self.name}, id={self.id}, "
            f"type={self.type}, provisioning_state={self.provisioning_state}, "
            f"location={self.location}, tags={self.tags})"
        )


def _spec(name: str, asked: Any) -> ClusterSpec:
    """The cluster a provisioning configuration describes; also one of the real SDK."""
    scale = asked.scale_settings
    plain: dict[str, Any] = {
        "name": name,
        "vm_priority": asked.vm_priority,
        "min_nodes": scale.minimum_node_count,
        "max_nodes": scale.maximum_node_count,
    }
    plain["vm_size"] = asked.vm_size or _DEFAULT_SIZE
    if scale.idle_seconds_before_scaledown is not None:
        plain["idle_seconds_before_scaledown"] = scale.idle_seconds_before_scaledown
    words: dict[str, str] = {}
    for key, value in (asked.tags or {}).items():
        if key.startswith(TAG_PREFIX):
            field = key[len(TAG_PREFIX) :].replace("-", "_")
            if field in LINK_WORDS:
                words[field] = value
                continue
            if field not in _FROM_TAGS:
                known = ", ".join(TAG_PREFIX + known for known in (*_FROM_TAGS, *LINK_WORDS))
                raise ComputeTargetException(f"there is no tag {key}; known: {known}")
            plain[field] = _number(value) if field == "scale" else value
    try:
        links = with_default(None, words, "tags")
    except SpecError as error:
        raise ComputeTargetException(str(error), inner_exception=error) from error
    return _checked({**plain, **({} if links is None else {"links": to_plain(links)})})


def _number(text: Any) -> Any:
    """Tags are text; what is no number is left for the check to name."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def _checked(plain: Mapping[str, Any]) -> ClusterSpec:
    try:
        return from_plain(plain, ClusterSpec, "cluster")
    except SpecError as error:
        raise ComputeTargetException(str(error), inner_exception=error) from error


def _put(workspace: Any, spec: ClusterSpec, azure: Mapping[str, Any]) -> None:
    try:
        pools.check_minimum(spec)
        workspace._store.put_cluster(spec.name, {**to_plain(spec), "azure": dict(azure)})
        pools.cluster_changed(workspace._store, spec.name)
    except SimgridError as error:
        raise ComputeTargetException(str(error), inner_exception=error) from error
