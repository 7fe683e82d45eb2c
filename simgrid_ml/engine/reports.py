"""What a task has reported so far, read again only when its journal has grown."""

from __future__ import annotations

import os

from simgrid_ml.record.journal import scan_journal

__all__ = ["TaskReport"]


class TaskReport:
    """The journal at ``path``, which need not exist yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self.started = False
        self.failed = False
        self.ended = False
        self.waits: list[str] = []
        """What it has said of itself that it waits for, and for too long."""

    def refresh(self) -> None:
        try:
            if os.stat(self._path).st_size == self._offset:
                return
        except FileNotFoundError:
            return
        for offset, line in scan_journal(self._path, self._offset):
            self._offset = offset
            event = line["event"]
            self.started = True
            if event == "failing":
                self.failed = True
            elif event == "no-progress":
                self.waits.append(line["text"])
            elif event == "ended":
                self.ended = True
                self.failed = self.failed or bool(line["signal"] or line["code"])
