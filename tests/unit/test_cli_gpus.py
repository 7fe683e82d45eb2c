"""``simgrid-ml gpus``, and what other commands say of GPUs: hosts and runs are written by hand."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_support import COMPLETED, RUN_TO_THE_END, CommandLine, cli
from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml import wire
from simgrid_ml.cli.console import Screen
from simgrid_ml.cli.gpu_options import CARRIERS, SHARINGS
from simgrid_ml.cli.gpu_story import in_a_line, over_time
from simgrid_ml.cli.watch import _Stages
from simgrid_ml.engine import plugins
from simgrid_ml.engine.gpus import LiveGpus
from simgrid_ml.node.gpu_ledger import Ledger
from simgrid_ml.record.journal import Journal, write_json
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.gpu_plan import plan_gpus
from simgrid_ml.spec.gpus import GpuSharing, HostGpu, HostGpus, NcclChoice
from simgrid_ml.spec.placement import HostInventory

__all__ = ["cli"]

MIB, GIB = 2**20, 2**30
NONE = HostGpus(why_none="the host has no NVIDIA driver")
TWO = HostGpus(
    gpus=tuple(HostGpu(f"GPU-{n}", "NVIDIA H200", 140 * GIB, 132, (9, 0)) for n in range(2)),
    driver="580.159",
    cuda="13.0",
)


@dataclass
class _Host:
    """A backend, as far as anybody asks it what the host has."""

    gpus: HostGpus

    def inventory(self) -> HostInventory:
        return HostInventory(cpus=8, memory_bytes=64 * GIB, gpus=self.gpus)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> _Host:
    """A host without GPUs, until the test gives it some."""
    made = _Host(NONE)
    monkeypatch.setattr(plugins, "backend", lambda name: made)
    return made


def gpu_run(cli: CommandLine, *states: RunState) -> RunRecord:
    """A run on two nodes of two K80 each, of which rank 1 has used a GPU."""
    record = cli.run("digits_1_aa", *states)
    cluster = ClusterSpec(name="local", vm_size="Standard_NC12")
    plan = plan_gpus(cluster, ("node0", "node1"), NONE, memory_bytes=64 * GIB)
    LiveGpus(record, plan, lambda *_, **__: None)
    tasks = [{"rank": rank, "name": f"rank-{rank}", "node": f"node{rank}"} for rank in (0, 1)]
    write_json(record.file(wire.PLACEMENT), {"tasks": tasks})
    return record


def write_memory(record: RunRecord, *, ended: bool = True) -> None:
    journal = Journal(record.file(wire.GPU_MEMORY))
    for second, used in enumerate((0, 300, 200)):
        journal.append({"t": 1000.0 + second, "used": {"node0": [0, 0], "node1": [0, used * MIB]}})
    if ended:
        rank = {"pid": 8, "rank": 1, "name": "python", "bytes": [0, 0], "peaks": [0, 300 * MIB]}
        other = {**rank, "pid": 9, "rank": -1, "name": "helper", "peaks": [MIB, 0]}
        journal.append(
            {
                "t": 1004.0,
                "used": {"node0": [0, 0], "node1": [0, 0]},
                "peaks": {"node0": [MIB, 0], "node1": [0, 300 * MIB]},
                "processes": {"node0": [other], "node1": [rank]},
            }
        )
    journal.close()


# -- what would be -------------------------------------------------------------------------


def test_the_options_are_the_clusters_choices() -> None:
    assert set(SHARINGS) == {one.value for one in GpuSharing}
    assert set(CARRIERS) == {one.value for one in NcclChoice}


def test_without_gpus_nodes_get_host_memory_and_the_reason_is_told(
    cli: CommandLine, host: _Host
) -> None:
    said = cli("gpus", "--vm-size", "standard_nc12", "--nodes", "2")
    assert said.code == 0
    assert "The host has no NVIDIA driver" in said.out
    assert "2 nodes of Standard_NC12 would get" in said.out
    assert "2 nodes x 2 Tesla K80 (11.2 GiB), host memory" in said.out
    assert "exclusive    no   the host has no NVIDIA driver" in said.out


def test_with_gpus_the_best_way_is_chosen_and_every_other_explained(
    cli: CommandLine, host: _Host
) -> None:
    host.gpus = TWO
    told = cli("gpus", "--vm-size", "Standard_NC6", "--nodes", "2", "--json").json
    assert told["chosen"]["backing"] == "whole GPU"
    assert told["ways"]["emulated"]["backing"] == "host memory"
    assert told["ways"]["time-sliced"]["backing"] == "time-sliced GPU"
    assert "error" in told["ways"]["mig"]
    said = cli("gpus", "--vm-size", "Standard_NC6", "--nodes", "3").out
    assert "This host: 2 GPUs, driver 580.159, CUDA up to 13.0" in said
    assert "3 nodes x 1 Tesla K80 (11.2 GiB), time-sliced GPU" in said
    assert "no whole GPU: " in said


def test_what_cannot_be_had_is_an_error_below_what_can(cli: CommandLine, host: _Host) -> None:
    said = cli("gpus", "--gpu-sharing", "mps")
    assert said.code == 2
    assert "emulated     yes" in said.out
    assert "gpu_sharing is mps, but a GPU of 11.2 GiB cannot be had that way" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--vm-size", "Standard_D2_v2"], 0, "1 node of Standard_D2_v2: no GPUs (has none)"),
        (["--gpu-sharing", "none"], 0, "no GPUs (gpu_sharing is none)"),
        (["--vm-size", "Standard_NC7"], 2, "no VM size 'Standard_NC7' is known"),
        (["--vm-size", "host"], 2, "nodes of the size 'host' have no GPUs of their own"),
        (["--follow"], 2, "--follow needs a run"),
        (["latest", "--nodes", "2"], 2, "--nodes cannot be combined with a run"),
    ],
)
def test_questions_without_a_plan_have_an_answer(
    cli: CommandLine, host: _Host, arguments: list[str], code: int, text: str
) -> None:
    said = cli("gpus", *arguments)
    assert (said.code, text in said.out + said.err) == (code, True), said


# -- a run ---------------------------------------------------------------------------------


def test_a_run_that_has_ended_tells_peaks_and_who_they_were(cli: CommandLine) -> None:
    write_memory(gpu_run(cli, *COMPLETED))
    said = cli("gpus", "latest").out
    lines = [line.split() for line in said.splitlines()]
    (row,) = (line for line in lines if line[:2] == ["node1", "1"])
    assert row[3:9] == ["0", "B", "300", "MiB", "11.2", "GiB"]
    assert len(row[9]) == 32
    assert set(row[9]) == set("▁█▆")
    assert ["rank-1", "node1", "1", "8", "ended", "300", "MiB"] in lines
    assert ["helper", "node0", "0", "9", "ended", "1", "MiB"] in lines
    told = cli("gpus", "latest", "--json").json
    assert [gpu["peak_bytes"] for gpu in told["gpus"]] == [MIB, 0, 0, 300 * MIB]
    assert told["gpus"][3]["users"][0]["task"] == "rank-1"
    assert told["gpus"][3]["samples"][1] == [1001.0, 300 * MIB]


def test_a_run_that_goes_on_is_read_from_its_ledgers(cli: CommandLine) -> None:
    record = gpu_run(cli, *RUN_TO_THE_END[:3])
    write_memory(record, ended=False)
    ledger = Ledger(record.file(wire.GPU_LEDGERS, "node1"))
    ledger.claim(rank=1, visible=[1], name="python")
    ledger.put(1, 500 * MIB)
    ledger.put(1, 400 * MIB)
    gpus = cli("gpus", "latest", "--json").json["gpus"]
    assert (gpus[3]["now_bytes"], gpus[3]["peak_bytes"]) == (400 * MIB, 500 * MIB)
    assert gpus[3]["users"][0]["now_bytes"] == 400 * MIB
    ledger.close()
    (user,) = cli("gpus", "latest", "--json").json["gpus"][3]["users"]
    assert (user["now_bytes"], user["peak_bytes"]) == (None, 500 * MIB)


def test_following_prints_every_change_and_then_the_table(cli: CommandLine) -> None:
    write_memory(gpu_run(cli, *COMPLETED))
    lines = cli("gpus", "-f", "latest").out.splitlines()
    assert [line[10:] for line in lines[:2]] == [
        "GPU memory node0 0 B + 0 B, node1 0 B + 0 B of 11.2 GiB",
        "GPU memory node0 0 B + 0 B, node1 0 B + 300 MiB of 11.2 GiB",
    ]
    assert lines[4] == "digits_1_aa: Completed"


def test_a_run_without_gpus_says_so(cli: CommandLine) -> None:
    cli.run("digits_1_aa", *COMPLETED)
    said = cli("gpus", "latest")
    assert said.code == 2
    assert "the nodes of digits_1_aa have no GPUs" in said.err
    assert "GPUs" not in cli("runs", "show", "latest").out


def test_runs_show_has_a_section_about_gpus(cli: CommandLine) -> None:
    write_memory(gpu_run(cli, *COMPLETED))
    said = cli("runs", "show", "latest").out
    assert "2 nodes x 2 Tesla K80 (11.2 GiB), host memory: the host has no NVIDIA driver" in said
    assert "  node1 GPU 1  at most 300 MiB  rank-1 300 MiB" in said.splitlines()
    told = cli("runs", "show", "latest", "--json").json["gpus"]
    assert told["plan"]["model"]["key"] == "K80"
    assert told["gpus"][3]["peak_bytes"] == 300 * MIB


def test_of_many_processes_of_a_gpu_those_that_took_most_are_shown(cli: CommandLine) -> None:
    record = gpu_run(cli, *COMPLETED)
    journal = Journal(record.file(wire.GPU_MEMORY))
    rows = [
        {"pid": n, "rank": 1, "name": "python", "bytes": [0, 0], "peaks": [n * MIB, 0]}
        for n in range(1, 31)
    ]
    used = {"node0": [0, 0], "node1": [0, 0]}
    peaks = {"node0": [0, 0], "node1": [30 * MIB, 0]}
    journal.append({"t": 1.0, "used": used, "peaks": peaks, "processes": {"node1": rows}})
    journal.close()
    (line,) = [x for x in cli("runs", "show", "latest").out.splitlines() if "node1 GPU 0" in x]
    assert line.count("rank-1") == 8 and line.endswith("rank-1 23 MiB, 22 more")


def test_the_live_line_shows_gpu_memory_while_the_job_runs(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    record = gpu_run(cli, *RUN_TO_THE_END[:3])
    stages = _Stages(record, Screen(terminal))
    stages.look(quiet=True)
    stages.paint()
    assert "GPU" not in terminal.getvalue()
    write_memory(record, ended=False)
    stages.paint()
    assert "node1 0 B + 200 MiB of 11.2 GiB" in terminal.getvalue().rpartition("\r")[2]
    record.advance(RunState.FINALIZING)
    stages.look(quiet=True)
    stages.paint()
    assert "GPU" not in terminal.getvalue().rpartition("\r")[2]


def test_many_gpus_are_one_figure_in_a_line() -> None:
    used = {f"node{n}": [0, n * GIB] for n in range(12)}
    text = in_a_line(used, 16 * GIB)
    assert text == "GPU memory at most 11 GiB of 16 GiB (node11 GPU 1)"


def test_a_curve_holds_a_value_until_the_next_sample() -> None:
    assert over_time([(0.0, 0), (1.0, 5), (4.0, 2), (8.0, 2)], 8) == [0, 5, 5, 5, 5, 2, 2, 2]
    assert over_time([(3.0, 7)], 3) == [7, 0, 0]
    assert over_time([], 3) == []


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 2**40)), min_size=1, max_size=200).map(
        sorted
    ),
    st.integers(1, 60),
)
def test_a_curve_keeps_the_peak_whatever_its_width(
    samples: list[tuple[float, int]], width: int
) -> None:
    values = over_time(samples, width)
    assert len(values) == width
    assert max(values) == max(value for _, value in samples)


# -- asking for it -------------------------------------------------------------------------


def test_a_cluster_keeps_how_its_gpus_are_shared(cli: CommandLine) -> None:
    words = ("--vm-size", "Standard_NC6", "--gpu-sharing", "time-sliced", "--nccl", "staged")
    told: dict[str, Any] = cli("cluster", "create", "gpus", *words, "--json").json
    assert (told["gpu_sharing"], told["nccl"]) == ("time-sliced", "staged")
    assert cli("cluster", "update", "gpus", "--gpu-sharing", "emulated").code == 0
    assert cli("cluster", "show", "gpus", "--json").json["gpu_sharing"] == "emulated"


def test_a_dry_run_shows_the_placement_and_the_gpus_and_starts_nothing(
    cli: CommandLine, host: _Host, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("")
    words = ("--nodes", "2", "--processes-per-node", "2", "--vm-size", "Standard_NC12")
    said = cli("run", "--dry-run", *words, "train.py")
    assert said.code == 0, said
    assert "rank-3  node1  1" in said.out
    assert "2 nodes x 2 Tesla K80 (11.2 GiB), host memory" in said.out
    assert "because      the host has no NVIDIA driver" in said.out
    told = cli("run", "--dry-run", "--json", *words, "train.py").json
    assert told["gpus"]["backing"] == "host memory"
    assert [task["node"] for task in told["placement"]["tasks"]] == ["node0"] * 2 + ["node1"] * 2
    assert cli.store.list() == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--vm-size", "Standard_NC7"), "no VM size 'Standard_NC7' is known"),
        (("--vm-size", "Standard_NC6", "--gpu-sharing", "mig"), "gpu_sharing is mig, but"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would(
    cli: CommandLine, host: _Host, tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    (tmp_path / "train.py").write_text("")
    said = cli("run", "--dry-run", *words, "train.py")
    assert (said.code, text in said.err) == (2, True), said


def test_a_dry_run_of_a_run_file(cli: CommandLine, host: _Host, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "run.yaml").write_text("job: {entry_script: train.py, distribution: {kind: mpi}}\n")
    said = cli("run", "--dry-run", "run.yaml")
    assert said.code == 0, said
    assert "GPUs" not in said.out
