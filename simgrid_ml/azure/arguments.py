"""``script_params`` as the flat list of arguments, and the data that occurs in them.

Data objects become placeholders in the text; what they stand for is kept beside it, in the run
configuration's ``data_references``, ``data`` and ``output_data``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simgrid_ml.azure.element import is_a
from simgrid_ml.azure.errors import UserErrorException

__all__ = ["Data", "collect", "flatten", "is_dataset_use", "pair"]


class Data:
    """What a run reads and writes, by name."""

    def __init__(self) -> None:
        self.references: dict[str, Any] = {}
        self.datasets: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}


def flatten(script_params: Mapping[Any, Any] | None) -> list[Any]:
    """Key, value, key, value …; empty ones are left out, collections are spread.

    >>> flatten({"--lr": 0.1, "--verbose": "", "--sizes": [1, 2], "": "positional"})
    ['--lr', 0.1, '--verbose', '--sizes', 1, 2, 'positional']
    """
    flat: list[Any] = []
    for key, value in (script_params or {}).items():
        flat.append(_placeholder(key))
        value = _placeholder(value)
        if isinstance(value, str) or not isinstance(value, Iterable):
            flat.append(value)
        else:
            flat.extend(str(item) if isinstance(item, Iterable) else item for item in value)
    return [item for item in flat if item is not None and item != ""]


def pair(arguments: Sequence[Any]) -> dict[Any, Any]:
    """The list read back as key and value in turn, as the service's SDK does before an override.

    >>> pair(["--lr", 0.1, "--verbose", "--epochs", 3])
    {'--lr': 0.1, '--verbose': '--epochs'}
    """
    return dict(zip(arguments[::2], arguments[1::2], strict=False))


def collect(
    script_params: Mapping[Any, Any] | None,
    inputs: Iterable[Any] | None = None,
    source_directory_data_store: Any = None,
) -> Data:
    """All data named in the arguments and by ``inputs=``.

    Raises:
        UserErrorException: one of ``inputs`` is no data.
    """
    data = Data()
    for item in inputs or ():
        if not _take(data, item):
            raise UserErrorException(f"Type {type(item)} is not supported for inputs")
    for pair_ in (script_params or {}).items():
        for item in pair_:
            _take(data, item)
    if source_directory_data_store is not None:
        _take(data, source_directory_data_store)
    return data


def is_dataset_use(item: Any) -> bool:
    """A dataset with a name and a mode, as ``dataset.as_named_input('x').as_mount()`` gives it."""
    return is_a(item, "DatasetConsumptionConfig")


def _is_datastore(item: Any) -> bool:
    return is_a(item, "AbstractAzureStorageDatastore", "Datastore")


def _take(data: Data, item: Any) -> bool:
    """Notes the item; False if it is no input data."""
    if _is_datastore(item):
        name, reference = _whole(item)
        data.references[name] = reference
    elif is_a(item, "DataReference"):
        data.references[item.data_reference_name] = item.to_config()
    elif is_dataset_use(item):
        data.datasets[item.name] = item
    else:
        if is_a(item, "OutputDatasetConfig"):
            data.outputs[item.name] = item
        return False
    return True


def _whole(datastore: Any) -> tuple[str, Any]:
    """Name and configuration of the reference to all of a datastore."""
    from simgrid_ml.azure.runconfig import DataReferenceConfiguration

    if hasattr(datastore, "_get_data_reference"):
        reference = datastore._get_data_reference()
        return reference.data_reference_name, reference.to_config()
    return datastore.name, DataReferenceConfiguration(datastore_name=datastore.name)


def _placeholder(item: Any) -> Any:
    if _is_datastore(item):
        return f"$AZUREML_DATAREFERENCE_{_whole(item)[0]}"
    if is_a(item, "DataReference"):
        return str(item)
    if is_dataset_use(item) and item.mode.lower() in ("download", "mount"):
        return f"DatasetConsumptionConfig:{item.name}"
    if is_a(item, "OutputDatasetConfig"):
        return f"DatasetOutputConfig:{item.name}"
    if is_a(item, "Data", "OutputData") and type(item).__module__.startswith("azureml."):
        raise UserErrorException(
            f"a {type(item).__name__} cannot be an argument; call as_mount() or as_download() on "
            "the dataset and give the result"
        )
    return item
