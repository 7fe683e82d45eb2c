"""What a run's working directories leave to its history: Azure's two special folders."""

from __future__ import annotations

import os
from typing import Iterator, List, Tuple

from simgrid_ml import wire
from simgrid_ml.errors import ConflictError
from simgrid_ml.record.run import RunRecord

__all__ = ["collect_files"]


def collect_files(record: RunRecord) -> Tuple[int, List[str]]:
    """Keep ``./outputs`` and ``./logs`` of every working directory as artifacts.

    Returns:
        how many files were kept, and one sentence for each whose name was taken: with private
        working directories two nodes may have written the same name, and only the first is kept.
    """
    kept = 0
    clashes = []
    for work in record.work_directories():
        for folder in (wire.OUTPUTS, wire.LOGS):
            for name, path in _files(os.path.join(work, folder)):
                try:
                    record.keep_artifact(f"{folder}/{name}", path)
                    kept += 1
                except ConflictError as error:
                    clashes.append(error.cause)
    return kept, clashes


def _files(folder: str) -> Iterator[Tuple[str, str]]:
    for base, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(base, file)
            if os.path.isfile(path):
                yield os.path.relpath(path, folder).replace(os.sep, "/"), path
