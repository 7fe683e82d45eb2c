"""What a specification was resolved to, and the key under which that is remembered.

Apart from ``resolve``, as finding an environment that exists must cost next to nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import sysconfig
from typing import Any, NamedTuple

from simgrid_ml.environments.cache import Cache, document
from simgrid_ml.environments.catalog import HOROVOD, TENSORFLOW, TORCH, Substitution
from simgrid_ml.environments.indexes import Indexes
from simgrid_ml.record.journal import write_json
from simgrid_ml.spec.job import EnvironmentSpec

__all__ = ["RECIPE", "Host", "Resolution", "remember", "remembered", "resolution_key"]

RECIPE = 1
"""Counted up whenever the same specification shall resolve anew."""


class Host(NamedTuple):
    """What of this machine decides which builds fit; a value, so that tests can write one.

    Attributes:
        interpreter: the Python environments are made from.
        python: its version.
        abi: ``cpython-311-x86_64-linux-gnu``.
        platform: kernel, machine and C library.
        has_gpu: whether an NVIDIA driver is loaded.
    """

    interpreter: str
    python: tuple[int, int, int]
    abi: str
    platform: str
    has_gpu: bool

    @property
    def python_name(self) -> str:
        """``Python 3.11``"""
        return f"Python {self.python[0]}.{self.python[1]}"

    @classmethod
    def here(cls) -> Host:
        # The base interpreter: environments must outlive the one simgrid-ml is installed in.
        base: str = getattr(sys, "_base_executable", None) or sys.executable
        try:
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        except (ValueError, OSError):
            libc = ""
        return cls(
            interpreter=base,
            python=sys.version_info[:3],
            abi=str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag),
            platform=f"{sysconfig.get_platform()} {libc}".strip(),
            has_gpu=os.path.exists("/dev/nvidiactl") or os.path.exists("/proc/driver/nvidia"),
        )


class Resolution(NamedTuple):
    """A lock and how it came about.

    Attributes:
        lock: requirement lines with hashes, as uv installs them.
        packages: name to version, without Horovod.
        horovod: whether Horovod is compiled in addition.
        torch_backend: ``"cpu"`` where PyTorch's own index is used.
        lock_hash: of everything that decides what is in the environment.
        options: index options of the user's requirement files; needed to install as well.
        hooks: behaviours of the releases asked for that ranks restore; of the specification, as
            one lock may stand for releases with and without them.
    """

    lock: str
    packages: dict[str, str]
    horovod: bool
    torch_backend: str | None
    substitutions: tuple[Substitution, ...]
    options: tuple[str, ...]
    lock_hash: str
    hooks: tuple[str, ...]

    @property
    def requirements_file(self) -> str:
        return "".join(f"{line}\n" for line in self.options) + self.lock

    def to_json(self) -> dict[str, Any]:
        return {
            "lock": self.lock,
            "packages": self.packages,
            "horovod": self.horovod,
            "torch_backend": self.torch_backend,
            "substitutions": [one.to_json() for one in self.substitutions],
            "options": list(self.options),
            "lock_hash": self.lock_hash,
            "hooks": list(self.hooks),
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Resolution:
        return cls(
            lock=plain["lock"],
            packages=plain["packages"],
            horovod=plain["horovod"],
            torch_backend=plain["torch_backend"],
            substitutions=tuple(Substitution(**one) for one in plain["substitutions"]),
            options=tuple(plain["options"]),
            lock_hash=plain["lock_hash"],
            hooks=tuple(plain["hooks"]),
        )


def resolution_key(spec: EnvironmentSpec, host: Host, indexes: Indexes) -> str:
    """Changes with everything that may change the result; costs well under a millisecond."""
    files = []
    for line in spec.pip:  # a wheel or folder named by its path may change under its name
        for path in re.findall(r"(?:file://)?(/[^\s;#]+)", line):
            try:
                files.append((path, os.stat(path).st_mtime_ns))
            except OSError:
                continue
    parts = [
        RECIPE,
        TORCH,
        TENSORFLOW,
        HOROVOD,
        spec.framework,
        spec.framework_version,
        spec.pip,
        spec.conda,
        spec.python,
        spec.use_gpu,
        files,
        host.python[:2],
        host.abi,
        host.platform,
        host.has_gpu,
        indexes.fingerprint(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def remembered(cache: Cache, key: str) -> Resolution | None:
    plain = document(cache.resolution(key))
    try:
        return None if plain is None else Resolution.from_json(plain)
    except (KeyError, TypeError):
        return None  # of another version of simgrid-ml


def remember(cache: Cache, key: str, resolution: Resolution) -> None:
    path = cache.resolution(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(str(path), resolution.to_json())
