"""``AmlCompute.provisioning_configuration``: what a cluster is to be, checked as the SDK does."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from simgrid_ml.azure.errors import ComputeTargetException

__all__ = ["AmlComputeProvisioningConfiguration", "ScaleSettings"]

_SPECIAL = set("`~!@#$%^&*()=+_[]{}|;:./'\",<>?")


class ScaleSettings:
    """How many nodes, and when the idle ones go."""

    def __init__(
        self,
        minimum_node_count: int,
        maximum_node_count: int,
        idle_seconds_before_scaledown: int | None,
    ) -> None:
        self.minimum_node_count = minimum_node_count
        self.maximum_node_count = maximum_node_count
        self.idle_seconds_before_scaledown = idle_seconds_before_scaledown

    def serialize(self) -> dict[str, Any]:
        idle = self.idle_seconds_before_scaledown
        return {
            "minNodeCount": self.minimum_node_count,
            "maxNodeCount": self.maximum_node_count,
            "nodeIdleTimeBeforeScaleDown": f"PT{idle}S" if idle else "",
        }


class AmlComputeProvisioningConfiguration:
    """Describes a cluster for ``ComputeTarget.create``.

    Args:
        vm_size: a size of Azure, in any case.
        vm_priority: ``dedicated`` or ``lowpriority``.
        min_nodes, max_nodes: how many nodes; ``max_nodes`` must be given.
        idle_seconds_before_scaledown: shown in the status.
        tags: kept; ``simgrid-ml.backend``, ``simgrid-ml.era`` (``E1`` to ``E3``),
            ``simgrid-ml.working_directory`` (``shared``, ``private``), ``simgrid-ml.gpu_sharing``
            (``emulated``, ``mps``, …) and ``simgrid-ml.nccl`` choose what is emulated, see
            ``spec.cluster``.

    The rest is checked as the SDK checks it, and not used.

    Raises:
        ComputeTargetException: a value does not fit.
    """

    def __init__(
        self,
        vm_size: str = "",
        vm_priority: str = "dedicated",
        min_nodes: int | None = 0,
        max_nodes: int | None = None,
        idle_seconds_before_scaledown: int | None = 1800,
        admin_username: str | None = None,
        admin_user_password: str | None = None,
        admin_user_ssh_key: str | None = None,
        vnet_resourcegroup_name: str | None = None,
        vnet_name: str | None = None,
        subnet_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        remote_login_port_public_access: str = "NotSpecified",
        identity_type: str | None = None,
        identity_id: Any = None,
        location: str | None = None,
        enable_node_public_ip: Any = True,
    ) -> None:
        self.location: str | None = None
        self.vm_size = vm_size
        self.vm_priority = vm_priority
        self.scale_settings = ScaleSettings(
            min_nodes or 0,
            max_nodes,  # type: ignore[arg-type]  # None is refused below, as a subclass may ask for
            idle_seconds_before_scaledown,
        )
        self.admin_username = admin_username
        self.admin_user_password = admin_user_password
        self.admin_user_ssh_key = admin_user_ssh_key
        self.vnet_resourcegroup_name = vnet_resourcegroup_name
        self.vnet_name = vnet_name
        self.subnet_name = subnet_name
        self.tags = tags
        self.description = description
        self.remote_login_port_public_access = remote_login_port_public_access
        self.identity_type = identity_type
        self.identity_id = identity_id
        self.compute_location = location
        self.enable_node_public_ip = enable_node_public_ip
        self.validate_configuration()

    def validate_configuration(self) -> None:
        """Refuse what the SDK refuses, in its order.

        Raises:
            ComputeTargetException: naming the first value that does not fit.
        """
        self._check_credentials()
        network = [self.vnet_name, self.vnet_resourcegroup_name, self.subnet_name]
        if any(network) and not all(network):
            raise ComputeTargetException(
                "Invalid configuration, not all virtual net information provided: give the vnet "
                "name, the vnet resource group and the subnet name"
            )
        minimum = self.scale_settings.minimum_node_count
        maximum = self.scale_settings.maximum_node_count
        wrong = None
        if maximum is None:
            wrong = "is mandatory"
        elif maximum < 0:
            wrong = "must be greater than or equal to 0"
        elif maximum < minimum:
            wrong = "must be greater than or equal to min nodes count"
        if wrong:
            raise ComputeTargetException(
                f"Invalid provisioning configuration, max nodes count {wrong}"
            )
        self._check_identity()

    def _check_credentials(self) -> None:
        has_secret = self.admin_user_password or self.admin_user_ssh_key
        if has_secret and not self.admin_username:
            raise ComputeTargetException(
                "Invalid user credentials, admin username must be provided with a password or an "
                "SSH key"
            )
        if self.admin_username and not has_secret:
            raise ComputeTargetException(
                "Invalid user credentials, no password or key information provided"
            )
        if self.admin_username and self.admin_user_password:
            used = set(self.admin_user_password)
            kinds = (string.ascii_lowercase, string.ascii_uppercase, string.digits, _SPECIAL)
            if sum(bool(used & set(kind)) for kind in kinds) < 3:
                raise ComputeTargetException(
                    "Invalid admin user password provided. It must have 3 of the following: a "
                    "lowercase character, an uppercase character, a number, a special character"
                )

    def _check_identity(self) -> None:
        if self.identity_type and self.identity_type not in ("UserAssigned", "SystemAssigned"):
            raise ComputeTargetException(
                "Invalid configuration, identity_type must be set to 'UserAssigned' or "
                "'SystemAssigned'."
            )
        if self.identity_id and self.identity_type != "UserAssigned":
            raise ComputeTargetException(
                "Invalid configuration, identity_id cannot be set when identity type is not user "
                "assigned."
            )
        if self.identity_type == "UserAssigned" and not self.identity_id:
            raise ComputeTargetException(
                "Invalid configuration, identity_id must be set when identity type is user "
                "assigned."
            )
