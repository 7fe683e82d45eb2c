"""``simgrid-ml doctor``: what this host can do, and for each "no" what to do about it.

A check answers *yes*, *limited* (everything works, less faithfully; it says what is lost) or
*no* (runs will fail). Nothing is changed, and nothing outside this host is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import click

from simgrid_ml import wire
from simgrid_ml.cli.console import Screen, json_option, print_json
from simgrid_ml.errors import SimgridError
from simgrid_ml.units import format_bytes

__all__ = ["Answer", "doctor", "examine"]

MARKS = {"yes": ("+", "green"), "limited": ("~", "yellow"), "no": ("-", "red")}
NEEDED_BYTES = 4 * 2**30
"""A PyTorch environment, its downloads, and Horovod's build."""


@dataclass(frozen=True)
class Answer:
    """What one check found."""

    check: str
    answer: str
    found: str
    remedy: str = ""


def examine() -> Iterator[Answer]:
    """All checks, in the order in which a run needs what they look at; a crash is a "no"."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:
            name = check.__name__.strip("_").replace("_", " ")
            yield Answer(name, "no", f"the check failed: {error!r}", "please report this")


@click.command()
@click.option("--image", metavar="NAME", help="Look at this container image instead of the host.")
@json_option
def doctor(image: str | None, as_json: bool) -> int:
    """What this host can do, and how to make it do more. Exit code 5 if runs will fail."""
    answers = []
    with Screen() as screen:
        for answer in examine() if image is None else _image(image):
            answers.append(answer)
            if as_json:
                continue
            sign, colour = MARKS[answer.answer]
            screen.line(
                f"{screen.style(sign, fg=colour, bold=True)} {answer.check}: {answer.found}"
            )
            if answer.remedy:
                screen.line(f"    Try: {answer.remedy}")
    missing = sum(answer.answer == "no" for answer in answers)
    limited = sum(answer.answer == "limited" for answer in answers)
    if as_json:
        print_json({"ok": not missing, "checks": [asdict(answer) for answer in answers]})
    elif missing:
        where = "on this host" if image is None else "in this image"
        click.echo(f"\n{missing} of {len(answers)} checks say no: runs {where} will fail.")
    elif limited:
        click.echo(f"\nRuns work here; {limited} of {len(answers)} checks name something lost.")
    else:
        click.echo(f"\nThis {'host' if image is None else 'image'} can do everything.")
    return 5 if missing else 0


# -- the checks ----------------------------------------------------------------------------


def _python() -> Iterator[Answer]:
    version = ".".join(map(str, sys.version_info[:3]))
    if not sys.platform.startswith("linux"):
        yield Answer("system", "no", sys.platform, "virtual nodes need Linux")
    yield Answer("Python", "yes", f"{version}, {sys.executable}")
    yield Answer(
        "cores", "yes", f"{len(os.sched_getaffinity(0))} for this process; ranks share them"
    )


def _uv() -> Iterator[Answer]:
    from simgrid_ml.environments.tools import uv_binary

    try:
        path = uv_binary()
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    except (SimgridError, OSError, subprocess.SubprocessError) as error:
        remedy = getattr(error, "remedy", "") or "python -m pip install --force-reinstall uv"
        yield Answer("uv", "no", f"cannot be run: {error}", remedy)
        return
    yield Answer("uv", "yes", f"{said.stdout.strip()}, builds environments")


def _compiler() -> Iterator[Answer]:
    import sysconfig

    from simgrid_ml.cli.demo import has_compiled_horovod

    built = has_compiled_horovod()
    spare = "not needed: a compiled Horovod is in the cache"
    names = filter(None, (os.environ.get("CXX"), "g++", "c++", "clang++"))
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found:
        yield Answer("C++ compiler", "yes", found)
    elif built:
        yield Answer("C++ compiler", "limited", f"none; {spare}", "apt-get install g++")
    else:
        yield Answer(
            "C++ compiler", "no", "none; Horovod must be compiled once", "apt-get install g++"
        )
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    package = f"apt-get install python{sys.version_info[0]}.{sys.version_info[1]}-dev"
    if os.path.exists(header):
        yield Answer("Python headers", "yes", header)
    elif built:
        yield Answer("Python headers", "limited", f"none; {spare}", package)
    else:
        yield Answer(
            "Python headers", "no", f"no {header}; Horovod is compiled against it", package
        )


def isolation_of_nodes() -> tuple[tuple[str, ...], list[str]]:
    """What the nodes of a run would have of their own here, and why not more."""
    from simgrid_ml.backends.process import ISOLATION_VARIABLE, wanted_isolation
    from simgrid_ml.node import isolation

    wanted = wanted_isolation()
    have, refused = isolation.probe(wanted)
    if wanted != isolation.FULL:
        refused = [f"{ISOLATION_VARIABLE} is {os.environ[ISOLATION_VARIABLE]}", *refused]
    return have, refused


def _isolation() -> Iterator[Answer]:
    from simgrid_ml.backends.process import ISOLATION_VARIABLE

    have, refused = isolation_of_nodes()
    allow = (
        "allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 "
        "kernel.apparmor_restrict_unprivileged_userns=0; in a container, run it with "
        "--security-opt seccomp=unconfined, or --cap-add SYS_ADMIN"
    )
    if os.environ.get(ISOLATION_VARIABLE):
        allow = f"unset {ISOLATION_VARIABLE}"
    name = "isolation of nodes"
    if "pid" in have:
        yield Answer(name, "yes", f"each node has its own {', '.join(have)}")
    elif "hostname" in have:
        yield Answer(
            name, "limited",
            f"own hostname only ({'; '.join(refused)}); what a node leaves running is ended by "
            "its agent, not by the kernel", allow,
        )  # fmt: skip
    elif shutil.which("cc") or shutil.which("gcc"):
        yield Answer(
            name, "limited",
            f"none ({'; '.join(refused)}); a preloaded library gives nodes their names", allow,
        )  # fmt: skip
    else:
        yield Answer(
            name, "no", f"none ({'; '.join(refused)}), and no C compiler for the substitute",
            f"apt-get install gcc, or {allow}",
        )  # fmt: skip


def _cgroups() -> Iterator[Answer]:
    root = "/sys/fs/cgroup"
    if not os.path.isdir(root):
        yield Answer("cgroups", "limited", "none: memory limits are not seen", "mount cgroup2")
        return
    version = "v2" if os.path.exists(os.path.join(root, "cgroup.controllers")) else "v1"
    can = "writable" if os.access(root, os.W_OK) else "read only"
    yield Answer("cgroups", "yes", f"{version}, {can}; the process backend needs none")


def _inotify() -> Iterator[Answer]:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC) if hasattr(libc, "inotify_init1") else -1
    if fd >= 0:
        os.close(fd)
        yield Answer("inotify", "yes", "log lines are shown when they are written")
    else:
        yield Answer(
            "inotify", "limited", "none left: logs are looked at 50 times a second",
            "sysctl -w fs.inotify.max_user_instances=1024",
        )  # fmt: skip


def _network() -> Iterator[Answer]:
    import socket

    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", 0))
        except OSError as error:
            yield Answer("loopback", "no", f"127.0.0.1: {error.strerror}", "ip link set lo up")
            return
    yield Answer("loopback", "yes", "nodes talk over lo, 127.0.0.1")


def _disk() -> Iterator[Answer]:
    from simgrid_ml.record.store import cache_home, state_home

    for name, path, variable in (
        ("runs", state_home(), wire.STATE_HOME_VARIABLE),
        ("cache", cache_home(), wire.CACHE_HOME_VARIABLE),
    ):
        there = path
        while not os.path.exists(there):
            there = os.path.dirname(there)
        if not os.access(there, os.W_OK):
            yield Answer(name, "no", f"{path} cannot be written", f"set ${variable} to a folder")
            continue
        free = shutil.disk_usage(there).free
        room = f"{path}, {format_bytes(free)} free"
        if name == "runs" and free < 2**28:
            yield Answer(name, "no", room, "`simgrid-ml runs delete`, or set $" + variable)
        elif name == "cache" and free < NEEDED_BYTES:
            yield Answer(
                name, "limited",
                f"{room}; a new environment takes up to {format_bytes(NEEDED_BYTES)}",
                "`simgrid-ml env prune`, or set $" + variable,
            )  # fmt: skip
        else:
            yield Answer(name, "yes", room)


def _environments() -> Iterator[Answer]:
    from simgrid_ml.environments.cache import Cache

    entries = Cache.default().entries()
    if not entries:
        yield Answer("environments", "yes", "none yet; the first run builds what it needs")
        return
    size = format_bytes(sum(entry.size_bytes for entry in entries))
    yield Answer("environments", "yes", f"{len(entries)} in the cache, {size}")


def _open_mpi() -> Iterator[Answer]:
    settings = settings_in_force()
    wanted = {"bind-to": "none", "mpi_yield_when_idle": "1", "btl": "self,sm,tcp"}
    missing = [key for key, value in wanted.items() if settings.get(key) != value]
    found = ", ".join(f"{key} {settings.get(key)}" for key in wanted)
    if missing:
        yield Answer("Open MPI settings", "no", f"not in force: {', '.join(missing)}", "reinstall")
    else:
        yield Answer("Open MPI settings", "yes", f"{found} (idle: when ranks share cores)")


def settings_in_force() -> dict[str, str]:
    """What the launcher would set for four ranks on one core."""
    from simgrid_ml.launch import mpi
    from simgrid_ml.launch.plan import Tools
    from simgrid_ml.spec.cluster import ClusterSpec
    from simgrid_ml.spec.job import JobSpec, Mpi
    from simgrid_ml.spec.placement import HostInventory, place

    job = JobSpec(source="/", entry_script="x", distribution=Mpi(nodes=2, processes_per_node=2))
    placement = place(job, ClusterSpec(name="doctor"), HostInventory(1, 2**30))
    tools = Tools(("rank",), "/", "rsh", "lo", False)
    return dict(mpi.plan(job, placement, tools).settings)


def _backends() -> Iterator[Answer]:
    from simgrid_ml.engine import plugins

    names = plugins.backend_names()
    if names:
        yield Answer("backends", "yes", ", ".join(names))
    else:
        yield Answer("backends", "no", "none", "reinstall simgrid-ml: its entry points are missing")


def _docker() -> Iterator[Answer]:
    from simgrid_ml.cli.doctor_docker import docker_checks

    for row in docker_checks():
        yield Answer(*row)


def _links() -> Iterator[Answer]:
    from simgrid_ml.cli.doctor_links import links_checks

    for row in links_checks():
        yield Answer(*row)


def _gpus() -> Iterator[Answer]:
    from simgrid_ml.cli.doctor_gpus import gpus_checks

    for row in gpus_checks():
        yield Answer(*row)


def _image(name: str) -> Iterator[Answer]:
    from simgrid_ml.cli.doctor_images import examine_image

    yield from examine_image(name)


def _leftovers() -> Iterator[Answer]:
    from simgrid_ml.cli.clean import find_leftovers

    found = find_leftovers()
    if found:
        few = ", ".join(f"{one.kind} {one.name}" for one in found[:3])
        yield Answer("leftovers", "limited", f"{len(found)}: {few}", "simgrid-ml clean --yes")
    else:
        yield Answer("leftovers", "yes", "nothing is left of dead runs")


CHECKS: tuple[Callable[[], Iterator[Answer]], ...] = (
    _python,
    _uv,
    _compiler,
    _isolation,
    _cgroups,
    _inotify,
    _network,
    _disk,
    _environments,
    _open_mpi,
    _backends,
    _docker,
    _links,
    _gpus,
    _leftovers,
)
