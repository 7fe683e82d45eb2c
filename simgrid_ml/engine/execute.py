"""One run from Preparing to its sealed directory, told in order; the only place states advance.

Whatever ends a run early is an exception in ``_Story.tell``: a ``SimgridError`` with the first
cause, or ``_Cancelled``. Failures while cleaning up are noted on it, and never replace it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Awaitable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo, NodesRequest
from simgrid_ml.backends.image import NodeImage, OffersImages
from simgrid_ml.checks import fidelity as fidelity_check
from simgrid_ml.checks import ranks as ranks_check
from simgrid_ml.checks.base import run_checks
from simgrid_ml.engine import attempts, collect, images, plugins
from simgrid_ml.engine import ranks as rank_files
from simgrid_ml.engine.agents import Switchboard
from simgrid_ml.engine.allocation import Allocation, Preempted, is_pooled, nodes_for
from simgrid_ml.engine.commands import Commands
from simgrid_ml.engine.fidelity import Fidelity
from simgrid_ml.engine.gpu_requests import devices_for_pool, for_pool, with_devices
from simgrid_ml.engine.gpu_turn import gpus_given, unless_gpu_lost
from simgrid_ml.engine.gpus import LiveGpus
from simgrid_ml.engine.links import LiveLinks
from simgrid_ml.engine.nccl import served_by_gloo
from simgrid_ml.environments.build import BuiltEnvironment, hold, read_by_nodes
from simgrid_ml.errors import HostError, NodeError, SimgridError
from simgrid_ml.launch import dialect
from simgrid_ml.record.journal import Journal, write_json
from simgrid_ml.record.read import tail
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.spec.capacity import Capacity, size_nodes
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.gpus import GpuPlan, HostGpus
from simgrid_ml.spec.job import JobSpec
from simgrid_ml.spec.placement import HostInventory, Placement, place
from simgrid_ml.spec.value import from_plain

__all__ = ["execute"]

T = TypeVar("T")

NODES_DEADLINE_S = 30.0
_LOOK_S = 0.1
_RESERVE_BYTES = 64 * 1024


class _Cancelled(Exception):
    """Somebody asked for the end, or the run's time is up; says which."""


async def execute(record: RunRecord) -> None:
    """Carry out the run in ``record``; returns when it is sealed. The caller holds its lock."""
    try:
        await _execute(record)
    except Exception as last:  # whatever it was, the run must not stay in between
        if not record.state.is_terminal:
            record.advance(RunState.FAILED, error=_defect(last).to_json())
        raise


async def _execute(record: RunRecord) -> None:
    story = _Story(record)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, story.cancel.set)
    watch = asyncio.create_task(story.watch_for_cancel())
    error: SimgridError | None = None
    cancelled: str | None = None
    try:
        await story.tell()
    except _Cancelled as why:
        cancelled = str(why)
    except SimgridError as first:
        error = first
    except OSError as first:
        error = _host_error(first)
    except Exception as first:  # a defect of ours must end the run as well
        error = _defect(first)
    finally:
        watch.cancel()
    if error is not None and error.__cause__ is not None:
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
    story.finish(error, cancelled)


class _Story:
    def __init__(self, record: RunRecord) -> None:
        self.record = record
        spec = record.spec()
        self.job = from_plain(spec["job"], JobSpec, "job")
        self.cluster = from_plain(spec["cluster"], ClusterSpec, "cluster")
        self.backend = plugins.backend(self.cluster.backend)
        self.attempt_number = 1
        self.placement: Placement | None = None
        self.image: NodeImage | None = None
        self.nodes: dict[str, NodeInfo] = {}
        self.gpus = LiveGpus(record, None, self.log)
        self.host_gpus = HostGpus()
        self.logs: dict[str, str] = {}
        self.commands: Commands | None = None
        self.events = Journal(record.file(wire.EVENTS))
        self.cancel = asyncio.Event()
        self.why_cancelled = "cancelled by request"
        self.warning = ""
        with open(record.file(wire.RESERVE), "wb") as stream:
            stream.write(bytes(_RESERVE_BYTES))

    # -- the story -------------------------------------------------------------------------
    async def tell(self) -> None:
        self.advance(RunState.PREPARING)
        environment = await self.prepare_environment()
        with hold(environment):
            self.advance(RunState.QUEUED)
            while True:
                try:
                    return await self.attempt(environment)
                except Preempted as lost:
                    if self.attempt_number == attempts.MAX_ATTEMPTS:
                        raise
                    self.begin_again(lost)

    def begin_again(self, lost: Preempted) -> None:
        """Put aside what the attempt has left, and queue for the next."""
        self.log("preempted", attempt=self.attempt_number, why=lost.cause)
        attempts.put_aside(self.record, self.attempt_number)
        self.logs = {}
        self.commands = None
        self.attempt_number += 1
        if self.record.state is not RunState.QUEUED:
            self.advance(RunState.QUEUED, attempt=self.attempt_number, why=lost.cause)

    async def attempt(self, environment: BuiltEnvironment) -> None:
        """From nothing to commands that have ended, on nodes that are its own meanwhile."""
        record, job, cluster = self.record, self.job, self.cluster
        host = self.backend.inventory()
        pooled, contained = is_pooled(record), isinstance(self.backend, OffersImages)
        if pooled and contained:
            host = for_pool(host)
        self.host_gpus = host.gpus
        placement = place(job, cluster, host)
        nodes_at_once = cluster.max_nodes if pooled else len(placement.nodes)
        capacity = size_nodes(cluster, nodes_at_once, host, job.shm_size_bytes)
        cores = capacity.cores(len(placement.nodes), host)
        request = NodesRequest(
            run_id=record.id,
            run_dir=record.path,
            nodes=placement.nodes,
            socket=record.file(wire.SOCKET),
            capacity=capacity,
            links=cluster.links,
            image=None if self.image is None else self.image.encode(),
            visible=read_by_nodes(environment),
            log=record.file(wire.SUPERVISOR_LOG),
        )
        async with contextlib.AsyncExitStack() as stack:
            board = Switchboard(
                record.file(wire.SOCKET),
                environment_of=lambda node: self.environment_on(node, environment),
                cwd=record.path,
                log_of=lambda node: self.node_log(node),
            )
            await stack.enter_async_context(board.listening())
            try:
                if pooled:
                    every = (f"node{n}" for n in range(cluster.max_nodes))
                    devices = devices_for_pool(cluster, host.gpus)
                    request = replace(request, gpus=dict.fromkeys(every, devices))
                else:  # before its nodes, which have no others to wait for
                    plan = await self.gpus_for(stack, placement, host, environment, contained)
                    request = with_devices(request, plan)
                turn = nodes_for(record, cluster, self.backend, request, self.log)
                nodes = stack.enter_async_context(turn)
                given = await self.unless_cancelled(nodes)
                placed = place(job, cluster, host, given.nodes)
                placement = self.placement = replace(placed, cpus=cores)
                if pooled:
                    turn_for_gpus = self.gpus_for(stack, placement, host, environment, False)
                    plan = await given.unless_lost(turn_for_gpus)
                self.gpus = LiveGpus(record, plan, self.log)
                await given.unless_lost(
                    self.on_nodes(board, given, placement, capacity, environment)
                )
            finally:
                board.dismiss()  # before the backend's own exit, so that agents end in peace

    async def gpus_for(
        self,
        stack: contextlib.AsyncExitStack,
        placement: Placement,
        host: HostInventory,
        environment: BuiltEnvironment,
        contained: bool,
    ) -> GpuPlan | None:
        """Those of the nodes of ``placement``, when other runs have let go of what it needs."""
        turn = gpus_given(
            *(self.record, self.cluster, placement, host, environment, self.log),
            contained=contained,
        )
        with self.time_limit():
            return await self.unless_cancelled(stack.enter_async_context(turn))

    async def on_nodes(
        self,
        board: Switchboard,
        given: Allocation,
        placement: Placement,
        capacity: Capacity,
        environment: BuiltEnvironment,
    ) -> None:
        """From nodes that are starting to commands that have ended."""
        record = self.record
        hellos = await self.unless_cancelled(self.hellos(board, placement.nodes, given.ended))
        self.nodes = {
            name: images.node_in(self.image, self.backend.describe(given.owner, hellos[name]))
            for name in placement.nodes
        }
        links = LiveLinks(self.backend, record.id, self.log)
        board.on_link = links.answer
        self.tell_of_nodes(placement, capacity, links.to_json())
        fidelity = Fidelity(record, placement, self.nodes, links.wires, self.log)
        try:
            if self.gpus.plan is not None:
                from simgrid_ml.engine.gpu_checking import check_gpus

                await self.unless_cancelled(
                    check_gpus(board, record, self.gpus.plan, self.host_gpus, self.nodes, self.log)
                )
            await self.unless_cancelled(fidelity.probe(board))
            await self.launch(board, placement, environment, fidelity)
        except NodeError as lost:
            raise links.first_cause(lost) from None

    async def launch(
        self,
        board: Switchboard,
        placement: Placement,
        environment: BuiltEnvironment,
        fidelity: Fidelity,
    ) -> None:
        """From nodes that are up to commands that have ended."""
        record, job = self.record, self.job
        head = self.nodes[placement.nodes[0]]
        rank_files.lay_out(record, self.cluster, placement, head)
        self.gpus.install(images.python_in(self.image))
        launcher = plugins.launcher(job.distribution)
        plan = launcher(job, placement, rank_files.tools(record, head))
        self.logs, endpoints = rank_files.write_launch(
            *(record, job, self.cluster, placement, plan, self.nodes, environment.python),
            attempt=self.attempt_number,
            hooks=(*environment.hooks, *self.gpus.hooks),
            libraries=self.gpus.libraries,
        )
        for command in plan.commands:
            if command.log is not None:
                name = dialect.launcher_log(self.cluster.era)
                self.logs[command.name] = record.file(wire.ARTIFACTS, name)
        self.advance(RunState.RUNNING)
        commands = self.commands = Commands(
            record, job, plan, placement, self.logs, endpoints, board, self.log
        )
        with self.time_limit():
            async with fidelity.sampling(), self.gpus.sampling():
                await self.unless_cancelled(unless_gpu_lost(self.gpus.plan, commands.run()))

    async def hellos(
        self, board: Switchboard, nodes: tuple[str, ...], ended: Awaitable[object] | None
    ) -> dict[str, dict[str, Any]]:
        """What the agents say of themselves, unless they all end or take too long."""
        deadline_s = min(NODES_DEADLINE_S, self.job.launch_timeout_s)
        said = asyncio.ensure_future(board.hellos(nodes, deadline_s))
        waiting: set[asyncio.Future[Any]] = {said}
        if ended is not None:
            waiting.add(asyncio.ensure_future(ended))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not said.done():
                (end,) = waiting - {said}
                if isinstance(why := end.exception(), NodeError):
                    raise why
                how = end.result()
                raise NodeError(
                    f"the agents of {', '.join(nodes)} ended before they had reported",
                    evidence=how if isinstance(how, str) else "",
                    remedy="`simgrid-ml doctor` checks what nodes need",
                )
            return said.result()
        except NodeError as error:
            logged = tail(self.record.file(wire.SUPERVISOR_LOG), 10)
            error.evidence = "\n".join(filter(None, (error.evidence, logged)))
            raise
        finally:
            said.cancel()
            await asyncio.gather(said, return_exceptions=True)

    async def prepare_environment(self) -> BuiltEnvironment:
        """Find or build the environment, in a thread that cancellation ends promptly."""
        log = self.record.file(wire.ARTIFACTS, dialect.BUILD_LOG)
        stop = threading.Event()
        loop = asyncio.get_running_loop()

        def report(text: str) -> None:
            loop.call_soon_threadsafe(lambda: self.log("environment-step", text=text))

        offers = self.backend if isinstance(self.backend, OffersImages) else None
        built = asyncio.create_task(
            asyncio.to_thread(
                images.prepare, self.job, offers, report=report, log_path=log, cancel=stop
            )
        )
        try:
            environment, self.image = await self.unless_cancelled(asyncio.shield(built))
        except _Cancelled:
            stop.set()
            await asyncio.gather(built, return_exceptions=True)
            raise
        environment = served_by_gloo(environment, self.job, self.cluster)
        wished = self.job.environment.image
        document = images.environment_document(environment, wished, self.image)
        write_json(self.record.file(wire.ENVIRONMENT), document)
        if self.image is not None:
            self.log("image", name=wished, digest=self.image.digest, notes=list(self.image.notes))
        self.log("environment", cached=environment.cached, lock=environment.lock_hash)
        return environment

    # -- cancellation ----------------------------------------------------------------------
    async def watch_for_cancel(self) -> None:
        while not self.record.cancel_requested:
            await asyncio.sleep(_LOOK_S)
            if not os.path.exists(self.record.file(wire.SPEC)):
                self.why_cancelled = "its directory was deleted"
                break
        self.cancel.set()

    @contextlib.contextmanager
    def time_limit(self) -> Iterator[None]:
        """Cancel a run that is in the block for longer than its job may."""
        if self.job.max_run_s is None:
            yield
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.job.max_run_s, self.out_of_time)
        try:
            yield
        finally:
            timer.cancel()

    def out_of_time(self) -> None:
        if not self.cancel.is_set():
            limit = f"{self.job.max_run_s:g}"
            self.why_cancelled = self.warning = f"max_run_duration_seconds of {limit} s exceeded"
            self.cancel.set()

    async def unless_cancelled(self, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        """The result of ``work``, which has ended in any case when this returns or raises.

        Raises:
            _Cancelled: cancellation came first; the run's state says so already.
        """
        task = asyncio.ensure_future(work)
        cancel = asyncio.create_task(self.cancel.wait())
        try:
            await asyncio.wait({task, cancel}, return_when=asyncio.FIRST_COMPLETED)
            if cancel.done():
                waited_for = await self.commands.waited_for() if self.commands else []
                why = "; ".join([self.why_cancelled, *waited_for])
                self.log("cancel", why=why)
                self.advance(RunState.CANCEL_REQUESTED, note=why, **self.warnings())
                raise _Cancelled(why)
            return await task
        finally:
            for one in (task, cancel):
                one.cancel()
            await asyncio.gather(task, cancel, return_exceptions=True)

    def warnings(self) -> dict[str, str]:
        return {"warning": self.warning} if self.warning else {}

    # -- the end ---------------------------------------------------------------------------
    def finish(self, error: SimgridError | None, cancelled: str | None) -> None:
        """Collect, judge, seal, and write the last state, with the first cause."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.record.file(wire.RESERVE))
        state = RunState.CANCELED if cancelled else RunState.FAILED if error else None
        try:
            if self.logs:
                if not cancelled:
                    self.advance(RunState.FINALIZING)
                clash = self.keep_what_was_written(ended_well=error is None and not cancelled)
                error = error or (None if cancelled else clash)
                if not cancelled:
                    run_checks(
                        self.record,
                        {
                            "ranks": ranks_check.check,
                            "gpus": self.gpus.check,
                            "fidelity": fidelity_check.check,
                        },
                    )
            self.record.seal()
        except OSError as late:
            if error is None and not cancelled:
                error = _host_error(late)
        self.record.tidy()
        state = state or (RunState.FAILED if error else RunState.COMPLETED)
        said: dict[str, Any] = {"error": error.to_json()} if error else {}
        if cancelled:
            said["note"] = cancelled
        self.advance(state, **said)
        self.events.close()

    def keep_what_was_written(self, *, ended_well: bool) -> SimgridError | None:
        placement = self.placement
        assert placement is not None
        kept, clash = collect.collect(self.record)
        ended_well = ended_well and clash is None
        if ended_well:
            drivers = [self.logs[task.name] for task in placement.tasks]
            collect.write_closing_lines(self.record, self.cluster, drivers)
        addresses = {name: node.address for name, node in self.nodes.items()}
        collect.write_process_files(
            self.record, self.job, self.cluster, placement, addresses, ended_well
        )
        for node in placement.nodes:
            self.write_node(node, "job_post", f"{kept} files of ./outputs and ./logs kept")
        self.log("collected", files=kept)
        return clash

    # -- small things ----------------------------------------------------------------------
    def tell_of_nodes(
        self, placement: Placement, capacity: Capacity, network: dict[str, Any] | None
    ) -> None:
        hostnames = {name: node.hostname for name, node in self.nodes.items()}
        nodes = {
            name: {
                "address": node.address,
                "isolation": list(node.isolation),
                "limits": list(node.limits),
            }
            for name, node in self.nodes.items()
        }
        document = {
            **placement.to_json(),
            "capacity": capacity.to_json(),
            "hostnames": hostnames,
            "node_info": nodes,
            "network": network,
        }
        write_json(self.record.file(wire.PLACEMENT), document)
        for name, node in self.nodes.items():
            has = ", ".join(node.isolation) or "nothing"
            self.write_node(name, "execution", f"{name} is up; of its own it has: {has}")
            for limit in (*node.limits, *filter(None, [capacity.describe()])):
                self.write_node(name, "execution", limit)
            work = rank_files.work_directory(self.record, self.cluster, name)
            self.write_node(name, "job_prep", f"source unpacked to {work}")
        self.log("nodes-up", nodes=sorted(self.nodes), size=capacity.describe())

    def write_node(self, node: str, stage: str, *lines: str) -> None:
        collect.write_node_log(self.record, self.cluster, node, stage, *lines)

    def node_log(self, node: str) -> str:
        name = dialect.node_log(self.cluster.era, "execution", self.cluster, node)
        return self.record.file(wire.ARTIFACTS, name)

    def environment_on(self, node: str, environment: BuiltEnvironment) -> dict[str, str]:
        made = rank_files.node_environment(self.record, self.nodes[node], environment.bin)
        made.update(self.gpus.variables(node, made))
        return images.environment_in(self.image, made, self.record.file(wire.TMP))

    def advance(self, state: RunState, **said: Any) -> None:
        self.record.advance(state, **said)

    def log(self, event: str, **fields: Any) -> None:
        self.events.append({"t": time.time(), "event": event, **fields})


def _defect(error: Exception) -> HostError:
    made = HostError(
        f"the supervisor failed: {error!r}", remedy="please report it with supervisor.log"
    )
    made.__cause__ = error
    return made


def _host_error(error: OSError) -> HostError:
    if error.errno == errno.ENOSPC:
        return HostError(
            "the disk that holds the run is full",
            evidence=str(error),
            remedy="free space: `simgrid-ml runs delete`, `simgrid-ml env prune`",
        )
    made = HostError(
        f"this host refused what the run needed: {error}",
        remedy="`simgrid-ml doctor` checks the host; supervisor.log has the details",
    )
    made.__cause__ = error
    return made
