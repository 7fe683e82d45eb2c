"""What ``wait_for_completion(show_output=True)`` prints: one log after the other, then a summary.

Of the logs of one stage only the primary one is shown: rank 0's, the first node's.
"""

from __future__ import annotations

import codecs
import re
from typing import IO

__all__ = ["LogPrinter", "is_streamed"]

_STREAMED = re.compile(r"azureml-logs/\d{2}.+\.txt\Z|user_logs/std_log\D*0*(?:_ps)?\.txt\Z")
_NOT_PRIMARY = re.compile(r"(?:driver_log|control_log|rank|worker)[_-](?:ps-)?0*[1-9]\d*\.txt\Z")
_FIRST = ("rank_0.txt", "worker_0.txt", "driver_log_0.txt")


def is_streamed(name: str) -> bool:
    """Whether the log may be shown at all; the logs of ranks other than 0 never are."""
    return bool(_STREAMED.match(name)) and not _NOT_PRIMARY.search(name)


def _stage(name: str) -> str:
    """Logs of one stage replace each other: ``azureml-logs/70``, ``user_logs/std_log``."""
    folder, _, file = name.partition("/")
    return f"{folder}/{file[:2]}" if folder == "azureml-logs" else folder


def _order(name: str) -> tuple[bool, str]:
    return not name.endswith(_FIRST), name


class LogPrinter:
    """Prints the bytes of logs as they come, under a heading per log.

    When a log of a later stage appears, what came of the present one has been printed, and it
    is left for good.
    """

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._current: str | None = None
        self._kept: dict[str, list[bytes]] = {}  # of logs that are not shown yet
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_line_start = True

    def feed(self, name: str, chunk: bytes) -> None:
        if name == self._current:
            self._write(self._decoder.decode(chunk))
            return
        self._kept.setdefault(name, []).append(chunk)
        if self._replaces_current(name):
            self._show(name)

    def _replaces_current(self, name: str) -> bool:
        if self._current is None:
            return True
        stage, present = _stage(name), _stage(self._current)
        return stage > present or (stage == present and _order(name) < _order(self._current))

    def _show(self, name: str) -> None:
        self.end_log()
        self._current = name
        self._write(f"\nStreaming {name}\n{'=' * (len(name) + 10)}\n\n")
        for chunk in self._kept.pop(name):
            self._write(self._decoder.decode(chunk))

    def end_log(self) -> None:
        """Finish the line that is being printed."""
        self._write(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        if not self._at_line_start:
            self._write("\n")

    def _write(self, text: str) -> None:
        if not text:
            return
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding))
        self._out.flush()
        self._at_line_start = text.endswith("\n")
