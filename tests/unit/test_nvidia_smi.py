"""``nvidia-smi`` of virtual GPUs: what it prints, what it refuses, and how scripts read it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger_kit import UUIDS, two_gpus, used

from simgrid_ml import wire
from simgrid_ml.native import PACKAGE
from simgrid_ml.node import nvidia_smi

Smi = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return two_gpus(tmp_path / "node1")


@pytest.fixture
def smi(ledger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Smi:
    """The exit code, and what was written to stdout and stderr."""

    def call(*argv: str, path: Path = ledger) -> tuple[int, str, str]:
        monkeypatch.setenv(wire.GPU_LEDGER_VARIABLE, str(path))
        code = nvidia_smi.main(list(argv))
        return (code, *capsys.readouterr())

    return call


def test_the_table_is_the_drivers_of_a_k80_and_says_that_it_is_virtual(
    smi: Smi, ledger: Path
) -> None:
    with used(ledger, (0, 300)):
        code, said, _ = smi()
    lines = said.splitlines()
    assert code == 0
    assert {len(line) for line in lines[1:]} == {79}
    assert lines[2] == (
        "| NVIDIA-SMI 470.256.02   Driver Version: 470.256.02   CUDA Version: 11.4     |"
    )
    assert lines[3].startswith("| simgrid-ml: GPUs of node1 are virtual")
    assert lines[13:15] == [
        "|   1  Tesla K80           Off  | 00000002:01:00.0 Off |                  N/A |",
        "| N/A   N/A    P0    N/A / 149W |    300MiB / 11441MiB |      0%      Default |",
    ]
    assert re.fullmatch(rf"\|    1   N/A  N/A +{os.getpid()}      C   python +300MiB \|", lines[-2])


def test_later_drivers_have_a_wider_table(smi: Smi, tmp_path: Path) -> None:
    _, said, _ = smi(path=two_gpus(tmp_path / "h200", "H200"))
    lines = said.splitlines()
    assert {len(line) for line in lines[1:]} == {91}
    assert lines[9:12] == [
        "|   0  NVIDIA H200                    Off |   00000002:00:00.0 Off "
        "|                  N/A |",
        "| N/A   N/A    P0            N/A /   700W |       0MiB / 143771MiB "
        "|      0%      Default |",
        "|                                         |                        "
        "|             Disabled |",
    ]
    assert "No running processes found" in lines[-2]


def test_a_long_name_is_cut_as_the_real_one_cuts_it(smi: Smi, tmp_path: Path) -> None:
    path = two_gpus(tmp_path / "v100", "V100 PCIe")
    wide = "|   0  Tesla V100-PCIE-16GB           Off |"
    assert wide in smi(path=path)[1]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"550.163.01", b"470.256.02"))
    assert "|   0  Tesla V100-PCIE...  Off  |" in smi(path=path)[1]


def test_the_list_is_what_scripts_count(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # means nothing to the real one either
    assert smi("-L") == (
        0,
        f"GPU 0: Tesla K80 (UUID: {UUIDS[0]})\nGPU 1: Tesla K80 (UUID: {UUIDS[1]})\n",
        "",
    )


def test_fields_are_printed_as_csv(smi: Smi, ledger: Path) -> None:
    asked = "--query-gpu=index,gpu_name,memory.used,memory.free,temperature.gpu,power.limit"
    with used(ledger, (10, 0)):
        assert smi(asked, "--format=csv")[1].splitlines() == [
            "index, name, memory.used [MiB], memory.free [MiB], temperature.gpu, power.limit [W]",
            "0, Tesla K80, 10 MiB, 11431 MiB, [N/A], 149.00 W",
            "1, Tesla K80, 0 MiB, 11441 MiB, [N/A], 149.00 W",
        ]
        assert smi("-i", UUIDS[0], asked, "--format", "csv,noheader,nounits")[1] == (
            "0, Tesla K80, 10, 11431, [N/A], 149.00\n"
        )


def test_processes_are_printed_as_csv_while_they_live(smi: Smi, ledger: Path) -> None:
    asked = ("--query-compute-apps=pid,gpu_uuid,name,used_memory", "--format=csv")
    header = "pid, gpu_uuid, process_name, used_gpu_memory [MiB]\n"
    with used(ledger, (10, 20)):
        mine = f"{os.getpid()}, {UUIDS[0]}, python, 10 MiB\n"
        other = f"{os.getpid()}, {UUIDS[1]}, python, 20 MiB\n"
        assert smi(*asked)[1] == header + mine + other
        assert smi(*asked, "-i", "1")[1] == header + other
    assert smi(*asked)[1] == header


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        ("1", [1]),
        ("1,0", [0, 1]),
        (UUIDS[1], [1]),
        ("00000002:01:00.0", [1]),
        ("0002:00:00.0", [0]),
    ],
)
def test_gpus_are_chosen_by_index_uuid_and_bus_id(smi: Smi, ids: str, shown: list[int]) -> None:
    _, said, _ = smi(f"--id={ids}", "--query-gpu=index", "--format=csv,noheader")
    assert said.split() == [str(gpu) for gpu in shown]


def test_every_field_has_an_answer_and_is_in_the_help(smi: Smi, tmp_path: Path) -> None:
    newer = two_gpus(tmp_path / "a100", "A100 80GB")
    for path, count in ((newer, 2), (tmp_path / "node1", 0)):
        help_text = smi("--help-query-gpu", path=path)[1]
        fields = re.findall(r'^"(.+)"$', help_text, re.M)
        assert fields.count("compute_cap") + fields.count("memory.reserved") == count
        code, said, _ = smi(f"--query-gpu={','.join(fields)}", "--format=csv", path=path)
        assert code == 0
        header, *rows = said.splitlines()
        assert [row.count(", ") for row in rows] == [header.count(", ")] * 2


@pytest.mark.parametrize(
    ("argv", "code", "said", "remedy"),
    [
        (["-i", "2"], 6, "No devices were found", "this node has 0 ("),
        (["--query-gpu=nme", "--format=csv"], 2, 'Field "nme" is not a valid field', ""),
        (["--query-gpu=compute_cap", "--format=csv"], 2, 'Field "compute_cap" is not', ""),
        (["--query-gpu=name"], 2, '"--format=" is missing', ""),
        (["--query-gpu=name", "--format=xml"], 2, '"--format=xml" is not valid', ""),
        (["--format=csv"], 2, 'Option "--format" needs', ""),
        (["topo", "-m"], 2, "Invalid combination", "topo: the GPUs of this node are virtual"),
        (["-pm", "1"], 2, "Invalid combination", "-pm"),
        (["-L", "-q"], 2, "Invalid combination", "exclude each other"),
        (["-i"], 2, 'Option "-i" is missing its value', ""),
        (["-l", "0"], 2, "needs a number above 0", ""),
    ],
)
def test_what_it_cannot_answer_is_refused(
    smi: Smi, argv: list[str], code: int, said: str, remedy: str
) -> None:
    got, out, err = smi(*argv)
    assert (got, said in out, remedy in err) == (code, True, True)


def test_without_a_ledger_there_is_no_driver(smi: Smi, tmp_path: Path) -> None:
    code, said, remedy = smi(path=tmp_path / "none")
    assert code == 9
    assert said.startswith("NVIDIA-SMI has failed because it couldn't communicate with")
    assert str(tmp_path / "none") in remedy


def test_it_tells_versions_details_and_help(smi: Smi, ledger: Path, tmp_path: Path) -> None:
    assert "DRIVER version      : 470.256.02" in smi("--version")[1]
    assert "--query-gpu=FIELD" in smi("-h")[1]
    with used(ledger, (0, 64)):
        said = smi("-q", "-i", "1", "-f", str(tmp_path / "log"))[1]
    told = (tmp_path / "log").read_text()
    assert said == ""
    assert re.search(rf"^    GPU UUID +: {UUIDS[1]}$", told, re.M)
    assert re.search(r"^            Used GPU Memory +: 64 MiB$", told, re.M)
    assert UUIDS[0] not in told


def test_a_busy_process_makes_its_gpu_busy(ledger: Path) -> None:
    """By its path, as nodes run it; the one that computes is another process."""
    computing = (
        "import sys; from simgrid_ml.node.gpu_ledger import Ledger\n"
        "l = Ledger(sys.argv[1]); l.claim(name='python'); l.put(1, 2**20); print(flush=True)\n"
        "while True: pass"
    )
    script = os.path.join(PACKAGE, "node", "nvidia_smi.py")
    asked = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen(
        [sys.executable, "-c", computing, str(ledger)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            looked = [
                subprocess.run(
                    [sys.executable, "-I", "-S", script, *asked],
                    capture_output=True,
                    text=True,
                    check=True,
                    env={wire.GPU_LEDGER_VARIABLE: str(ledger)},
                ).stdout.split()
                for _ in range(2)
            ]
        finally:
            other.kill()
    assert all(idle == "0" and 0 < int(busy) <= 100 for idle, busy in looked), looked


def test_a_loop_goes_on_until_it_is_ended_and_has_one_header(ledger: Path) -> None:
    script = os.path.join(PACKAGE, "node", "nvidia_smi.py")
    argv = [sys.executable, "-I", "-S", script, "--query-gpu=index", "--format=csv", "-lms", "5"]
    environment = {wire.GPU_LEDGER_VARIABLE: str(ledger)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as loop:
        assert loop.stdout is not None
        lines = [loop.stdout.readline().strip() for _ in range(7)]
        loop.send_signal(2)
        loop.stdout.close()
        assert loop.wait(30) == 130
    assert lines == ["index", *["0", "1"] * 3]
