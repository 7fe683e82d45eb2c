"""pip's configuration, read as pip reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simgrid_ml.environments.indexes import Indexes, configured


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_configuration_is_pypi(tmp_path: Path) -> None:
    found = configured({"PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)})
    assert found == Indexes()
    assert "UV_DEFAULT_INDEX" not in found.uv_environment({})


def test_later_files_win_and_variables_win_over_files(tmp_path: Path) -> None:
    home, prefix = tmp_path / "home", tmp_path / "venv"
    write(home / ".pip/pip.conf", "[global]\nindex-url = https://legacy/\ncert = /legacy.pem\n")
    write(home / ".config/pip/pip.conf", "[global]\nindex-url = https://user/\nproxy = http://p\n")
    write(prefix / "pip.conf", "[global]\nindex-url = https://site/\n")
    variables = {"HOME": str(home), "XDG_CONFIG_DIRS": str(tmp_path / "none")}
    found = configured(variables, prefix=str(prefix))
    assert (found.index_url, found.cert, found.proxy) == (
        "https://site/",
        "/legacy.pem",
        "http://p",
    )
    variables["PIP_INDEX_URL"] = "https://variable/"
    assert configured(variables, prefix=str(prefix)).index_url == "https://variable/"


def test_a_named_file_takes_the_place_of_the_users(tmp_path: Path) -> None:
    write(tmp_path / ".config/pip/pip.conf", "[global]\nindex-url = https://user/\n")
    own = write(tmp_path / "own.conf", "[global]\nno-index = true\n")
    found = configured({"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(own)}, prefix=str(tmp_path))
    assert (found.index_url, found.no_index) == (None, True)


def test_the_install_section_wins_over_the_global_one(tmp_path: Path) -> None:
    own = write(
        tmp_path / "own.conf",
        "[install]\nfind-links =\n    /wheels\n    https://example.org/w\n"
        "[global]\nfind_links = /other\ntrusted-host = a b\n",
    )
    found = configured({"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(own)}, prefix=str(tmp_path))
    assert found.find_links == ("/wheels", "https://example.org/w")
    assert found.trusted_hosts == ("a", "b")


def test_a_broken_file_counts_as_empty(tmp_path: Path) -> None:
    own = write(tmp_path / "own.conf", "index-url = https://no-section/\n")
    assert (
        configured({"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(own)}, prefix="/x").index_url
        is None
    )


@pytest.mark.parametrize("key", ["index-url", "extra-index-url", "find-links", "cert"])
def test_pip_itself_reads_the_same(tmp_path: Path, key: str) -> None:
    """The oracle: ``pip config get`` of the pip that is installed, where one is."""
    home = tmp_path / "home"
    write(home / ".config/pip/pip.conf", f"[global]\n{key} = /one\n")
    write(home / ".pip/pip.conf", f"[global]\n{key} = /two\n")
    variables = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_CONFIG_DIRS": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{key}"],
        env=variables,
        capture_output=True,
        text=True,
    )
    if "No module named pip" in answer.stderr:
        pytest.skip("pip is not installed here")
    found = configured(variables)
    value = getattr(found, key.replace("-", "_") + "s", None) or getattr(
        found, key.replace("-", "_"), None
    )
    assert (value[0] if isinstance(value, tuple) else value) == answer.stdout.strip()


def test_uv_gets_variables_and_not_options() -> None:
    found = Indexes(
        index_url="https://joe:secret@example.org/simple",
        extra_index_urls=("https://a", "https://b"),
        find_links=("/w",),
        cert="/c.pem",
    )
    result = found.uv_environment({"VIRTUAL_ENV": "/v", "PYTHONPATH": "/p", "HOME": "/h"})
    assert result["UV_DEFAULT_INDEX"] == "https://joe:secret@example.org/simple"
    assert result["UV_INDEX"] == "https://a https://b"
    assert result["UV_FIND_LINKS"] == "/w"
    assert result["SSL_CERT_FILE"] == "/c.pem"
    assert result["HOME"] == "/h"
    assert not result.keys() & {"VIRTUAL_ENV", "PYTHONPATH"}


def test_what_is_set_for_uv_stays() -> None:
    result = Indexes(index_url="https://pip").uv_environment({"UV_DEFAULT_INDEX": "https://uv"})
    assert result["UV_DEFAULT_INDEX"] == "https://uv"


def test_an_error_shows_no_password() -> None:
    shown = Indexes(index_url="https://joe:secret@example.org/simple").described()
    assert "secret" not in shown
    assert "example.org" in shown


def test_a_wheel_put_into_find_links_asks_anew(tmp_path: Path) -> None:
    found = Indexes(find_links=(str(tmp_path),))
    before = found.fingerprint()
    assert found.fingerprint() == before
    (tmp_path / "x-1-py3-none-any.whl").touch()
    os.utime(tmp_path, (1, 1))
    assert found.fingerprint() != before
