"""Before the ranks start: does every node have the GPUs that the plan says? Its own agent looks.

What a node is given can fail to arrive without an error: a device that the container engine did
not pass on, a directory of the Multi-Process Service that nobody listens in. So a program on the
node asks the driver, and what it says is compared with the plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo
from simgrid_ml.engine.agents import Switchboard
from simgrid_ml.engine.gpu_backing import views
from simgrid_ml.errors import NodeError
from simgrid_ml.record.read import tail
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.gpus import Backing, GpuPlan, HostGpus, NodeGpus
from simgrid_ml.units import format_bytes

__all__ = ["check_gpus", "deviations"]

_DEADLINE_S = 60.0
"""The driver needs some seconds for its first process where nothing keeps it loaded."""
_LIMITED = (Backing.MPS_CGROUP, Backing.MPS)
_SLACK = 1.03
"""Limits are rounded, and drivers differ by some per cent in what they call all of the memory."""


async def check_gpus(
    board: Switchboard,
    record: RunRecord,
    plan: GpuPlan,
    host: HostGpus,
    nodes: Mapping[str, NodeInfo],
    log: Callable[..., None],
) -> None:
    """Ask every node at once.

    Raises:
        NodeError: the GPUs of a node are not as planned; says what was asked, and what is there.
    """
    looking = [_look(board, record, plan, nodes[node.node], node) for node in plan.nodes]
    for node, seen in zip(plan.nodes, await asyncio.gather(*looking), strict=True):
        wrong = [line for view, said in seen for line in deviations(plan, host, node, view, said)]
        if wrong:
            given = {k: v for _, said in seen for k, v in said.get("variables", {}).items()}
            wrong += [f"the process had {name}={value}" for name, value in given.items()]
            raise NodeError(
                f"{node.node} does not have the GPUs that were planned for it",
                evidence="\n".join(wrong),
                remedy=_remedy(plan),
            )
    log("gpus-checked", nodes=[node.node for node in plan.nodes])


def deviations(
    plan: GpuPlan,
    host: HostGpus,
    node: NodeGpus,
    view: tuple[str, ...],
    said: Mapping[str, Any],
) -> list[str]:
    """How what a node says differs from the plan, a sentence each.

    Args:
        view: the real devices that the process was to see.
        said: what ``node/gpu_check.py`` printed there.
    """
    if "ledger" not in said or (view and "devices" not in said):
        return [f"asked for its GPUs, it says: {said.get('error', 'nothing')}"]
    asked = [(uuid, s.memory_bytes) for uuid, s in zip(node.ids, node.shares, strict=True)]
    seen = [(gpu["uuid"], gpu["memory_bytes"]) for gpu in said["ledger"]]
    wrong = []
    if asked != seen:
        wrong.append(f"virtual GPUs asked: {_gpus(asked)}; its ledger has: {_gpus(seen)}")
    if view:
        wrong += _of_devices(plan, host, node, view, said)
    return wrong


def _of_devices(
    plan: GpuPlan,
    host: HostGpus,
    node: NodeGpus,
    view: tuple[str, ...],
    said: Mapping[str, Any],
) -> list[str]:
    seen = [device["uuid"] for device in said["devices"]]
    if list(map(_bare, seen)) != list(map(_bare, view)):
        found = ", ".join(seen) or "none"
        return [f"devices asked: {', '.join(view)}; CUDA sees: {found}"]
    wrong = []
    sms = {gpu.uuid: gpu.sms for gpu in host.gpus}
    for uuid, device in zip(view, said["devices"], strict=True):
        shares = [share for share in node.shares if share.device == uuid]
        needs = sum(share.memory_bytes for share in shares)
        room = device["memory_bytes"]
        if room * _SLACK < needs:
            wrong.append(
                f"{uuid}: asked for {format_bytes(needs)} of memory; it has {format_bytes(room)}"
            )
        if plan.backing in _LIMITED:
            # The service itself limits processes; a control group, all those of a node.
            limit = needs if plan.backing is Backing.MPS_CGROUP else shares[0].memory_bytes
            percent = min((s.percent for s in shares if s.percent is not None), default=None)
            wrong += _of_limits(uuid, device, limit, sms.get(uuid), percent)
    return wrong


def _of_limits(
    uuid: str,
    device: Mapping[str, Any],
    limit: int,
    all_sms: int | None,
    percent: int | None,
) -> list[str]:
    """Whether the Multi-Process Service holds its clients to their limits.

    A limit per process shows as what is free; one by control group also as all there is.
    """
    wrong = []
    free = min(device["free_bytes"], device["total_bytes"])
    if free > limit * _SLACK:
        wrong.append(
            f"{uuid}: asked for a limit of {format_bytes(limit)}; a process could take "
            f"{format_bytes(free)}, so the limit is not in force"
        )
    if percent is not None and percent < 100 and device["sms"] == all_sms:
        wrong.append(
            f"{uuid}: asked for {percent} % of its {all_sms} SMs; a process sees all of them, so "
            "the limit is not in force"
        )
    return wrong


def _bare(uuid: str) -> str:
    """CUDA gives instances of MIG a UUID without saying what it is of."""
    return uuid.partition("-")[2].lower()


def _gpus(gpus: list[tuple[str, int]]) -> str:
    return ", ".join(f"{uuid} ({format_bytes(size)})" for uuid, size in gpus) or "none"


def _remedy(plan: GpuPlan) -> str:
    if plan.backing is Backing.HOST_MEMORY:
        return "something changed the run's folder; submit again"
    if plan.backing in _LIMITED:
        return (
            "CUDA_MPS_PIPE_DIRECTORY must be the one that nvidia-cuda-mps-control was started "
            "with, by the same user; or let frameworks limit themselves: gpu_sharing=time-sliced"
        )
    return (
        "`simgrid-ml doctor` checks the driver and how containers get devices; "
        "gpu_sharing=emulated needs no GPU"
    )


async def _look(
    board: Switchboard, record: RunRecord, plan: GpuPlan, info: NodeInfo, node: NodeGpus
) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """What the node says of each view it can have of its devices."""
    seen = []
    for view in views(plan, node) or ((),):
        words = ["device"] * bool(view) + ["context"] * (plan.backing in _LIMITED)
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(view)} if view else {}
        seen.append((view, await _ask(board, record, info, words, variables)))
    return seen


async def _ask(
    board: Switchboard,
    record: RunRecord,
    info: NodeInfo,
    words: list[str],
    variables: Mapping[str, str],
) -> dict[str, Any]:
    os.makedirs(record.file(wire.TMP), exist_ok=True)  # on nodes of a pool nobody else has yet
    answer = record.file(wire.TMP, f"gpu-check-{info.name}.json")
    program = os.path.join(info.package, "node", "gpu_check.py")
    asked = board.spawn(
        info.name, ("python3", "-I", "-S", program, *words), variables, stdout=answer
    )
    try:
        code = await asyncio.wait_for(asked.wait(), _DEADLINE_S)
        if code != 0:
            raise NodeError(
                f"{info.name} could not look at its GPUs: exit code {code}",
                evidence=tail(answer, 20),
                remedy="nodes need a python3 of version 3.8 or later on their PATH",
            )
        with open(answer, encoding="utf-8") as stream:
            said: dict[str, Any] = json.loads(stream.read().splitlines()[-1])
        return said
    except asyncio.TimeoutError:
        return {"error": f"the driver did not answer within {_DEADLINE_S:g} s"}
    finally:
        asked.signal(9)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(answer)
