"""What ``nvidia-smi`` can be asked about virtual GPUs and their processes, as ``--query-...`` names
it.

What only a chip has (temperatures, clocks, fans, ECC counters) is ``[N/A]``, as in a virtual
machine that has been given a part of a GPU.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from simgrid_ml.node.gpu_activity import activity
from simgrid_ml.node.gpu_ledger import Gpu, Ledger, Row

__all__ = ["COMPUTE_APP_FIELDS", "GPU_FIELDS", "Field", "Process", "Seen", "fields_of", "has_mig"]

MIB = 2**20
Value = Union[str, int, float, None]


class Seen:
    """The ledger at one moment; what takes time to know is found out when it is asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.rows = list(ledger.rows())
        self.time = time.time()
        self._busy: Optional[List[Optional[int]]] = None

    @property
    def major(self) -> int:
        """Of the driver's version."""
        return int(self.ledger.driver.partition(".")[0] or 0)

    @property
    def busy(self) -> List[Optional[int]]:
        """See ``gpu_activity``."""
        if self._busy is None:
            self._busy = activity(self.ledger)
        return self._busy

    def used(self, gpu: int) -> int:
        """Bytes that are taken of a GPU."""
        return sum(row.bytes[gpu] for row in self.rows)

    def processes(self, gpus: Sequence[int]) -> "List[Process]":
        """Who uses these GPUs."""
        return [Process(gpu, row) for gpu in gpus for row in self.rows if gpu in row.used]

    def timestamp(self) -> str:
        whole = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(self.time))
        return f"{whole}.{int(self.time % 1 * 1000):03d}"


class Process(NamedTuple):
    """A process on one of the GPUs it uses."""

    gpu: int
    row: Row


class Field(NamedTuple):
    """
    Attributes:
        name: in the header; an alias shows the name it stands for.
        unit: of the value; "": none.
        of: the value for a GPU's number, or a ``Process``; it cannot be known.
        since: major version of the first driver that has the field.
    """

    name: str
    unit: str
    of: "Callable[[Seen, Any], Value]"
    since: int = 0


def has_mig(gpu: Gpu) -> bool:
    """Whether the model can be partitioned by its hardware."""
    return gpu.capability in ((8, 0), (9, 0))


def _gpu(seen: Seen, number: int) -> Gpu:
    return seen.ledger.gpus[number]


def _bus(part: int) -> "Callable[[Seen, int], Value]":
    def of(seen: Seen, number: int) -> Value:
        domain, bus, rest = _gpu(seen, number).bus_id.split(":")
        return "0x" + (domain[4:], bus, rest.partition(".")[0])[part]

    return of


def _nothing(_: Seen, __: int) -> Value:
    return None


def _constant(value: Value) -> "Callable[[Seen, int], Value]":
    return lambda _, __: value


def _power(seen: Seen, number: int) -> Value:
    return float(_gpu(seen, number).power_w) or None


def _mig(seen: Seen, number: int) -> Value:
    return "Disabled" if has_mig(_gpu(seen, number)) else None


def _free(seen: Seen, number: int) -> Value:
    return max(0, _gpu(seen, number).memory_bytes - seen.used(number)) // MIB


_GPU: Tuple[Field, ...] = (
    Field("timestamp", "", lambda seen, _: seen.timestamp()),
    Field("driver_version", "", lambda seen, _: seen.ledger.driver),
    Field("count", "", lambda seen, _: len(seen.ledger.gpus)),
    Field("name", "", lambda seen, gpu: _gpu(seen, gpu).name),
    Field("serial", "", _nothing),
    Field("uuid", "", lambda seen, gpu: _gpu(seen, gpu).uuid),
    Field("pci.bus_id", "", lambda seen, gpu: _gpu(seen, gpu).bus_id),
    Field("pci.domain", "", _bus(0)),
    Field("pci.bus", "", _bus(1)),
    Field("pci.device", "", _bus(2)),
    Field("index", "", lambda _, gpu: gpu),
    Field("display_mode", "", _constant("Disabled")),
    Field("display_active", "", _constant("Disabled")),
    Field("persistence_mode", "", _constant("Disabled")),
    Field("accounting.mode", "", _constant("Disabled")),
    Field("pstate", "", _constant("P0")),
    Field("memory.total", "MiB", lambda seen, gpu: _gpu(seen, gpu).memory_bytes // MIB),
    Field("memory.reserved", "MiB", _constant(0), 510),
    Field("memory.used", "MiB", lambda seen, gpu: seen.used(gpu) // MIB),
    Field("memory.free", "MiB", _free),
    Field("compute_mode", "", _constant("Default")),
    Field("compute_cap", "", lambda seen, gpu: "%d.%d" % _gpu(seen, gpu).capability, 510),
    Field("utilization.gpu", "%", lambda seen, gpu: seen.busy[gpu]),
    Field("utilization.memory", "%", _nothing),
    Field("power.limit", "W", _power),
    Field("enforced.power.limit", "W", _power),
    Field("power.default_limit", "W", _power),
    Field("mig.mode.current", "", _mig),
    Field("mig.mode.pending", "", _mig),
    *(Field(name, "", _nothing) for name in (
        "accounting.buffer_size", "driver_model.current", "driver_model.pending", "vbios_version",
        "pci.device_id", "pci.sub_device_id", "pcie.link.gen.current", "pcie.link.gen.max",
        "pcie.link.width.current", "pcie.link.width.max", "inforom.img", "inforom.oem",
        "inforom.ecc", "inforom.pwr", "gom.current", "gom.pending", "temperature.gpu",
        "temperature.memory", "power.management", "clocks_throttle_reasons.supported",
        "clocks_throttle_reasons.active", "ecc.mode.current", "ecc.mode.pending",
        "ecc.errors.corrected.volatile.total", "ecc.errors.corrected.aggregate.total",
        "ecc.errors.uncorrected.volatile.total", "ecc.errors.uncorrected.aggregate.total",
        "retired_pages.single_bit_ecc.count", "retired_pages.double_bit.count",
        "retired_pages.pending", "encoder.stats.sessionCount", "encoder.stats.averageFps",
        "encoder.stats.averageLatency",
    )),
    *(Field(name, unit, _nothing) for unit, names in (
        ("%", ("fan.speed",)),
        ("W", ("power.draw", "power.min_limit", "power.max_limit")),
        ("MHz", (
            *(f"clocks.current.{of}" for of in ("graphics", "sm", "memory", "video")),
            *(f"clocks.applications.{of}" for of in ("graphics", "memory")),
            *(f"clocks.default_applications.{of}" for of in ("graphics", "memory")),
            *(f"clocks.max.{of}" for of in ("graphics", "sm", "memory")),
        )),
    ) for name in names),
)  # fmt: skip
_GPU_ALIASES = {
    "gpu_name": "name",
    "gpu_serial": "serial",
    "gpu_uuid": "uuid",
    "gpu_bus_id": "pci.bus_id",
    "pcie.link.gen.gpucurrent": "pcie.link.gen.current",
    "vbios": "vbios_version",
    **{f"clocks.{of}": f"clocks.current.{of}" for of in ("sm", "video")},
    "clocks.gr": "clocks.current.graphics",
    "clocks.mem": "clocks.current.memory",
    "clocks.max.gr": "clocks.max.graphics",
    "clocks.max.mem": "clocks.max.memory",
}
GPU_FIELDS: "Dict[str, Field]" = {field.name: field for field in _GPU}
GPU_FIELDS.update((alias, GPU_FIELDS[name]) for alias, name in _GPU_ALIASES.items())


_APPS = (
    Field("timestamp", "", lambda seen, _: seen.timestamp()),
    Field("gpu_name", "", lambda seen, one: _gpu(seen, one.gpu).name),
    Field("gpu_bus_id", "", lambda seen, one: _gpu(seen, one.gpu).bus_id),
    Field("gpu_serial", "", lambda _, __: None),
    Field("gpu_uuid", "", lambda seen, one: _gpu(seen, one.gpu).uuid),
    Field("pid", "", lambda _, one: one.row.pid),
    Field("process_name", "", lambda _, one: one.row.name),
    Field("used_gpu_memory", "MiB", lambda _, one: one.row.bytes[one.gpu] // MIB),
)
COMPUTE_APP_FIELDS: "Dict[str, Field]" = {field.name: field for field in _APPS}
COMPUTE_APP_FIELDS.update(
    name=COMPUTE_APP_FIELDS["process_name"], used_memory=COMPUTE_APP_FIELDS["used_gpu_memory"]
)


def fields_of(known: "Dict[str, Field]", driver: int) -> "Dict[str, Field]":
    """Those that a driver of this major version has."""
    return {name: field for name, field in known.items() if field.since <= driver}
