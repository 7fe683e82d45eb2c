"""The sealed copy of a job's source folder: one archive, named by its content.

What is left out is what ``.amlignore`` at the root of the folder says or, only where there is
none, ``.gitignore`` there. Links to files are stored as the file they point to, as an upload
does; links to folders are followed unless they lead back into a folder above themselves.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

from simgrid_ml import wire
from simgrid_ml.errors import SnapshotError
from simgrid_ml.units import format_bytes

__all__ = ["NO_FILE_LIMIT_VARIABLE", "Snapshot", "files_of", "take", "unpack"]

NO_FILE_LIMIT_VARIABLE = "AML_SNAPSHOT_NO_FILE_LIMIT"
_WARN_BYTES = 25 * 2**20
_BLOCK = 2**20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """What was taken.

    Attributes:
        id: hash of names, modes and content; equal folders have equal ids.
        files: number of files.
        bytes: their size together, uncompressed.
    """

    id: str
    files: int
    bytes: int


class _Ignore(Protocol):
    def match_file(self, file: str) -> bool: ...


def take(source: str, target_path: str, *, limit_bytes: int | None = None) -> Snapshot:
    """Write the files of ``source`` to ``target_path`` as a gzipped tar.

    Args:
        source: a folder.
        target_path: the archive; it must not exist, and appears only when it is whole.
        limit_bytes: refuse a larger folder; None: Azure's 300 MB.

    Raises:
        SnapshotError: the folder is missing, too large, of too many files, or cannot be read.
    """
    files = files_of(source)
    limit = wire.SNAPSHOT_MAX_BYTES if limit_bytes is None else limit_bytes
    total = sum(info.st_size for _, _, info in files)
    _check_limits(source, files, total, limit)
    if total >= _WARN_BYTES:
        _log.warning(
            "The snapshot of %s has %s; list what the job does not need in .amlignore",
            source,
            format_bytes(total),
        )
    digest = hashlib.sha256()
    draft = target_path + ".part"
    taken = 0
    try:
        with (
            open(draft, "wb") as raw,
            # No time and no name in the header: equal folders give equal archives.
            gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
            tarfile.open(
                fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK
            ) as archive,
        ):
            for name, path, info in files:
                taken += _add(archive, digest, name, path, info, source)
        os.replace(draft, target_path)
    except OSError as error:
        raise SnapshotError(
            f"{source} cannot be snapshotted: {error.strerror or error}",
            evidence=str(error.filename or ""),
            remedy="make the file readable, or list it in .amlignore",
        ) from error
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
    return Snapshot(digest.hexdigest()[:32], len(files), taken)


def unpack(archive_path: str, folder: str) -> None:
    """Write the files of an archive that ``take`` made into ``folder``, which may exist.

    Nothing is written outside ``folder``, whatever the archive says.
    """
    os.makedirs(folder, exist_ok=True)
    with tarfile.open(archive_path, "r|gz", bufsize=_BLOCK) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:  # an early 3.10 or 3.11; `take` writes regular files under relative names only
            archive.extractall(folder, members=_regular(archive))


def files_of(source: str) -> list[tuple[str, str, os.stat_result]]:
    """The files a snapshot of ``source`` holds: (name with slashes, path, status), by name.

    Raises:
        SnapshotError: ``source`` is no folder, or a folder in it cannot be listed.
    """
    if not os.path.isdir(source):
        raise SnapshotError(
            f"the source directory {source!r} does not exist"
            if not os.path.exists(source)
            else f"the source directory {source!r} is not a folder",
            remedy="give `source_directory` the path of the folder with the training script",
        )
    ignore, may_prune = _ignore(source)
    try:
        return sorted(_walk(source, "", ignore, may_prune, frozenset()))
    except OSError as error:
        raise SnapshotError(
            f"{source} cannot be snapshotted: {error.strerror}", evidence=str(error.filename)
        ) from error


def _check_limits(source: str, files: list[Any], total: int, limit: int) -> None:
    if total > limit:
        largest = sorted(files, key=lambda file: file[2].st_size, reverse=True)[:3]
        raise SnapshotError(
            f"While taking the snapshot of {source}: Your total snapshot size exceeds the limit "
            f"of {limit / 2**20} MB ({format_bytes(total)})",
            evidence="\n".join(
                f"{format_bytes(info.st_size)} {name!a}" for name, _, info in largest
            ),
            remedy="list what the job does not need in .amlignore; see aka.ms/aml-largefiles",
        )
    if len(files) > wire.SNAPSHOT_MAX_FILES and not os.environ.get(NO_FILE_LIMIT_VARIABLE):
        raise SnapshotError(
            f"While taking the snapshot of {source}: Your project exceeds the file limit of "
            f"{wire.SNAPSHOT_MAX_FILES} ({len(files)} files)",
            remedy="list what the job does not need in .amlignore, "
            f"or set {NO_FILE_LIMIT_VARIABLE}=1",
        )


def _ignore(source: str) -> tuple[_Ignore | None, bool]:
    """The patterns, and whether a folder they name may be skipped as a whole.

    It may not once a later ``!pattern`` can bring back a file inside it.
    """
    for name in (".amlignore", ".gitignore"):
        try:
            with open(os.path.join(source, name), encoding="utf-8", errors="replace") as stream:
                lines = stream.read().splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SnapshotError(f"{name} of {source} cannot be read: {error.strerror}") from error
        import pathspec

        try:
            spec: _Ignore = pathspec.PathSpec.from_lines(_pattern_class(), lines)
        except ValueError as error:
            raise SnapshotError(f"{name} of {source}: {error}") from error
        return spec, not any(line.startswith("!") for line in lines)
    return None, True


def _pattern_class() -> Any:
    """Git's patterns by themselves. The last one that fits decides, as in the SDK; git has finer
    rules for files below a folder that a pattern names."""
    try:
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern
    except ImportError:  # pathspec before 1.0
        from pathspec.patterns.gitwildmatch import GitWildMatchPattern

        return GitWildMatchPattern
    return GitIgnoreSpecPattern


def _walk(
    folder: str, prefix: str, ignore: _Ignore | None, may_prune: bool, above: frozenset[str]
) -> Iterator[tuple[str, str, os.stat_result]]:
    above = above | {os.path.realpath(folder)}
    with os.scandir(folder) as listing:
        entries = list(listing)
    for entry in entries:
        name = prefix + entry.name
        if ignore is not None and entry.is_dir():
            if may_prune and ignore.match_file(name + "/"):
                continue
        elif ignore is not None and ignore.match_file(name):
            continue
        if entry.is_dir():
            if entry.is_symlink() and os.path.realpath(entry.path) in above:
                continue  # would go round for ever
            yield from _walk(entry.path, name + "/", ignore, may_prune, above)
        elif entry.is_file():  # sockets, pipes, devices and broken links are left out
            yield name, entry.path, entry.stat()


def _add(
    archive: tarfile.TarFile,
    digest: Any,
    name: str,
    path: str,
    info: os.stat_result,
    source: str,
) -> int:
    """Add one file; returns its size. It may grow while we read: what the header says counts."""
    executable = bool(info.st_mode & stat.S_IXUSR)
    member = tarfile.TarInfo(name)
    member.mode = 0o755 if executable else 0o644
    member.size = info.st_size
    member.mtime = int(info.st_mtime)
    digest.update(os.fsencode(name) + (b"\0x" if executable else b"\0-"))
    digest.update(info.st_size.to_bytes(8, "big"))
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size < info.st_size:
            raise SnapshotError(f"{name!a} of {source} shrank while it was snapshotted")
        archive.addfile(member, _Hashed(stream, digest))
    return info.st_size


class _Hashed:
    """A file that is hashed as it is read, so that its bytes are read once."""

    def __init__(self, stream: IO[bytes], digest: Any) -> None:
        self._stream = stream
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self._digest.update(block)
        return block


def _regular(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        if (
            member.isfile()
            and not member.name.startswith("/")
            and ".." not in member.name.split("/")
        ):
            yield member
