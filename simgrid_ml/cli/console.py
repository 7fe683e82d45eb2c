"""What commands print with: JSON, tables, errors, and a screen with one live line at its foot.

Into a pipe goes plain text: no control codes, nothing cut to a width.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO, TypeVar

import click

__all__ = [
    "RANK_COLOURS",
    "Screen",
    "json_option",
    "plain_text",
    "print_error",
    "print_json",
    "print_table",
    "print_text",
    "sparkline",
]

RANK_COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "bright_red", "bright_cyan", "white")

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Adds ``--json``; errors then come as JSON on stdout, too."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
        ctx.find_root().meta["simgrid_ml.json"] = value
        return value

    option = click.option(
        "--json", "as_json", is_flag=True, callback=remember, help="Print JSON on stdout."
    )
    return option(command)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


def print_error(error: Mapping[str, Any]) -> None:
    """An error as ``SimgridError.to_json`` gives it: cause, what was seen, what to do."""
    cause = str(error.get("cause") or "no cause was recorded")
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {plain_text(cause)}", err=True)
    for line in str(error.get("evidence") or "").splitlines():
        click.echo("  " + plain_text(line), err=True)
    if error.get("remedy"):
        click.echo(f"{click.style('Try:', bold=True)} {error['remedy']}", err=True)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], indent: int = 0) -> None:
    """Aligned columns. On a terminal long cells are folded, in a pipe nothing is."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    on_terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(headers))
    for number, header in enumerate(headers):
        table.add_column(Text(header, "bold"), overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text.from_ansi(cell) for cell in row))
    console = Console(width=None if on_terminal else 100_000, highlight=False)
    with console.capture() as captured:
        console.print(Padding(table, (0, 0, 0, indent), expand=False))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def print_text(text: str, indent: int = 0) -> None:
    """A sentence; on a terminal it is wrapped at words, with its lines one below the other."""
    if sys.stdout.isatty():
        width = max(20, shutil.get_terminal_size().columns)
        first, later = " " * indent, " " * (indent + 2)
        text = click.wrap_text(text, width, initial_indent=first, subsequent_indent=later)
        click.echo(text)
    else:
        click.echo(" " * indent + text)


_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: titles, links
    r"|\x1b[@-Z\\^_]"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)


def plain_text(line: str) -> str:
    """A line without control codes; of a progress bar's repaints, what stood there last.

    >>> plain_text("\\x1b[31mred\\x1b[0m"), plain_text("10%\\r100%")
    ('red', '100%')
    """
    line = line.rstrip("\r\n")
    if "\r" in line:
        line = line[line.rindex("\r") + 1 :]
    return _CONTROL.sub("", line)


def sparkline(values: Sequence[float], low: float | None = None) -> str:
    """Values as bars from the least, or from ``low``, to the greatest.

    >>> sparkline([1, 2, 3])
    '▁▅█'
    """
    finite = [v for v in values if v == v and abs(v) != float("inf")]
    if not finite:
        return ""
    low = min(finite) if low is None else low
    span = (max(finite) - low) or 1.0
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[int((v - low) / span * 7 + 0.5)] for v in finite)


class Screen:
    """Lines that scroll, above one line that is repainted while something lasts.

    Without a terminal only the lines are printed.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.is_live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.has_colour = self.is_live and not os.environ.get("NO_COLOR")
        encoding = (getattr(self.stream, "encoding", None) or "ascii").lower()
        self.has_unicode = encoding.startswith("utf")
        self.spinner = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if self.has_unicode else "|/-\\"
        self._status = ""

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.status("")

    def style(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self.has_colour else text

    def lines(self, lines: Sequence[str]) -> None:
        """Print above the live line, all at once: a rank may print faster than we can paint."""
        if not lines:
            return
        text = "\n".join(lines) + "\n"
        if self._status:
            text = "\r\x1b[K" + text + self._status
        self._write(text)

    def line(self, text: str = "") -> None:
        self.lines([text])

    def status(self, text: str) -> None:
        """Repaint the live line; empty removes it."""
        if not self.is_live:
            return
        if text:
            width = shutil.get_terminal_size().columns - 3
            turn = self.spinner[int(time.monotonic() * 10) % len(self.spinner)]
            shown = text if len(text) <= width else text[: width - 1] + "…"
            text = f"{self.style(turn, fg='cyan')} {shown}"
        if text or self._status:
            self._write("\r\x1b[K" + text)
        self._status = text

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:  # a terminal in the C locale
            encoding = self.stream.encoding or "ascii"
            self.stream.write(text.encode(encoding, "replace").decode(encoding))
        self.stream.flush()
