"""Steps of a training on a virtual GPU against the same on the CPU, and single operations."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quiet import becomes_quiet
from benchmarks.stats import Result, Target
from benchmarks.virtual_gpu.measuring import Node

__all__ = ["MODELS", "Effort", "operators", "steps"]

_TARGETS = {"cnn": 1.05, "resnet18": 1.05, "resnet50": 1.05, "transformer": 1.12}
_STEPS = {"mlp": 400, "cnn": 20, "transformer": 12, "resnet18": 5, "resnet50": 3}
MODELS = tuple(_STEPS)
_WARM_UP = {"mlp": 50, "cnn": 3, "transformer": 3, "resnet18": 2, "resnet50": 1}
_SMALL = 2  # images in a batch, to see that it works


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        launches: fresh pairs of processes per model; each gives one value.
        patience_s: how long to wait for a quiet host before each.
        is_smoke: next to nothing, to see that it works.
    """

    launches: int
    patience_s: float
    is_smoke: bool


def steps(node: Node, models: Sequence[str], effort: Effort) -> Iterator[Result]:
    """A launch's value is the median over its pairs of steps: virtual GPU over CPU."""
    differing, compared = 0, 0
    for model in models:
        launches, noisy = [], 0
        for _ in range(effort.launches):
            noisy += not becomes_quiet(effort.patience_s)
            launches.append(node.measured("steps", model, *_words(model, effort)))
            print(f"  {model}: {_ratio(launches[-1], 'cpu_s'):.3f}", flush=True)
        context = _context(launches)
        if noisy:
            context["values_on_a_noisy_host"] = noisy
        bound = _TARGETS.get(model)
        yield Result(
            f"{model}: CPU time of a step over that without a GPU",
            "",
            [_ratio(told, "cpu_s") for told in launches],
            None if bound is None else Target(bound),
            context,
        )
        yield Result(
            f"{model}: the same, if the side without a GPU keeps freed memory too",
            "",
            [_ratio(told, "cpu_s", "kept") for told in launches],
        )
        yield Result(
            f"{model}: wall time of a step over that without a GPU",
            "",
            [_ratio(told, "wall_s") for told in launches],
        )
        for told in launches:
            pairs = list(zip(told["plain"]["losses"], told["virtual"]["losses"], strict=True))
            compared += len(pairs)
            differing += sum(plain != virtual for plain, virtual in pairs)
    yield Result("losses that differ in any digit", "", [differing], Target(0), {"of": compared})


def _words(model: str, effort: Effort) -> list[str]:
    if not effort.is_smoke:
        return ["--steps", str(_STEPS[model]), "--warm-up", str(_WARM_UP[model])]
    few = ["--steps", "1", "--warm-up", "1"]
    return [*few, "--batch", str(_SMALL)] if model.startswith("resnet") else few


def _ratio(told: dict[str, Any], what: str, base: str = "plain") -> float:
    pairs = zip(told["virtual"][what], told[base][what], strict=True)
    return float(statistics.median(virtual / other for virtual, other in pairs))


def _context(launches: list[dict[str, Any]]) -> dict[str, Any]:
    def median_ms(side: str) -> float:
        return float(statistics.median(1e3 * s for told in launches for s in told[side]["cpu_s"]))

    plain, virtual = median_ms("plain"), median_ms("virtual")
    operators = launches[0]["plain"]["operators"]
    return {
        "step_plain_ms": plain,
        "step_virtual_ms": virtual,
        "operators_per_step": operators,
        "us_per_operator": (virtual - plain) / operators * 1e3,
        "peak_bytes_of_gpu": launches[0]["virtual"]["peak_bytes"],
    }


def operators(node: Node, effort: Effort) -> Iterator[Result]:
    """What is added to single calls."""
    becomes_quiet(effort.patience_s)
    calls, rounds = ("200", "1") if effort.is_smoke else ("5000", str(effort.launches))
    told = node.measured("operators", "--calls", calls, "--rounds", rounds)
    plain = told.pop("plain")
    for side, taken in told.items():
        for name in plain[0]:
            yield Result(
                f"{name}: {side}, more than plain",
                "us",
                [one[name] - base[name] for one, base in zip(taken, plain, strict=True)],
                context={"plain_us": statistics.median(base[name] for base in plain)},
            )
