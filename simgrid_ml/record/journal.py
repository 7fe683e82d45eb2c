"""Append-only files of JSON lines: one writer each, and any reader survives a torn tail."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, List, Optional, Tuple

__all__ = ["Journal", "draft_name", "read_journal", "read_json", "scan_journal", "write_json"]

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, default=repr).encode


class Journal:
    """Appends values to ``path``; each ``append`` is one ``write`` of one whole line.

    A line that ``append`` returned from is in the kernel: it survives SIGKILL of the writer.
    The file is opened on the first append, and again in a forked child (a position shared with
    the parent is harmless: the file is in append mode, and a line is one write).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: Optional[int] = None
        self._torn = False

    def append(self, value: Dict[str, Any]) -> None:
        """Append one value; what JSON cannot carry is stored as its ``repr``.

        Raises:
            OSError: the line could not be written whole (a full disk). What was appended before
                stays readable, and so does what is appended later.
        """
        try:
            text = _encode(value)
        except (TypeError, ValueError):  # keys that are no strings, or a value inside itself
            text = _encode({str(key): repr(item) for key, item in value.items()})
        self.append_line((text + "\n").encode("ascii"))

    def append_line(self, line: bytes) -> None:
        """As ``append`` for a line that is encoded already and ends in a newline."""
        if self._fd is None:
            self._fd = self._open()
        if self._torn:  # a full disk cut the last line short: end it, or it swallows this one
            line = b"\n" + line
        written = os.write(self._fd, line)
        self._torn = False
        while written < len(line):  # only a nearly full disk or a signal gets here
            self._torn = True
            written += os.write(self._fd, line[written:])
        self._torn = False

    def _open(self) -> int:
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":  # an earlier writer died in mid-line
            os.write(fd, b"\n")
        return fd

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def scan_journal(path: str, offset: int = 0) -> Iterator[Tuple[int, Dict[str, Any]]]:
    """Values after ``offset``, each with the offset behind it.

    Lines that are not whole JSON objects are passed over: the torn last line of a killed
    writer, and such a line closed by its successor. A missing file is an empty journal.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 - a generator: closed by the with below
    except FileNotFoundError:
        return
    with stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield offset, value


def read_journal(path: str) -> List[Dict[str, Any]]:
    """All values of the journal at ``path``."""
    return [value for _, value in scan_journal(path)]


def draft_name() -> str:
    """A name nobody else uses, for content that is published in one step when it is whole.

    By chance, not by process id: every node may have its own process 7.
    """
    return os.urandom(8).hex() + ".part"


def write_json(path: str, value: Any) -> None:
    """Replace the document at ``path`` in one step: readers see the old or the new one."""
    draft = f"{path}.{draft_name()}"
    try:
        with open(draft, "w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1, sort_keys=True, default=repr)
            stream.write("\n")
        os.replace(draft, path)
    except BaseException:
        try:
            os.unlink(draft)
        except OSError:
            pass
        raise


def read_json(path: str, default: Any = None) -> Any:
    """The document at ``path``, or ``default`` where there is none yet."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        return default
