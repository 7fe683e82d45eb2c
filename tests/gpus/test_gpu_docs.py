"""docs/gpus.md says what is so: its tables against the code, the scenarios, and what raises."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from simgrid_ml.shim.virtual_gpu import limits
from simgrid_ml.spec.gpus import gpu_model
from simgrid_ml.spec.vm_sizes import vm_size
from simgrid_ml.units import format_bytes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gpus.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, or that begins with it."""
    table = PAGE.partition(heading)[2].partition("\n|")[2].partition("\n\n")[0]
    lines = table.splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_what_cannot_be_emulated_is_the_list_of_the_code() -> None:
    assert limits.table() in PAGE, (
        "put into docs/gpus.md: python -m simgrid_ml.shim.virtual_gpu.limits"
    )


def test_sizes_have_the_gpus_that_the_page_says() -> None:
    told = set()
    for sizes, gpus in rows("## A first run\n"):
        counts, name, memory = re.fullmatch(r"([\d, ]+) (\D.*) of (.* GiB)", gpus).groups()
        names = re.findall(r"`(\w+)`", sizes)
        for size, count in zip(names, counts.split(", "), strict=True):
            found = vm_size(f"Standard_{size}")
            model = gpu_model(found.gpu_model)
            assert (found.gpus, model.name) == (int(count), name), size
            assert format_bytes(model.memory_bytes) == memory, size
            told.add(found.gpu_model)
    assert len(told) >= 11


def test_every_bug_of_the_page_has_a_scenario_that_expects_its_message() -> None:
    told = {}
    for _, message, scenario in rows("## What fails as in the cloud\n"):
        told[scenario.strip("`")] = message.strip("`")
    folders = {path.name for path in (ROOT / "scenarios").glob("gpu-*")}
    assert set(told) == folders
    for name, message in told.items():
        expected = yaml.safe_load((ROOT / "scenarios" / name / "expected.yaml").read_text())
        assert message in expected["cloud"] or expected["cloud"] in message, name
