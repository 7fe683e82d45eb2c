"""Our errors and the ones Azure ML's users catch."""

from __future__ import annotations

import inspect

import pytest

from simgrid_ml import errors
from simgrid_ml.azure import errors as azure


def every_class(root: type = errors.SimgridError) -> list[type]:
    own = [one for one in root.__subclasses__() if one.__module__ == errors.__name__]
    return [root, *(found for one in own for found in every_class(one))]


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_counterpart(kind: type[errors.SimgridError]) -> None:
    assert kind is errors.NotEmulated or kind in azure._COUNTERPARTS
    translated = azure.to_azure(kind("it broke", remedy="mend it"))
    if kind is errors.NotEmulated:
        assert translated.__class__ is kind
        return
    assert isinstance(translated, azure.AzureMLException)
    assert "it broke" in translated.message and "mend it" in translated.message
    assert isinstance(translated.inner_exception, kind)


def test_an_error_of_another_module_counts_as_its_base() -> None:
    class Special(errors.SnapshotError):
        pass

    assert isinstance(azure.to_azure(Special("no")), azure.SnapshotException)


def test_what_is_missing_depends_on_the_place() -> None:
    error = errors.NotFoundError("no cluster")
    translated = azure.to_azure(error, not_found=azure.ComputeTargetException)
    assert isinstance(translated, azure.ComputeTargetException)


def test_the_text_has_the_parts_scripts_look_for() -> None:
    text = str(azure.UserErrorException("bad", inner_exception=ValueError("why"), target="x"))
    assert text.startswith("UserErrorException:\n\tMessage: bad\n\tInnerException why\n")
    assert '"code": "UserError"' in text and '"target": "x"' in text
    assert "code" not in str(azure.TrainingException("bad"))


def test_messages_can_be_read_and_changed() -> None:
    error = azure.ActivityFailedException("{}")
    assert error.message == "Activity Failed:\n{}"
    error.message = "other"
    assert "other" in str(error)
    assert azure.AzureMLAggregatedException(["a", "b"]).message == "a\nb"


def test_every_exported_exception_is_an_azure_one() -> None:
    for name in azure.__all__:
        thing = getattr(azure, name)
        if inspect.isclass(thing):
            is_gap = issubclass(thing, errors.NotEmulated)
            assert is_gap != issubclass(thing, azure.AzureMLException), name
