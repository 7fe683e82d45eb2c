"""Artifacts as the run history takes and gives them: created once, reserved in batches.

The service registers the names of a batch before it takes any content. One name that exists
refuses the whole batch, and the other new names of it stay behind, empty. User code has come to
depend on that, so it is so here as well.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Sequence
from typing import Any, BinaryIO

from simgrid_ml import wire
from simgrid_ml.azure.errors import AzureMLAggregatedException, UserErrorException, to_azure
from simgrid_ml.errors import ConflictError, NotFoundError, SimgridError
from simgrid_ml.record.run import RunRecord

__all__ = ["BATCH", "as_zip", "download", "folder_files", "take_snapshot", "upload"]

BATCH = 50
_log = logging.getLogger("azureml.artifacts")


def upload(record: RunRecord, names: Sequence[str], sources: Sequence[Any]) -> None:
    """Create artifacts.

    Args:
        record: the run.
        names: of the artifacts.
        sources: paths or binary streams, one per name.

    Raises:
        TypeError: not as many names as sources.
        UserErrorException: a path is no file.
        AzureMLAggregatedException: names exist; one line per clash.
    """
    if len(names) != len(sources):
        raise TypeError(f"{len(names)} names for {len(sources)} paths")
    wanted: dict[str, Any] = {}
    for name, source in zip(names, sources):
        if isinstance(source, (str, os.PathLike)) and not os.path.isfile(source):
            raise UserErrorException(f"File path {os.fspath(source)} does not exist.")
        if name in wanted:
            _log.warning("%s is given twice; the first is uploaded", name)
            continue
        wanted[name] = source
    items = list(wanted.items())
    for start in range(0, len(items), BATCH):
        _upload_batch(record, items[start : start + BATCH])


def _upload_batch(record: RunRecord, batch: list[tuple[str, Any]]) -> None:
    clashes = [name for name, _ in batch if _exists(record, name)]
    conflicts = []
    for name, source in batch:
        if name in clashes:
            conflicts.append(_conflict(record, name))
            continue
        try:
            if clashes:
                record.put_artifact(name, io.BytesIO())
            elif hasattr(source, "read"):
                record.put_artifact(name, _binary(source))
            else:
                with open(source, "rb") as stream:
                    record.put_artifact(name, stream)
        except ConflictError as error:  # another rank was faster, or it is no name at all
            conflicts.append(f"UserError: {error.cause}")
    if conflicts:
        raise AzureMLAggregatedException(conflicts)


def _conflict(record: RunRecord, name: str) -> str:
    return (
        f"UserError: Resource Conflict: ArtifactId ExperimentRun/dcid.{record.id}/{name} "
        "already exists."
    )


def _exists(record: RunRecord, name: str) -> bool:
    try:
        record.artifact(name)
    except (NotFoundError, ConflictError):  # the latter: it is no name at all, as will be said
        return False
    return True


def _binary(stream: Any) -> BinaryIO:
    """The stream, or the encoded text of one that gives text."""
    if isinstance(stream, io.TextIOBase):
        return io.BytesIO(stream.read().encode("utf-8"))
    binary: BinaryIO = stream
    return binary


def folder_files(name: str, path: str) -> tuple[list[str], list[str]]:
    """Artifact names and paths of every file below ``path``, as ``upload_folder`` names them."""
    if not os.path.isdir(path):
        raise UserErrorException(f"{path} is not a folder.")
    names, paths = [], []
    for base, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(files):
            full = os.path.join(base, file)
            relative = os.path.relpath(full, path).replace(os.sep, "/")
            names.append(f"{name.rstrip('/')}/{relative}" if name else relative)
            paths.append(full)
    return names, paths


def download(record: RunRecord, name: str, target: str) -> str:
    """Copy an artifact to the file ``target``, or into the folder it is; returns the path.

    Raises:
        NotFoundError: there is no such artifact.
    """
    artifact = record.artifact(name)
    if os.path.isdir(target) or target.endswith(os.sep):
        target = os.path.join(target, os.path.basename(artifact.name))
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    shutil.copyfile(artifact.path, target)
    return target


def take_snapshot(record: RunRecord, path: str) -> str:
    """Keep a copy of the source file or folder with the run; returns the snapshot's id.

    Raises:
        SnapshotException: it cannot be taken.
    """
    import tempfile

    from simgrid_ml.engine import snapshot

    try:
        if not os.path.isfile(path):
            return snapshot.take(path, record.file(wire.CODE)).id
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(os.path.abspath(path), os.path.join(folder, os.path.basename(path)))
            return snapshot.take(folder, record.file(wire.CODE)).id
    except SimgridError as error:
        raise to_azure(error) from error


def as_zip(archive: str, target: str) -> str:
    """Write the files of a gzipped tar as the zip ``target``; returns its path."""
    import tarfile
    import zipfile

    with tarfile.open(archive, "r|gz") as source, zipfile.ZipFile(target, "w") as packed:
        for member in source:
            stream = source.extractfile(member)
            if stream is not None:
                info = zipfile.ZipInfo(member.name)
                info.external_attr = member.mode << 16
                packed.writestr(info, stream.read(), zipfile.ZIP_DEFLATED)
    return target
