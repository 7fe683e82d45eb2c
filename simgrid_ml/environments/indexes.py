"""Where packages come from: pip's own configuration, handed on to uv, which does not read it.

The order is pip's: global, user, site and ``PIP_CONFIG_FILE`` files, later ones win, then ``PIP_*``
variables; in a file ``[install]`` wins over ``[global]``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Indexes", "configured"]

_KEYS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "cert",
    "client-cert",
    "proxy",
)
_TRUE = {"1", "true", "yes", "on", "y", "t"}


class Indexes(NamedTuple):
    """One configuration of pip, as far as finding packages goes."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None

    def uv_environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` with uv's variables for this configuration.

        Variables and not options, as index URLs may carry passwords and options are for all to
        see. What the user set for uv directly stays.
        """
        result = {
            name: value
            for name, value in base.items()
            # Where the user's shell happens to be must not decide where packages go.
            if name not in {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME"}
        }
        result["UV_NO_CONFIG"] = "1"  # nor whose folder it is in
        result["UV_NO_PROGRESS"] = "1"
        result["NO_COLOR"] = "1"
        result.pop("COLUMNS", None)  # uv would break the lines we read
        result["UV_PYTHON_DOWNLOADS"] = "never"

        def default(name: str, value: str | None) -> None:
            if value:
                result.setdefault(name, value)

        default("UV_DEFAULT_INDEX", self.index_url)
        default("UV_INDEX", " ".join(self.extra_index_urls))
        default("UV_FIND_LINKS", ",".join(self.find_links))
        default("UV_INSECURE_HOST", " ".join(self.trusted_hosts))
        default("SSL_CERT_FILE", self.cert)
        default("SSL_CLIENT_CERT", self.client_cert)
        default("ALL_PROXY", self.proxy)
        # pip takes the best version of all indexes, uv by default that of the first that has any.
        default("UV_INDEX_STRATEGY", "unsafe-best-match")
        return result

    @property
    def uv_options(self) -> list[str]:
        """What uv takes from no variable."""
        return ["--no-index"] if self.no_index else []

    def fingerprint(self) -> list[object]:
        """Changes when a resolution may come out differently; cheap."""
        folders = []
        for place in self.find_links:
            try:
                folders.append(os.stat(place.removeprefix("file://")).st_mtime_ns)
            except OSError:
                folders.append(0)
        return [
            self.index_url,
            self.extra_index_urls,
            self.find_links,
            folders,
            self.no_index,
            {
                name: value
                for name, value in os.environ.items()
                if name.startswith("UV_") and ("INDEX" in name or "FIND_LINKS" in name)
            },
        ]

    def described(self) -> str:
        """For an error: where was looked."""
        from simgrid_ml.environments.process import redact

        places = [] if self.no_index else [self.index_url or "PyPI", *self.extra_index_urls]
        return redact(", ".join([*places, *self.find_links]) or "nowhere (no-index is set)")


def configured(
    environment: Mapping[str, str] | None = None, *, prefix: str | None = None
) -> Indexes:
    """The configuration pip would use here.

    Args:
        environment: variables, this process' own if None.
        prefix: the Python whose ``pip.conf`` is the *site* file, the running one if None.
    """
    variables = os.environ if environment is None else environment
    values: dict[str, str] = {}
    for path in _files(variables, prefix or sys.prefix):
        values.update(_read(path))
    for key in _KEYS:
        value = variables.get("PIP_" + key.upper().replace("-", "_"))
        if value:
            values[key] = value
    return Indexes(
        index_url=values.get("index-url"),
        extra_index_urls=_words(values.get("extra-index-url")),
        find_links=tuple(_place(word) for word in _words(values.get("find-links"))),
        no_index=values.get("no-index", "").strip().lower() in _TRUE,
        trusted_hosts=_words(values.get("trusted-host")),
        cert=values.get("cert"),
        client_cert=values.get("client-cert"),
        proxy=values.get("proxy"),
    )


def _files(variables: Mapping[str, str], prefix: str) -> list[Path]:
    own = variables.get("PIP_CONFIG_FILE")
    if own == os.devnull:
        return []
    home = Path(variables.get("HOME") or Path.home())
    site_wide = (variables.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    files = [Path(folder, "pip", "pip.conf") for folder in site_wide if folder]
    files.append(Path("/etc/pip.conf"))
    if not (own and os.path.exists(own)):
        files.append(home / ".pip" / "pip.conf")
        files.append(Path(variables.get("XDG_CONFIG_HOME") or home / ".config", "pip", "pip.conf"))
    files.append(Path(prefix, "pip.conf"))
    if own:
        files.append(Path(own))
    return files


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    import configparser  # only where there is a file

    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}  # pip itself will complain; it is not ours to repair
    values: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            for key, value in parser.items(section):
                values[key.replace("_", "-")] = value
    return {key: value for key, value in values.items() if key in _KEYS and value}


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(text.split()) if text else ()


def _place(word: str) -> str:
    """A find-links entry; relative folders are relative to where pip would be started."""
    return word if re.match(r"[a-z][a-z+]*://", word) else os.path.abspath(word)
