"""Experiments on a GPU where there is none: refusal, processes, and what would be concluded."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as runner
from benchmarks.gpu.experiment import Ranks, multi_process_service
from benchmarks.gpu.predictions import MEMORY_MIB, PREDICTIONS, outcome

README = Path(runner.__file__).parent / "README.md"
PROGRAMS = sorted({program.split()[0] for _, program in runner.CALLS} - {"cuda_build"})


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="here is a GPU")
@pytest.mark.parametrize("name", PROGRAMS)
def test_without_a_gpu_every_program_says_so_in_one_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = importlib.import_module(f"benchmarks.gpu.{name}")
    words = [program.split() for _, program in runner.CALLS]
    given = next(rest for first, *rest in words if first == name)
    with pytest.raises(SystemExit) as ended:
        program.main(given) if name != "inventory" else program.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("benchmarks.gpu needs an NVIDIA GPU: ")


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="here is a GPU")
def test_without_a_gpu_the_whole_of_them_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main([]) == 2
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        runner.main(["--only", "Z"])


def test_the_readme_has_every_prediction_and_what_came_of_it() -> None:
    assert runner.table([]) in README.read_text(encoding="utf-8")


def test_each_experiment_has_a_program_and_a_prediction() -> None:
    assert {letter for letter, _ in runner.CALLS} == {one.experiment for one in PREDICTIONS}
    assert {one.experiment for one in PREDICTIONS} == set("0ABCDEFGHIJ")


def reduced(**found: Any) -> dict[str, Any]:
    sizes = {"4K": {"exact": True, "ms": 9.0}, "1024K": {"exact": True, "ms": 9.0}}
    return {"result": {"replicas_equal": True, **sizes}, **found}


GOOD: list[dict[str, Any]] = [
    {"experiment": "0", "devices": [{}]},
    {"experiment": "A", "mode": "api", "taken_mib": 11008},
    {"experiment": "A", "mode": "conf", "taken_mib": 11264},
    {"experiment": "A", "mode": "mps", "taken_mib": 10752},
    {"experiment": "A", "mode": "mps-badlist", "taken_mib": 45056},
    {"experiment": "B", "backend": "gloo", **reduced()},
    {"experiment": "B", "backend": "nccl", "identity": "none", "failed": [{"failed": 1}]},
    {"experiment": "B", "backend": "nccl", "identity": "rank", **reduced()},
    {"experiment": "B", "backend": "nccl", "identity": "hostname", **reduced()},
    {"experiment": "C", "n": 1, "total": 100.0},
    {"experiment": "C", "n": 4, "total": 95.0},
    {"experiment": "D", "n": 1, "mps": 100, "total": 100.0},
    {"experiment": "D", "n": 1, "mps": 25, "total": 27.0},
    {"experiment": "E", "backend": "nccl", **reduced()},
    {"experiment": "F", "staged": False, "wrong": 3},
    {"experiment": "F", "staged": True, "wrong": 0},
    {"experiment": "G", "hook": False},
    *(
        {
            "experiment": "G",
            "hook": True,
            "count": 2,
            "full_at_mib": 4096,
            "second": "cuda:0 is another part of the same real GPU",
            "after": 2.0,
        }
        for _ in range(2)
    ),
    {"experiment": "H", "wrong": {}},
    *(
        {"experiment": "I", "side": "real", "model": name, "peak_mib": 1.05 * size}
        for name, size in MEMORY_MIB.items()
    ),
    {"experiment": "J", "mps": False, "neighbour": {"finite": True}},
]
BAD: list[dict[str, Any]] = [
    {"experiment": "0", "devices": []},
    {"experiment": "A", "mode": "api", "taken_mib": 45056},
    {"experiment": "A", "mode": "conf", "taken_mib": 45056},
    {"experiment": "A", "mode": "mps", "taken_mib": 11264},
    {"experiment": "A", "mode": "mps-badlist", "taken_mib": 10752},
    {"experiment": "B", "backend": "gloo", "failed": [{"failed": "timeout"}]},
    {"experiment": "B", "backend": "nccl", "identity": "none", **reduced()},
    {"experiment": "B", "backend": "nccl", "identity": "rank", "failed": [{}]},
    {
        "experiment": "B",
        "backend": "nccl",
        "identity": "rank",
        "result": {"replicas_equal": True, "4K": {"exact": True, "ms": 0.1}},
    },
    {"experiment": "B", "backend": "nccl", "identity": "hostname", "failed": [{}]},
    {"experiment": "C", "n": 1, "total": 100.0},
    {"experiment": "C", "n": 4, "total": 60.0},
    {"experiment": "D", "n": 1, "mps": 100, "total": 100.0},
    {"experiment": "D", "n": 1, "mps": 25, "total": 99.0},
    {"experiment": "E", "backend": "nccl", "result": {"replicas_equal": False}},
    {"experiment": "F", "staged": False, "wrong": 0},
    {"experiment": "F", "staged": True, "wrong": 1},
    *(
        {"experiment": "G", "hook": hook, "count": 2, "full_at_mib": 64 * 128, "second": "taken"}
        for hook in (False, True, True)
    ),
    {"experiment": "H", "wrong": {"torch.cuda.is_available()": "False"}},
    *({"experiment": "I", "side": "real", "model": name, "peak_mib": 1.0} for name in MEMORY_MIB),
    {"experiment": "J", "mps": False, "neighbour": {"failed": 1}},
]


def outcomes(records: list[dict[str, Any]]) -> set[str]:
    return {outcome(one, records) for one in PREDICTIONS}


def test_outcomes_are_told_from_what_was_found() -> None:
    assert outcomes([]) == {"not run"}
    assert outcomes([{"experiment": one.experiment, "skipped": "…"} for one in PREDICTIONS]) == {
        "not run"
    }
    assert outcomes(GOOD) == {"as predicted"}
    assert outcomes(BAD) == {"refuted"}


PROGRAM = """
import json, os, sys, time
rank = os.environ["RANK"]
if rank == "1":
    sys.stderr.write("Duplicate GPU detected : rank 0 and rank 1\\n\\nlast words\\n")
    sys.exit(3)
if rank == "2":
    time.sleep(600)
print("something else")
print(json.dumps({"rank": rank, "of": os.environ["WORLD_SIZE"], "own": os.environ["OWN"]}))
"""


def test_ranks_say_a_line_or_why_not_and_are_gone_afterwards() -> None:
    with Ranks(["-c", PROGRAM], [{"OWN": str(n)} for n in range(3)]) as ranks:
        first, second, third = ranks.results(2.0)
    assert first == {"rank": "0", "of": "3", "own": "0"}
    assert second == {"failed": 3, "said": "Duplicate GPU detected : rank 0 and rank 1"}
    assert third == {"failed": "timeout"}
    with Ranks(["-c", PROGRAM], [{}, {}, {"OWN": ""}]) as ranks:
        left = ranks._ranks[2]
    assert left.returncode == -9


def test_the_multi_process_service_has_a_folder_of_its_own_and_is_told_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    control = tmp_path / "nvidia-cuda-mps-control"
    says = f'echo "$1$word $CUDA_MPS_PIPE_DIRECTORY" >>{log}'
    control.write_text(f'#!/bin/sh\n[ "$1" ] || read word\n{says}\n')
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with multi_process_service() as folder:
        assert folder is not None and os.path.isdir(folder)
        assert log.read_text() == f"-d {folder}\n"
    assert log.read_text() == f"-d {folder}\nquit {folder}\n"
    assert not os.path.exists(folder)
    control.write_text("#!/bin/sh\nexit 1\n")
    with multi_process_service() as nothing:
        assert nothing is None


def test_no_experiment_begins_when_no_time_is_left() -> None:
    (record,) = runner._run("B", "ranks --n 2", 5.0)
    assert record["skipped"] == "no time is left"
