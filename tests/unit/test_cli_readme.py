"""The commands of README and docs exist, with those options; run file and snippet are valid."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from cli_support import CommandLine, cli

from simgrid_ml.cli.main import cli as root
from simgrid_ml.engine import prepare
from simgrid_ml.spec.links import resolved
from simgrid_ml.spec.links_text import parse_links

__all__ = ["cli"]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/*.md")))


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str = README) -> list[str]:
    lines = [line for block in blocks("bash", text) for line in block.splitlines()]
    words = [part.strip() for line in lines for part in line.split("#")[0].split("&&")]
    inline = re.findall(r"`(simgrid-ml [^`]+)`", text)
    found = [one for one in [*words, *inline] if one.startswith("simgrid-ml")]
    return [one for one in found if not {"…", "..."} & set(one.split())]  # named, not said whole


@pytest.mark.parametrize("line", dict.fromkeys([*commands(), *commands(DOCS)]))
def test_every_command_in_readme_and_docs_is_understood(line: str) -> None:
    context: click.Context = click.Context(root, info_name="simgrid-ml")
    command: click.Command = root
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, line
        command, context = found, click.Context(found, info_name=name, parent=context)
        if not words:
            return  # a group or command named alone
    command.make_context(command.name, words, parent=context.parent)


def test_the_readme_shows_the_commands_a_newcomer_needs() -> None:
    first_screen = README.split("## ")[0]
    assert "python3 -m pip install . && simgrid-ml demo" in first_screen
    assert "tox" in first_screen
    assert {"runs", "demo", "doctor", "python"} <= {shlex.split(one)[1] for one in commands()}


def test_the_run_file_of_the_readme_is_valid(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        prepare, "submit", lambda job, cluster, **_: seen.append(job) or cli.run("x")
    )
    text, _ = blocks("yaml")
    assert yaml.safe_load(text)["job"]["entry_script"] == "train.py"
    Path("run.yaml").write_text(text)
    said = cli("run", "--detach", "run.yaml")
    assert said.code == 0, said.err
    assert seen[0].arguments == ("--epochs", "3")


def test_the_links_of_the_readme_are_valid() -> None:
    _, text = blocks("yaml")
    cluster = yaml.safe_load(text)["cluster"]
    links = resolved(parse_links(cluster["links"]), ("node0", "node1", "node2", "node3"), None)
    assert links.of("node3").rate_bytes_per_s == 1e9 / 8
    assert [rack.uplink.rate_bytes_per_s for rack in links.racks] == [1e9 / 8, 1e9 / 8]


@pytest.mark.parametrize("folder", sorted((Path(__file__).parents[2] / "scenarios").iterdir()))
def test_the_run_file_of_every_scenario_is_valid(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    seen = []
    monkeypatch.setattr(
        prepare, "submit", lambda job, cluster, **_: seen.append(job) or cli.run("x")
    )
    said = cli("run", "--detach", str(folder / "run.yaml"))
    assert said.code == 0, said.err
    assert (folder / seen[0].entry_script).is_file()
    assert (folder / "README.md").is_file()


def test_the_names_in_the_drivers_of_readme_and_docs_can_be_imported(
    cli: CommandLine, tmp_path: Path
) -> None:
    texts = [*blocks("python"), *blocks("python", DOCS)]
    for text in texts:
        ast.parse(text)
    lines = [line for text in texts for line in text.splitlines()]
    imports = [line for line in lines if line.startswith("from azureml.")]
    assert len(imports) >= 8
    (tmp_path / "driver.py").write_text("\n".join(imports))
    done = subprocess.run(
        [sys.executable, "-m", "simgrid_ml", "python", "driver.py"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_links_of_readme_and_docs_lead_to_files_and_the_readme_to_every_page() -> None:
    pages = sorted(ROOT.glob("docs/*.md"))
    for page in (ROOT / "README.md", *pages):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), (page, target)
    assert [page.name for page in pages if f"(docs/{page.name})" not in README] == []
