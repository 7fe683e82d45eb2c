"""TensorBoard's event files, written without TensorBoard: as much of them as scalars need.

A file is a row of records, each a length, its checksum, the content, its checksum. The content is
a protobuf message ``Event``; fields and numbers from TensorFlow's ``record_writer.h``,
``event.proto`` and ``summary.proto``.
"""

from __future__ import annotations

import math
import struct
import time

__all__ = ["EventFile", "record"]

_VERSION = b"brain.Event:2"
_CASTAGNOLI = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class EventFile:
    """A new event file at ``path``, which readers may follow while it grows."""

    def __init__(self, path: str) -> None:
        self._stream = open(path, "wb")  # noqa: SIM115 - closed by close
        self._write(_event(time.time()) + _field(3, _BYTES, _VERSION))

    def scalar(self, tag: str, value: float, step: int, time_s: float) -> None:
        """Append one point of the curve ``tag``; it is with readers after ``flush``."""
        point = _field(1, _BYTES, tag.encode()) + _field(2, _FIXED32, _float32(value))
        summary = _field(5, _BYTES, _field(1, _BYTES, point))
        self._write(_event(time_s) + _field(2, _VARINT, _varint(step)) + summary)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    def _write(self, event: bytes) -> None:
        self._stream.write(record(event))


def record(content: bytes) -> bytes:
    """``content`` as one record of a file.

    >>> record(b"").hex()
    '000000000000000029039807d8ea82a2'
    """
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _event(time_s: float) -> bytes:
    return _field(1, _FIXED64, struct.pack("<d", time_s))


def _field(number: int, kind: int, content: bytes) -> bytes:
    head = _varint(number << 3 | kind)
    return head + (_varint(len(content)) if kind == _BYTES else b"") + content


def _float32(value: float) -> bytes:
    """In single precision, as the format has it; what is too large for it is infinite."""
    try:
        return struct.pack("<f", float(value))
    except OverflowError:
        return struct.pack("<f", math.inf if value > 0 else -math.inf)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number as its complement of 64 bits."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, turned and shifted so that a checksum of data that hold one means something."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_CASTAGNOLI if byte & 1 else 0)
        entries.append(byte)
    return tuple(entries)


_TABLE = _table()
