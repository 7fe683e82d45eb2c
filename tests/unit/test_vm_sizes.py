"""The table of VM sizes."""

from __future__ import annotations

import pytest

from simgrid_ml.errors import SpecError
from simgrid_ml.spec.vm_sizes import VM_SIZES, find_vm_size, vm_size

GIB = 2**30


def test_names_are_found_in_any_case() -> None:
    assert vm_size("STANDARD_NC6") is vm_size("standard_nc6") is vm_size("Standard_NC6")


def test_the_size_of_the_documented_examples_has_one_k80() -> None:
    size = vm_size("STANDARD_NC6")
    assert (size.vcpus, size.memory_bytes, size.gpus) == (6, 56 * GIB, 1)
    assert (size.gpu_model, size.gpu_memory_bytes) == ("K80", 12 * GIB)
    assert size.nic_bits_per_s is None  # Azure publishes none


def test_an_unknown_size_names_the_nearest_ones() -> None:
    assert find_vm_size("Standard_NC7") is None
    with pytest.raises(SpecError, match="Standard_NC6") as caught:
        vm_size("Standard_NC7")
    assert caught.value.where == "cluster.vm_size"


def test_the_older_name_of_a_size_is_the_same_size() -> None:
    assert vm_size("Standard_ND96isr_v5") is vm_size("Standard_ND96isr_H100_v5")


@pytest.mark.parametrize("name", sorted(VM_SIZES))
def test_every_size_is_consistent(name: str) -> None:
    size = VM_SIZES[name]
    assert size.name.lower() == name
    assert size.vcpus >= 1 and size.memory_bytes >= GIB
    assert (size.gpus > 0) == (size.gpu_model is not None) == (size.gpu_memory_bytes > 0)
    assert size.gpus <= 8
    assert size.nic_bits_per_s is None or 750_000_000 <= size.nic_bits_per_s <= 80_000_000_000
    assert size.infiniband is None or "r" in name.split("_")[1], "the letter r stands for RDMA"
