"""Two ranks of a group with the same GPU: what is said, and how much that matters."""

from __future__ import annotations

import pytest

from simgrid_ml.shim.virtual_gpu.torch_meeting import CHECK_VARIABLE, refuse_twins

TWINS = ("rank 1", "rank 0", "00000001:00:00.0", "node0", 0)


class OfNccl(Exception):
    pass


def test_twins_are_an_error_that_names_both_and_the_remedy() -> None:
    with pytest.raises(OfNccl, match="Duplicate GPU detected") as seen:
        refuse_twins(OfNccl, *TWINS)
    assert "rank 1 and rank 0 both on CUDA device 00000001:00:00.0" in str(seen.value)
    assert "[simgrid-ml] both use cuda:0 of node0: call torch.cuda.set_device" in str(seen.value)


def test_a_job_can_be_warned_of_twins_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHECK_VARIABLE, "warn")
    with pytest.warns(RuntimeWarning, match="Duplicate GPU detected"):
        refuse_twins(OfNccl, *TWINS)


def test_a_job_can_have_twins(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv(CHECK_VARIABLE, "off")
    refuse_twins(OfNccl, *TWINS)
    assert not recwarn.list
