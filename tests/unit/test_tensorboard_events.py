"""Event files: against the format's published figures, and by reading them back."""

from __future__ import annotations

import math
import struct
from contextlib import closing
from pathlib import Path

import pytest

from simgrid_ml.azure.tensorboard_events import EventFile, record


def messages(data: bytes) -> list[bytes]:
    """The contents of the records of a file; its checksums are compared."""
    found = []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        content = data[12 : 12 + length]
        assert data[: 16 + length] == record(content)
        found.append(content)
        data = data[16 + length :]
    return found


def test_a_record_is_as_torchs_summary_writer_writes_it() -> None:
    written = bytes.fromhex(
        "1500000000000000d6ab6b2b094e0d4d0c73c0da412a0a0a080a0161150000803fabfca74d"
    )
    assert record(written[12:-4]) == written


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5, 0.5), (7, 7.0), (True, 1.0), (1e300, math.inf), (-(10**400), -math.inf)],
)
def test_a_value_is_kept_in_single_precision(tmp_path: Path, value: float, shown: float) -> None:
    with closing(EventFile(str(tmp_path / "events"))) as events:
        events.scalar("loss", value, 300, 1.5)
    _, event = messages((tmp_path / "events").read_bytes())
    assert event[:9] == b"\x09" + struct.pack("<d", 1.5)
    assert event[9:12] == b"\x10\xac\x02"  # 300 in two bytes of seven bits
    assert b"loss" in event
    assert struct.unpack("<f", event[-4:]) == (shown,)


def test_a_step_may_be_negative_and_long(tmp_path: Path) -> None:
    with closing(EventFile(str(tmp_path / "events"))) as events:
        events.scalar("x", 0.0, -1, 0.0)
    _, event = messages((tmp_path / "events").read_bytes())
    assert event[9:20] == b"\x10" + b"\xff" * 9 + b"\x01"
