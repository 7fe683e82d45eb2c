"""What is given as ``auth=`` in the cloud. Here nothing asks who somebody is, so any will do."""

from __future__ import annotations

from typing import Any

__all__ = [
    "AbstractAuthentication",
    "AzureCliAuthentication",
    "InteractiveLoginAuthentication",
    "MsiAuthentication",
    "ServicePrincipalAuthentication",
]


class AbstractAuthentication:
    """Accepts what the cloud's class of this name is given, and keeps none of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


class InteractiveLoginAuthentication(AbstractAuthentication):
    pass


class AzureCliAuthentication(AbstractAuthentication):
    pass


class MsiAuthentication(AbstractAuthentication):
    pass


class ServicePrincipalAuthentication(AbstractAuthentication):
    pass
