"""Which virtual GPUs a process sees where they are parts of real ones, and which it may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from simgrid_ml.node.gpu_ledger import Gpu, Ledger, create
from simgrid_ml.node.gpu_slices import Part, SecondGpu, Slices, decode, encode, fraction

GIB = 2**30


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    path = str(tmp_path / "ledger")
    create(path, [Gpu("Tesla K80", f"GPU-{n}", "", 11 * GIB, 13, (3, 7)) for n in range(3)])
    return Ledger(path)


def parts(*devices: str) -> list[Part]:
    return [Part(device, 10 * GIB, 139 * GIB) for device in devices]


def seen(slices: Slices) -> list[tuple[int, int]]:
    """Ordinal on the node, and for CUDA, of what the process sees."""
    return [(one.number, one.ordinal) for one in slices]


def test_parts_survive_their_way_through_a_variable() -> None:
    there = parts("GPU-a", "MIG-b/1/0")
    assert decode(encode(there)) == there
    with pytest.raises(ValueError):
        decode("GPU-a")


def test_a_framework_is_told_its_part_of_what_it_sees_itself() -> None:
    # 11 GiB less 0.6 GiB for the context, of an H200.
    part = 11 * GIB - 600 * 2**20
    assert fraction(part, 139 * GIB) == pytest.approx(0.07492, abs=1e-5)
    assert fraction(200 * GIB, 139 * GIB) == 1.0


@pytest.mark.parametrize(
    ("visible", "numbers", "devices"),
    [
        (None, [(0, 0), (1, 1), (2, 0)], ["GPU-a", "GPU-b"]),
        ("GPU-a,GPU-b", [(0, 0), (1, 1), (2, 0)], ["GPU-a", "GPU-b"]),  # as the node gives it
        ("1", [(1, 0)], ["GPU-b"]),
        ("2,1", [(2, 0), (1, 1)], ["GPU-a", "GPU-b"]),
        ("GPU-2", [(2, 0)], ["GPU-a"]),  # a virtual one, by UUID
        ("GPU-b", [(1, 0)], ["GPU-b"]),  # a real one
        ("", [], []),
        ("7", [], []),
        ("0,7,1", [(0, 0)], ["GPU-a"]),
    ],
)
def test_what_a_script_chooses_are_virtual_gpus(
    ledger: Ledger, visible: str | None, numbers: list[tuple[int, int]], devices: list[str]
) -> None:
    slices = Slices(ledger, parts("GPU-a", "GPU-b", "GPU-a"), visible, "GPU-a,GPU-b")
    assert seen(slices) == numbers
    assert slices.devices == devices
    assert slices.visible == ",".join(devices)


def test_a_process_has_one_part_of_a_device_and_any_part_of_another(ledger: Ledger) -> None:
    slices = Slices(ledger, parts("GPU-a", "GPU-b", "GPU-a"), None, None)
    assert slices.is_shifted
    assert slices.use(2).ordinal == 0
    assert slices.use(1).ordinal == 1
    assert slices.use(2).number == 2
    with pytest.raises(SecondGpu, match=r"uses cuda:2, and cuda:0 is another part of the same"):
        slices.use(0)
    assert slices.used_on(0) == 2
    with pytest.raises(IndexError):
        slices.use(3)
    with pytest.raises(IndexError):
        slices.use(-1)


def test_an_ordinal_of_cudas_own_is_told_from_one_of_the_scripts(ledger: Ledger) -> None:
    slices = Slices(ledger, parts("GPU-a", "GPU-a", "GPU-b"), None, None)
    assert slices.resolve(2) == 1
    assert slices.resolve(1) == 1  # as tensors on it say; not the second GPU of the node
    assert slices.resolve(0) == 0
    slices = Slices(ledger, parts("GPU-a", "GPU-a", "GPU-b"), None, None)
    assert slices.resolve(1) == 0
    assert slices.resolve(0) == 0
    slices = Slices(ledger, parts("GPU-a", "GPU-a", "GPU-b"), None, None)
    assert slices.resolve(0) == 0
    with pytest.raises(SecondGpu):
        slices.resolve(1)


def test_of_devices_that_cuda_shows_alone_the_first_that_is_touched_is_shown(
    ledger: Ledger,
) -> None:
    slices = Slices(ledger, parts("MIG-a", "MIG-b", "MIG-c"), None, None, alone=True)
    assert seen(slices) == [(0, 0), (1, 0), (2, 0)]
    assert slices.visible == "MIG-a"
    slices.use(1)
    assert slices.visible == "MIG-b"
    with pytest.raises(SecondGpu):
        slices.use(0)
    assert slices.visible == "MIG-b"


def test_with_a_device_each_nothing_is_shifted(ledger: Ledger) -> None:
    slices = Slices(ledger, parts("GPU-a", "GPU-b", "GPU-c"), None, None)
    assert not slices.is_shifted
    assert [slices.use(n).ordinal for n in range(3)] == [0, 1, 2]
