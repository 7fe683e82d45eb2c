"""Did every rank see the GPUs of its node, and have one of its own? And what did it take of them?

Read from the nodes' ledgers, where each process that used a GPU has left its row, killed or not.
``check`` judges every run. The others are clauses: they judge what somebody asked for.

A job that never touched a GPU passes, with a word about it: that is how many a script runs on
GPU nodes, in the cloud too. Red is for what is wrong there as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from simgrid_ml import wire
from simgrid_ml.checks.base import Finding, Verdict
from simgrid_ml.node.gpu_ledger import Gpu, Ledger, Row
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.gpus import Backing
from simgrid_ml.units import format_bytes

__all__ = ["check", "gpu_memory_peak", "gpu_pinned"]

_ROLES = ("rank", "worker")
"""Whose tasks compute; a parameter server's, or a head node's, use a GPU by accident at most."""
_ONE_EACH = (
    "choose by the local rank before the first use: torch.cuda.set_device(local_rank), or "
    "tf.config.set_visible_devices(gpus[local_rank], 'GPU')"
)


def check(run: RunRecord) -> Iterator[Finding]:
    """Compare what ranks saw and used of their nodes' GPUs with the plan; nothing without one."""
    plan = run.document(wire.GPUS)
    placement = run.document(wire.PLACEMENT)
    if not plan or not placement:
        return
    nodes = [_seen_on(run, planned["node"], placement) for planned in plan["nodes"]]
    strangers = [
        line
        for seen, planned in zip(nodes, plan["nodes"], strict=True)
        for line in _strangers(seen, planned["ids"], placement)
    ]
    yield _placement(strangers, nodes, plan)
    yield _use(nodes, plan, run)


def gpu_memory_peak(
    run: RunRecord, *, at_most_bytes: int | None = None, at_most_fraction: float | None = None
) -> Iterator[Finding]:
    """Clause: no GPU had more taken of it, by all processes of its node together.

    Args:
        at_most_bytes: of each GPU.
        at_most_fraction: of each GPU's memory, 0 to 1; the lower of the two limits counts.

    Raises:
        ValueError: neither limit is given.
    """
    if at_most_bytes is None and at_most_fraction is None:
        raise ValueError("a peak needs a limit: at_most_bytes or at_most_fraction")
    name = "gpu_memory_peak"
    peaks = [
        (f"{seen.node} GPU {number}", peak, gpu.memory_bytes)
        for seen in _all_seen(run)
        for number, (gpu, peak) in enumerate(zip(seen.gpus, seen.peaks, strict=True))
    ]
    if not any(peak for _, peak, _ in peaks):
        yield Finding(name, Verdict.UNKNOWN, "no process used a GPU, so nothing was measured")
        return
    limits = [
        min(
            total if at_most_bytes is None else at_most_bytes,
            total if at_most_fraction is None else int(total * at_most_fraction),
        )
        for *_, total in peaks
    ]
    told = [f"{gpu}: {format_bytes(peak)} of {format_bytes(total)}" for gpu, peak, total in peaks]
    beyond = [
        f"{line}, allowed {format_bytes(limit)}"
        for line, (_, peak, _), limit in zip(told, peaks, limits, strict=True)
        if peak > limit
    ]
    if beyond:
        count = f"{len(beyond)} of {_count(len(peaks), 'GPU')}"
        yield Finding(name, Verdict.FAIL, f"{count} had more taken than allowed", "\n".join(beyond))
    else:
        most = max(range(len(peaks)), key=lambda index: peaks[index][1])
        yield Finding(
            name, Verdict.PASS, f"at most {told[most]}, allowed {format_bytes(limits[most])}"
        )


def gpu_pinned(run: RunRecord) -> Iterator[Finding]:
    """Clause: each rank used one GPU, and no other rank of its node used that one."""
    name = "gpu_pinned"
    nodes = _all_seen(run)
    ranks = [rank for seen in nodes for rank in seen.ranks]
    if not any(rank.used for rank in ranks):
        yield Finding(name, Verdict.UNKNOWN, "no rank used a GPU, so there is nothing to judge")
        return
    wrong = [
        f"{rank.task} on {rank.node} used {_gpus(rank.used)}"
        for rank in ranks
        if len(rank.used) != 1
    ]
    for seen in nodes:
        for one, other in combinations(seen.ranks, 2):
            if shared := set(one.used) & set(other.used):
                both = f"{one.task} and {other.task} on {seen.node}"
                wrong.append(f"{both} both used {_gpus(sorted(shared))}")
    if wrong:
        yield Finding(
            name,
            Verdict.FAIL,
            f"not every rank used one GPU, its own; {_ONE_EACH}",
            "\n".join(wrong),
        )
    else:
        yield Finding(name, Verdict.PASS, f"{_ranks(ranks)}, a GPU of its own each")


class _Rank(NamedTuple):
    """What the processes of one task did; all empty for one that used no GPU.

    ``main`` is the GPU that it took part in collectives with, else the one it took most of.
    """

    task: str
    node: str
    visible: tuple[int, ...]
    used: tuple[int, ...]
    main: int | None


class _Seen(NamedTuple):
    """What a node's ledger says of its GPUs; ``lost`` is why it says nothing."""

    node: str
    gpus: tuple[Gpu, ...]
    peaks: tuple[int, ...]
    rows: tuple[Row, ...]
    ranks: tuple[_Rank, ...]
    lost: str = ""


def _all_seen(run: RunRecord) -> list[_Seen]:
    plan, placement = run.document(wire.GPUS), run.document(wire.PLACEMENT)
    planned = plan.get("nodes") or [] if placement else []
    return [_seen_on(run, node["node"], placement) for node in planned]


def _seen_on(run: RunRecord, node: str, placement: Mapping[str, Any]) -> _Seen:
    try:
        ledger = Ledger(run.file(wire.GPU_LEDGERS, node))
    except (OSError, ValueError) as error:
        return _Seen(node, (), (), (), (), lost=str(error))
    try:
        rows = tuple(ledger.rows(ended=True))
        tasks = [t for t in placement["tasks"] if t["node"] == node and t["role"] in _ROLES]
        ranks = tuple(_rank(task, [r for r in rows if r.rank == task["rank"]]) for task in tasks)
        return _Seen(node, ledger.gpus, ledger.peaks(), rows, ranks)
    finally:
        ledger.close()


def _rank(task: Mapping[str, Any], rows: Sequence[Row]) -> _Rank:
    used = tuple(sorted({gpu for row in rows for gpu in row.used}))
    collective = [row.collective for row in rows if row.collective is not None]
    most = max(used, key=lambda gpu: sum(row.peaks[gpu] for row in rows), default=None)
    return _Rank(
        task=task["name"],
        node=task["node"],
        visible=tuple(sorted({gpu for row in rows for gpu in row.visible})),
        used=used,
        main=collective[0] if collective else most,
    )


def _strangers(seen: _Seen, planned: Sequence[str], placement: Mapping[str, Any]) -> Iterator[str]:
    """Processes that saw the GPUs of another node, and nodes whose GPUs are not the planned."""
    if seen.lost:
        return
    if [gpu.uuid for gpu in seen.gpus] != list(planned):
        yield f"{seen.node}: has {', '.join(g.uuid for g in seen.gpus)}, not {', '.join(planned)}"
    at_home = {task["rank"]: task for task in placement["tasks"]}
    for row in seen.rows:
        task = at_home.get(row.rank)
        if task is None:  # a program that somebody started in the node
            continue
        if task["node"] != seen.node:
            yield f"{task['name']}: used GPUs of {seen.node}, placed on {task['node']}"
        elif task["local_rank"] != row.local_rank:
            yield (
                f"{task['name']}: its local rank was {row.local_rank}, "
                f"placed as {task['local_rank']}"
            )


def _placement(
    strangers: Sequence[str], nodes: Sequence[_Seen], plan: Mapping[str, Any]
) -> Finding:
    name = "gpus.placement"
    each = len(plan["nodes"][0]["ids"])
    if strangers:
        bad = f"{len(strangers)} time{'s' * (len(strangers) > 1)} GPUs were not those planned"
        return Finding(name, Verdict.FAIL, bad, "\n".join(strangers))
    if lost := [f"{seen.node}: {seen.lost}" for seen in nodes if seen.lost]:
        bad = f"of {len(lost)} of {_count(len(nodes), 'node')} nothing is left"
        return Finding(name, Verdict.UNKNOWN, bad, "\n".join(lost))
    ranks = [rank for seen in nodes for rank in seen.ranks if rank.visible]
    narrow = [rank for rank in ranks if len(rank.visible) < each]
    if not ranks:
        said = "no rank asked for its GPUs" if _is_emulated(plan) else _not_recorded(plan)
    elif not narrow:
        all_of_them = "GPU" if each == 1 else f"{each} GPUs"
        said = f"{_ranks(ranks)}, each saw the {all_of_them} of its node"
    else:
        some = f"{narrow[0].task} chose {_gpus(narrow[0].visible)}"
        said = f"{_ranks(ranks)}, each saw GPUs of its node; {some}"
    return Finding(name, Verdict.PASS, said)


def _use(nodes: Sequence[_Seen], plan: Mapping[str, Any], run: RunRecord) -> Finding:
    name = "gpus.used"
    ranks = [rank for seen in nodes for rank in seen.ranks]
    users = [rank for rank in ranks if rank.used]
    if not users and not _is_emulated(plan):
        return Finding(name, Verdict.PASS, _not_recorded(plan))
    if not users:
        asked = ((run.spec().get("job") or {}).get("environment") or {}).get("use_gpu")
        said = "no rank used a GPU" + ", though use_gpu was asked for" * bool(asked)
        return Finding(name, Verdict.PASS, said)
    crowded = [line for seen in nodes for line in _crowded(seen)]
    if crowded:
        said = f"ranks shared a GPU while another of their node was idle; {_ONE_EACH}"
        return Finding(name, Verdict.FAIL, said, "\n".join(crowded))
    many = [rank for rank in users if len(rank.used) > 1]
    if len({(rank.node, rank.main) for rank in users}) < len(users):
        whose = "some on one GPU, as none was idle"
    elif many and len(ranks) <= len(nodes):
        whose = "alone on the GPUs of its node each"
    else:
        whose = "a GPU of its own each"
    said = _ranks(users) + f" of {len(ranks)}" * (len(users) < len(ranks)) + f", {whose}"
    if many and len(ranks) > len(nodes):
        others = [gpu for gpu in many[0].used if gpu != many[0].main]
        said += f", {many[0].task} also used {_gpus(others)}"
    return Finding(name, Verdict.PASS, said)


def _is_emulated(plan: Mapping[str, Any]) -> bool:
    return bool(plan["backing"] == Backing.HOST_MEMORY.value)


def _not_recorded(plan: Mapping[str, Any]) -> str:
    return f"what ranks use is known to the driver alone where there is a {plan['backing']}"


def _crowded(seen: _Seen) -> Iterator[str]:
    """Pairs of ranks that computed on one GPU, where there was one that nobody used."""
    idle = set(range(len(seen.gpus))) - {gpu for row in seen.rows for gpu in row.used}
    if not idle:
        return
    for one, other in combinations([rank for rank in seen.ranks if rank.used], 2):
        if one.main == other.main:
            both = f"{one.task} and {other.task} on {seen.node}"
            yield f"{both}: GPU {one.main}; idle: {_gpus(sorted(idle))}"


def _ranks(some: Sequence[_Rank]) -> str:
    """How many there are, of what."""
    return _count(len(some), "rank" if some[0].task.startswith("rank") else "worker")


def _gpus(numbers: Sequence[int]) -> str:
    if not numbers:
        return "no GPU"
    return f"GPU{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
