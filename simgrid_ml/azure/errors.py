"""The exception classes user code catches, and which of our errors becomes which of them.

The classes have Azure ML's names, bases, constructors and text layout, since scripts match on
all four. ``to_azure`` is the only bridge: inside this package errors are ``SimgridError``.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any, Dict, List, Optional, Type

from simgrid_ml import errors

__all__ = [
    "COVERAGE_PAGE",
    "ActivityFailedException",
    "AuthenticationException",
    "AzureMLAggregatedException",
    "AzureMLException",
    "ComputeTargetException",
    "DiscoveryUrlNotFoundException",
    "ExperimentExecutionException",
    "ModelNotFoundException",
    "ModelPathNotFoundException",
    "NotEmulatedMember",
    "NotEmulatedName",
    "ProjectSystemException",
    "RunConfigurationException",
    "RunEnvironmentException",
    "SnapshotException",
    "TrainingException",
    "UserErrorException",
    "WebserviceException",
    "WorkspaceException",
    "not_emulated",
    "to_azure",
]

COVERAGE_PAGE = "docs/coverage.md"  # generated from azure/coverage.py


class AzureMLException(Exception):
    """Base of all: a message, what caused it, and the service's JSON form of both.

    Args:
        exception_message: what went wrong.
        inner_exception: what it was raised from.
        target: the element at fault.
        details: further errors of the same request.
        message_format: kept only because callers pass it, like the two that follow.
    """

    _error_code: Optional[str] = None

    def __init__(
        self,
        exception_message: str,
        inner_exception: Optional[BaseException] = None,
        target: Any = None,
        details: Any = None,
        message_format: Optional[str] = None,
        message_parameters: Any = None,
        reference_code: Optional[str] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(exception_message)
        self._exception_message = exception_message
        self._inner_exception = inner_exception
        self._exc_info = sys.exc_info()
        optional = {
            "target": target,
            "details": details,
            "message_format": message_format,
            "message_parameters": message_parameters,
            "reference_code": reference_code,
        }
        self._optional = {key: value for key, value in optional.items() if value is not None}

    @property
    def message(self) -> str:
        return self._exception_message

    @message.setter
    def message(self, value: str) -> None:
        self._exception_message = value

    @property
    def inner_exception(self) -> Optional[BaseException]:
        return self._inner_exception

    @inner_exception.setter
    def inner_exception(self, value: Optional[BaseException]) -> None:
        self._inner_exception = value

    def print_stacktrace(self) -> None:
        traceback.print_exception(*self._exc_info)

    def __str__(self) -> str:
        response: Dict[str, Any] = {}
        if self._error_code is not None:
            response["code"] = self._error_code
        response["message"] = self.message
        response.update(self._optional)
        return (
            f"{type(self).__name__}:\n\tMessage: {self.message}"
            f"\n\tInnerException {self.inner_exception}"
            f"\n\tErrorResponse \n{json.dumps({'error': response}, indent=4, default=str)}"
        )

    __repr__ = __str__


class _Plain(AzureMLException):
    """One message and nothing else by position, as most of the classes below are."""

    def __init__(self, exception_message: str, **kwargs: Any) -> None:
        super().__init__(exception_message, **kwargs)


class TrainingException(_Plain):
    """An estimator cannot be built or submitted as it is."""


class ExperimentExecutionException(_Plain):
    """A run could not be submitted, or followed to its end."""


class ProjectSystemException(_Plain):
    """The source folder could not be set up."""


class SnapshotException(_Plain):
    """The source folder could not be taken: too large, too many files, or taken before."""


class ComputeTargetException(_Plain):
    """A compute target is missing, or cannot be what was asked for."""


class RunConfigurationException(_Plain):
    """A run configuration holds what it must not."""


class UserErrorException(_Plain):
    """A value is missing, of the wrong type, or names nothing."""

    _error_code = "UserError"


class AuthenticationException(UserErrorException):
    """Kept for ``except`` clauses: nothing here authenticates."""

    _error_code = "Authentication"


class RunEnvironmentException(AzureMLException):
    """``Run.get_context(allow_offline=False)`` outside a run."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            "no submitted run in this process; use experiment.start_logging outside of one",
            **kwargs,
        )


class WorkspaceException(AzureMLException):
    """A workspace cannot be found or made."""

    def __init__(self, exception_message: str, found_multiple: bool = False, **kwargs: Any) -> None:
        super().__init__(exception_message, **kwargs)
        self.found_multiple = found_multiple


class _Logged(AzureMLException):
    """Writes its message to the logger it is given."""

    def __init__(self, exception_message: str, logger: Any = None, **kwargs: Any) -> None:
        super().__init__(exception_message, **kwargs)
        if logger is not None:
            logger.error(exception_message)


class WebserviceException(_Logged):
    """The model service refused."""

    def __init__(
        self,
        exception_message: str,
        status_code: Optional[int] = None,
        logger: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(exception_message, logger=logger, **kwargs)
        self.status_code = status_code


class ModelNotFoundException(_Logged):
    """No model of that name or version."""


class ModelPathNotFoundException(_Logged):
    """No artifact lies under the path a model is to be made of."""


class DiscoveryUrlNotFoundException(AzureMLException):
    """Kept for ``except`` clauses: nothing here looks for a service."""

    def __init__(self, discovery_key: str, **kwargs: Any) -> None:
        super().__init__(f"environment variable {discovery_key} is not set", **kwargs)


class ActivityFailedException(AzureMLException):
    """The run that was waited for failed; the text holds its recorded error."""

    def __init__(self, error_details: str, **kwargs: Any) -> None:
        super().__init__(f"Activity Failed:\n{error_details}", **kwargs)


class AzureMLAggregatedException(AzureMLException):
    """Several errors of one request, one line each."""

    def __init__(self, exceptions_list: List[str], **kwargs: Any) -> None:
        super().__init__("\n".join(exceptions_list), **kwargs)


# Every class of simgrid_ml.errors; a test fails if one is missing.
_COUNTERPARTS: Dict[Type[errors.SimgridError], Type[AzureMLException]] = {
    errors.SimgridError: AzureMLException,
    errors.UsageError: UserErrorException,
    errors.SpecError: UserErrorException,
    errors.RequirementError: ExperimentExecutionException,
    errors.PlacementError: ExperimentExecutionException,
    errors.SnapshotError: SnapshotException,
    errors.NotFoundError: UserErrorException,
    errors.ConflictError: AzureMLAggregatedException,
    errors.RunFailed: ActivityFailedException,
    errors.ContractFailed: ActivityFailedException,
    errors.HostError: ExperimentExecutionException,
    errors.EnvironmentBuildError: ExperimentExecutionException,
    errors.NodeError: ExperimentExecutionException,
    errors.LaunchError: ExperimentExecutionException,
    errors.RecordError: AzureMLException,
    errors.IllegalMove: AzureMLException,
}


def to_azure(
    error: errors.SimgridError, *, not_found: Type[AzureMLException] = UserErrorException
) -> Exception:
    """What Azure ML would have raised; use it as ``raise to_azure(error) from error``.

    ``NotEmulated`` is returned as it is: Azure ML has no such error, and code that catches
    Azure's must not take a gap of the emulation for a refusal of the service.

    Args:
        error: one of ours.
        not_found: what a ``NotFoundError`` is in this place, e.g. ``ComputeTargetException``.

    >>> to_azure(errors.PlacementError("Requested 9 nodes")).__class__.__name__
    'ExperimentExecutionException'
    """
    if isinstance(error, errors.NotEmulated):
        return error
    if isinstance(error, errors.NotFoundError):
        return not_found(str(error), inner_exception=error)
    for kind in type(error).__mro__:
        if kind in _COUNTERPARTS:
            counterpart: Any = _COUNTERPARTS[kind]
            message: Any = str(error)
            if counterpart is AzureMLAggregatedException:
                message = [message]
            exception: Exception = counterpart(message, inner_exception=error)
            return exception
    raise AssertionError(f"{type(error).__name__} is no SimgridError")


class NotEmulatedName(errors.NotEmulated, ImportError):
    """A module or a name of one: ``try: from azureml.core import Dataset`` may go without."""


class NotEmulatedMember(errors.NotEmulated, AttributeError):
    """A member of an emulated class: ``hasattr(workspace, "datastores")`` is False."""


def not_emulated(
    what: str,
    *,
    remedy: str = "",
    later: bool = False,
    kind: Type[errors.NotEmulated] = errors.NotEmulated,
) -> errors.NotEmulated:
    """The error for a part of Azure ML that is missing here.

    Args:
        what: ``"parameter servers"``; begins the sentence.
        remedy: what to use instead; the coverage page is named in any case.
        later: a later version is going to have it.
        kind: the class of the error.
    """
    when = " yet; a later version will bring it" if later else ""
    page = f"{COVERAGE_PAGE} lists what is emulated"
    return kind(f"{what}: not emulated{when}", remedy=f"{remedy}; {page}" if remedy else page)
