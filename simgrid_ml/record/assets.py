"""Models as named, numbered folders of the workspace; a version never changes once it is there.

::

    models/<name>/<version>/asset.json   what is known about it
    models/<name>/<version>/content/     its files
    models/<name>/<version>.json         what may change: tags, description
"""

from __future__ import annotations

import os
import re
import shutil
import time
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from simgrid_ml import wire
from simgrid_ml.errors import NotFoundError, SpecError
from simgrid_ml.record.journal import draft_name, read_json, write_json
from simgrid_ml.record.store import RunStore

__all__ = ["Asset", "AssetStore"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-._]{0,254}\Z")
_DOCUMENT = "asset.json"
_CONTENT = "content"


class Asset:
    """One version of a name.

    Attributes:
        name: the name.
        version: 1, 2, …
        path: folder of its files.
        about: plain data given when it was made, with ``created`` (Unix seconds) and ``files``.
    """

    __slots__ = ("about", "name", "path", "version")

    def __init__(self, name: str, version: int, path: str, about: Dict[str, Any]) -> None:
        self.name = name
        self.version = version
        self.path = path
        self.about = about


class AssetStore:
    """The models of a workspace."""

    def __init__(self, store: RunStore) -> None:
        self.root = store.folder(wire.MODELS)

    def put(self, name: str, files: Iterable[Tuple[str, str]], about: Mapping[str, Any]) -> Asset:
        """Store copies of ``files`` as the next version of ``name``.

        Args:
            name: as Azure's rule for models wants it.
            files: (relative path inside the version, path of the file now).
            about: plain data to keep with it.

        Raises:
            SpecError: the name breaks the rule.
        """
        if not _NAME.match(name):
            raise SpecError(
                f"{name!r} cannot name a model",
                remedy="use up to 255 letters, digits, '-', '.' and '_', first a letter or digit",
            )
        folder = os.path.join(self.root, name)
        draft = os.path.join(folder, draft_name())
        kept = []
        try:
            os.makedirs(os.path.join(draft, _CONTENT))
            for relative, path in files:
                target = os.path.join(draft, _CONTENT, *relative.split("/"))
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copyfile(path, target)
                kept.append(relative)
            document = {**about, "created": time.time(), "files": kept}
            write_json(os.path.join(draft, _DOCUMENT), document)
            return self._publish(name, draft)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def _publish(self, name: str, draft: str) -> Asset:
        """Give the draft the next free number; of two writers each gets its own."""
        version = self._last_number(name)
        while True:
            version += 1
            target = os.path.join(self.root, name, str(version))
            try:
                os.mkdir(target)  # reserves the number
            except FileExistsError:
                continue
            os.rename(draft, target)  # onto the empty folder, in one step
            return self._read(name, version)

    def get(self, name: str, version: Optional[int] = None) -> Asset:
        """``version`` of ``name``, the newest without one.

        Raises:
            NotFoundError: there is none.
        """
        versions = self.versions(name)
        wanted = version if version is not None else (versions[-1] if versions else None)
        if wanted is None or wanted not in versions:
            known = ", ".join(map(str, versions)) or "none"
            raise NotFoundError(
                f"there is no model {name!r}" + (f" of version {version}" if version else ""),
                evidence=f"versions: {known}",
            )
        return self._read(name, wanted)

    def versions(self, name: str) -> List[int]:
        """Numbers in use, in order."""
        return [
            number
            for number in self._numbers(name)
            if os.path.exists(os.path.join(self.root, name, str(number), _DOCUMENT))
        ]

    def list(self) -> List[Asset]:
        """Every version of every name, by name and number."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        return [self._read(name, number) for name in names for number in self.versions(name)]

    def amend(self, asset: Asset, **changes: Any) -> Asset:
        """Change what may change of an asset: its tags, its description."""
        path = self._amendments(asset.name, asset.version)
        write_json(path, {**read_json(path, {}), **changes})
        return self._read(asset.name, asset.version)

    def delete(self, asset: Asset) -> None:
        """Remove a version; its number is not given again."""
        folder = os.path.join(self.root, asset.name, str(asset.version))
        gone = os.path.join(self.root, asset.name, draft_name())
        try:
            os.rename(folder, gone)
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no model {asset.name!r} of version {asset.version}"
            ) from None
        os.mkdir(folder)  # keeps the number
        shutil.rmtree(gone)
        if os.path.exists(self._amendments(asset.name, asset.version)):
            os.unlink(self._amendments(asset.name, asset.version))

    def _read(self, name: str, version: int) -> Asset:
        folder = os.path.join(self.root, name, str(version))
        about = {
            **read_json(os.path.join(folder, _DOCUMENT), {}),
            **read_json(self._amendments(name, version), {}),
        }
        return Asset(name, version, os.path.join(folder, _CONTENT), about)

    def _amendments(self, name: str, version: int) -> str:
        return os.path.join(self.root, name, f"{version}.json")

    def _last_number(self, name: str) -> int:
        return max(self._numbers(name), default=0)

    def _numbers(self, name: str) -> List[int]:
        if not _NAME.match(name):
            return []
        try:
            found = os.listdir(os.path.join(self.root, name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(entry) for entry in found if entry.isdecimal())
