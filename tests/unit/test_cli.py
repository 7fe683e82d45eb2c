"""The root command: what it offers, and what becomes of every kind of error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cli_support import CommandLine, cli

from simgrid_ml import __version__
from simgrid_ml.cli import main as root
from simgrid_ml.cli import runs as runs_group
from simgrid_ml.errors import HostError

__all__ = ["cli"]


def test_help_names_every_command_and_the_exit_codes(cli: CommandLine) -> None:
    said = cli("--help")
    assert said.code == 0
    for name in root.COMMANDS:
        assert f"\n  {name} " in said.out
    assert "5  the host or a node failed" in said.out


@pytest.mark.parametrize("name", sorted(root.COMMANDS))
def test_every_command_exists_and_explains_itself(cli: CommandLine, name: str) -> None:
    said = cli(name, "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage: simgrid-ml {name} ")


def test_version(cli: CommandLine) -> None:
    assert cli("--version").out == f"simgrid-ml, version {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom simgrid_ml.__main__ import main\nmain(['--help'])\n"
        "heavy = {'rich', 'msgspec', 'yaml', 'psutil', 'asyncio', 'uv', 'packaging',\n"
        "         'simgrid_ml.engine', 'simgrid_ml.azure', 'simgrid_ml.environments'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simgrid_ml", "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"simgrid-ml, version {__version__}"


def test_a_mistyped_command_is_a_usage_error_that_names_the_right_one(cli: CommandLine) -> None:
    said = cli("dmeo")
    assert said.code == 2
    assert "demo" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "show"),
        ("runs", "list", "--limit", "none"),
        ("run",),
        ("run", "--nodes", "0", "x.py"),
        ("run", "nowhere.py"),
        ("runs", "show", "nothing"),
        ("cluster", "show", "nothing"),
        ("exec", "latest", "node0"),
        ("python", "nowhere.py"),
        ("python", "."),
        ("demo", "--era", "E9"),
        ("env", "show", "nothing"),
    ],
    ids=" ".join,
)
def test_a_users_mistake_ends_with_2_and_no_traceback(
    cli: CommandLine, words: tuple[str, ...]
) -> None:
    said = cli(*words)
    assert said.code == 2
    assert "Error:" in said.err
    assert "Traceback" not in said.out + said.err


def test_an_error_says_what_to_do(cli: CommandLine) -> None:
    said = cli("runs", "show", "latest")
    assert said.err == "Error: there are no runs yet\nTry: `simgrid-ml demo` makes the first one\n"


def test_with_json_an_error_is_json_as_well(cli: CommandLine) -> None:
    said = cli("runs", "show", "latest", "--json")
    assert said.code == 2
    assert said.json["error"]["kind"] == "NotFoundError"
    assert said.json["error"]["cause"] == "there are no runs yet"


@pytest.mark.parametrize(
    "words", [("runs", "list", "--limit", "none"), ("runs", "nothing"), ("doctor", "--deeper")]
)
def test_with_json_a_mistyped_command_line_is_json_as_well(
    cli: CommandLine, words: tuple[str, ...]
) -> None:
    said = cli(*words, "--json")
    assert said.code == 2
    assert (said.json["error"]["kind"], said.json["error"]["exit_code"]) == ("UsageError", 2)
    assert said.json["error"]["cause"]


def test_an_error_carries_its_exit_code_and_evidence(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise HostError("no room", evidence="0 bytes\x1b[2J free", remedy="make room")

    monkeypatch.setattr(runs_group.RunStore, "list", refuse)
    said = cli("runs", "list")
    assert said.code == 5
    assert said.err == "Error: no room\n  0 bytes free\nTry: make room\n"


def test_a_defect_prints_one_line_and_keeps_a_crash_log(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise ZeroDivisionError("of ours\nsecond line")

    monkeypatch.setattr(runs_group.RunStore, "list", break_down)
    said = cli("runs", "list")
    assert said.code == 5
    assert said.err.splitlines()[0] == "Error: simgrid-ml failed: ZeroDivisionError: of ours"
    assert "Traceback" not in said.err
    (log,) = (cli.home / "crashes").iterdir()
    assert str(log) in said.err
    text = log.read_text()
    assert "Traceback" in text
    assert "break_down" in text


def test_a_defect_on_a_full_disk_is_shown_instead_of_kept(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise ZeroDivisionError("of ours")

    cli.home.write_text("a file where the folder should be")
    monkeypatch.setattr(runs_group.RunStore, "list", break_down)
    said = cli("runs", "list")
    assert said.code == 5
    assert "break_down" in said.err


def test_a_reader_that_goes_away_is_no_error(cli: CommandLine) -> None:
    for number in range(3):
        cli.run(f"digits_{number}")
    script = f"{sys.executable} -m simgrid_ml runs list --json | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True, env=os.environ,
        check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0
