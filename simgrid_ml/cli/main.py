"""The root command: finds the others by name, and turns every error into text and an exit code.

Importing all commands for ``--help`` would cost more than the whole budget of a start, so the
root knows their names and one line about each, and imports a command's file when it is called.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import Any

import click

from simgrid_ml import __version__
from simgrid_ml.errors import SimgridError, UsageError

__all__ = ["cli", "run"]

COMMANDS = {
    "demo": ("simgrid_ml.cli.demo:demo", "Train a small network on virtual nodes. Start here."),
    "run": ("simgrid_ml.cli.run:run", "Run a script, or the job of a run.yaml."),
    "runs": ("simgrid_ml.cli.runs:runs", "List, show, follow, download, cancel, delete runs."),
    "tensorboard": (
        "simgrid_ml.cli.tensorboard:tensorboard",
        "Show runs in TensorBoard, live or past.",
    ),
    "python": ("simgrid_ml.cli.python:python", "Run a driver script; `import azureml` works."),
    "exec": ("simgrid_ml.cli.shell:exec_", "Run a command inside a node of a live run."),
    "shell": ("simgrid_ml.cli.shell:shell", "Open a shell inside a node of a live run."),
    "cluster": ("simgrid_ml.cli.cluster:cluster", "Create, list, change, delete clusters."),
    "env": ("simgrid_ml.cli.env:env", "List, build, show, prune environments."),
    "images": ("simgrid_ml.cli.images:images", "List, map, check the images nodes are made from."),
    "gpus": ("simgrid_ml.cli.gpus:gpus", "Show what is behind nodes' GPUs, and who uses them."),
    "link": ("simgrid_ml.cli.link:link", "Show and change the links of a live run."),
    "doctor": (
        "simgrid_ml.cli.doctor:doctor",
        "What this host can do, and how to make it do more.",
    ),
    "clean": ("simgrid_ml.cli.clean:clean", "Find what dead runs left behind, and remove it."),
}

EXIT_CODES = """\b
Exit codes:
  0  ok                  3  a check could not decide
  1  the job failed      4  a check did not pass
  2  usage               5  the host or a node failed"""


class LazyGroup(click.Group):
    """A group whose commands live in files of their own, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            if not near or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, "-V", "--version", prog_name="simgrid-ml")
def cli() -> None:
    """Run Azure ML training jobs on virtual nodes of this machine: real Open MPI, real Horovod,
    no cloud.

    `simgrid-ml demo` shows everything once; `simgrid-ml COMMAND --help` explains a command.
    """


def run(arguments: list[str]) -> int:
    """The whole command line; never raises for what a user did."""
    from simgrid_ml.cli.console import print_json

    wants_json = False
    try:
        with cli.make_context("simgrid-ml", list(arguments)) as root:
            try:
                code = cli.invoke(root)
            finally:
                wants_json = bool(root.meta.get("simgrid_ml.json"))
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        click.echo("Aborted.", err=True)
        return 130
    except KeyboardInterrupt:
        click.echo("", err=True)
        return 130
    except click.ClickException as error:
        if "--json" in arguments:
            print_json({"error": UsageError(error.format_message()).to_json()})
        error.show()
        return 2
    except SimgridError as error:
        return _say(error, wants_json)
    except BrokenPipeError:
        # The reader went away (`| head`). Python would complain once more when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _say(_crashed(error), wants_json)


def _say(error: SimgridError, wants_json: bool) -> int:
    from simgrid_ml.cli.console import print_error

    if wants_json:
        from simgrid_ml.cli.console import print_json

        print_json({"error": error.to_json()})
    print_error(error.to_json())
    return error.exit_code


def _crashed(error: Exception) -> SimgridError:
    """A fault of ours, or of the host: one line for the reader, the rest in a file."""
    import traceback

    said = f"{type(error).__name__}: {error}".splitlines()[0]
    report = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        path = _write_crash_log(report)
    except OSError as unwritten:
        return SimgridError(
            f"simgrid-ml failed: {said}",
            evidence=report,
            remedy=f"the report could not be kept in a file ({unwritten})",
        )
    return SimgridError(
        f"simgrid-ml failed: {said}",
        remedy=f"see {path}; `simgrid-ml doctor` checks this host",
    )


def _write_crash_log(report: str) -> str:
    from simgrid_ml.record.store import state_home

    folder = os.path.join(state_home(), "crashes")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log")
    header: dict[str, Any] = {
        "version": __version__,
        "python": sys.version.split()[0],
        "command": sys.argv,
    }
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.writelines(f"{key}: {value}\n" for key, value in header.items())
        stream.write("\n" + report)
    return path
