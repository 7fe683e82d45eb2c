"""What each experiment is expected to find, and whether it did. Pure.

A prediction that fails refutes something that the GPU paths rely on: what is then to be changed
stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MEMORY_MIB", "PREDICTIONS", "Prediction", "outcome"]

Record = Mapping[str, Any]
Judge = Callable[[Sequence[Record]], "bool | None"]

MEMORY_MIB: Mapping[str, float] = {
    "cnn": 46.1,
    "transformer": 88.5,
    "resnet18": 457.0,
    "resnet50": 898.8,
}
"""Peaks of virtual GPUs in host memory, as ``memory_fidelity.py --virtual`` measures them."""

_MEMORY_TOLERANCE = 0.10
_KEPT = 0.9


@dataclass(frozen=True)
class Prediction:
    """
    Attributes:
        experiment: its letter.
        text: what is expected.
        relies: what of this project does.
        holds: judges the experiment's records; None: they say nothing about it.
    """

    experiment: str
    text: str
    relies: str
    holds: Judge


def outcome(prediction: Prediction, records: Sequence[Record]) -> str:
    """``as predicted``, ``refuted``, or ``not run``."""
    own = [record for record in records if record["experiment"] == prediction.experiment]
    held = prediction.holds([record for record in own if "skipped" not in record])
    return "not run" if held is None else "as predicted" if held else "refuted"


def _inventory(records: Sequence[Record]) -> bool | None:
    return bool(records[0]["devices"]) if records else None


def _cap(mode: str, least_mib: int, most_mib: int) -> Judge:
    def holds(records: Sequence[Record]) -> bool | None:
        own = [one for one in records if one.get("mode") == mode]
        if not own:
            return None
        return least_mib <= own[-1]["taken_mib"] <= most_mib

    return holds


def _of_ranks(exact: bool, **wanted: Any) -> Judge:
    def holds(records: Sequence[Record]) -> bool | None:
        own = [r for r in records if all(r.get(key) == value for key, value in wanted.items())]
        if not own:
            return None
        return all(_is_exact(one) for one in own) if exact else all("failed" in one for one in own)

    return holds


def _is_exact(record: Record) -> bool:
    result = record.get("result") or {}
    sizes = [one for one in result.values() if isinstance(one, Mapping)]
    return bool(result.get("replicas_equal")) and all(one["exact"] for one in sizes)


def _slow_nccl(records: Sequence[Record]) -> bool | None:
    """Between ranks that take turns, each collective costs several time slices."""
    own = [r for r in records if r.get("identity") == "rank" and "result" in r]
    return all(5 <= one["result"]["4K"]["ms"] <= 20 for one in own) if own else None


def _turns(records: Sequence[Record]) -> bool | None:
    totals = {one["n"]: one["total"] for one in records}
    if not {1, 4} <= totals.keys():
        return None
    return _KEPT <= totals[4] / totals[1] <= 1.05


def _parts(records: Sequence[Record]) -> bool | None:
    alone = [one["total"] for one in records if one.get("mps") == 100 and one.get("n") == 1]
    quarter = [one["total"] for one in records if one.get("mps") == 25 and one.get("n") == 1]
    if not alone or not quarter:
        return None
    return 0.2 <= quarter[-1] / alone[-1] <= 0.35


def _race(staged: bool) -> Judge:
    def holds(records: Sequence[Record]) -> bool | None:
        own = [one for one in records if one.get("staged") is staged]
        if not own:
            return None
        return (own[-1]["wrong"] == 0) is staged

    return holds


def _two_parts(records: Sequence[Record]) -> bool | None:
    own = [one for one in records if one.get("hook")]
    plain = [one for one in records if one.get("hook") is False]
    if len(own) < 2 or not plain:
        return None
    fits = all(one["count"] == 2 and one["full_at_mib"] <= 4096 for one in own)
    kept = all("another part" in one["second"] and one["after"] == 2.0 for one in own)
    return fits and kept


def _cuda_build(records: Sequence[Record]) -> bool | None:
    return not records[-1]["wrong"] if records else None


def _memory(records: Sequence[Record]) -> bool | None:
    real = {one["model"]: one["peak_mib"] for one in records if one["side"] == "real"}
    if not real:
        return None
    resnets = ("resnet18", "resnet50")
    return all(abs(real[m] / MEMORY_MIB[m] - 1) <= _MEMORY_TOLERANCE for m in resnets)


def _faults(records: Sequence[Record]) -> bool | None:
    own = [one for one in records if one.get("mps") is False]
    return bool(own[-1]["neighbour"].get("finite")) if own else None


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction("0", "the driver lists its devices", "discovery", _inventory),
    Prediction(
        "A",
        "11 GiB by torch's fraction: between 10.75 and 11 GiB can be taken",
        "the hook gpu_caps",
        _cap("api", 10752, 11264),
    ),
    Prediction(
        "A",
        "11 GiB by PYTORCH_ALLOC_CONF: the same",
        "the plan's variables for torch 2.10 and later",
        _cap("conf", 10752, 11264),
    ),
    Prediction(
        "A",
        "11 GiB by MPS: 0.25 to 0.75 GiB less, for the context",
        "backing MPS",
        _cap("mps", 10240, 11008),
    ),
    Prediction(
        "A",
        "MPS with an entry for a device that is not seen: no limit at all",
        "a node's process sees one device under MPS",
        _cap("mps-badlist", 12288, 45056),
    ),
    Prediction(
        "B",
        "Gloo: exact sums and equal replicas with 2 and 4 ranks",
        "nccl=auto on a shared GPU",
        _of_ranks(True, backend="gloo"),
    ),
    Prediction(
        "B",
        "NCCL before 2.30 refuses two ranks on the GPU",
        "why it is not used there",
        _of_ranks(False, backend="nccl", identity="none"),
    ),
    Prediction(
        "B",
        "NCCL with a host identity per rank: exact sums, equal replicas",
        "nccl=real",
        _of_ranks(True, backend="nccl", identity="rank"),
    ),
    Prediction(
        "B",
        "… and 5 to 20 ms for 4 KB without MPS",
        "Gloo as the default there",
        _slow_nccl,
    ),
    Prediction(
        "B",
        "a host name per rank does the same without a variable",
        "containers with one rank each",
        _of_ranks(True, backend="nccl", identity="hostname"),
    ),
    Prediction(
        "C",
        "four tenants together do 0.9 to 1.05 of what one does",
        "time slicing as the default",
        _turns,
    ),
    Prediction("D", "a quarter of the SMs does 0.2 to 0.35 of all", "gpu_sharing=mps", _parts),
    Prediction(
        "E",
        "NCCL 2.30 with NCCL_MULTI_RANK_GPU_ENABLE: exact sums, equal replicas",
        "nccl=real with NCCL 2.30",
        _of_ranks(True, backend="nccl"),
    ),
    Prediction(
        "F",
        "Horovod's build for the CPU alone: some wrong sums",
        "that it is staged at all",
        _race(False),
    ),
    Prediction("F", "the same through our copies: no wrong sum", "horovod_staging", _race(True)),
    Prediction(
        "G",
        "each rank has its own part of the GPU by its own number, and no more than that",
        "caps_torch_devices",
        _two_parts,
    ),
    Prediction(
        "H",
        "virtual GPUs work under a torch that is built for CUDA",
        "images of Azure ML on hosts without a GPU",
        _cuda_build,
    ),
    Prediction(
        "I",
        "ResNets need within 10 % of what virtual GPUs count",
        "out of memory as in the cloud",
        _memory,
    ),
    Prediction(
        "J",
        "without MPS a fault ends its own process alone",
        "time slicing as the default",
        _faults,
    ),
)
