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
from collections.abc import Coroutine
from typing import Any, TypeVar

from simgrid_ml import wire
from simgrid_ml.backends.base import NodeInfo, NodesRequest
from simgrid_ml.checks import ranks as ranks_check
from simgrid_ml.checks.base import run_checks
from simgrid_ml.engine import causes, collect, plugins
from simgrid_ml.engine import ranks as rank_files
from simgrid_ml.engine.agents import Process, Switchboard
from simgrid_ml.engine.reports import TaskReport
from simgrid_ml.environments.build import BuiltEnvironment, ensure, hold
from simgrid_ml.errors import HostError, LaunchError, NodeError, SimgridError
from simgrid_ml.launch import dialect
from simgrid_ml.launch.plan import LaunchPlan
from simgrid_ml.record.journal import Journal, write_json
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import JobSpec
from simgrid_ml.spec.placement import Placement, place
from simgrid_ml.spec.value import from_plain

__all__ = ["execute"]

T = TypeVar("T")

NODES_DEADLINE_S = 30.0
GRACE_S = 5.0
SHORT_GRACE_S = 0.5
"""Between SIGTERM and SIGKILL, with and without tasks that may want to save something."""
LINGER_S = 3.0
"""What a launcher gets to end by itself after a task failed, or after all have ended."""
_LOOK_S = 0.05
_LOOK_TASKS_S = 0.25
_RESERVE_BYTES = 64 * 1024


class _Cancelled(Exception):
    """Somebody asked for the end, or the run's time is up; says which."""


async def execute(record: RunRecord) -> None:
    """Carry out the run in ``record``; returns when it is sealed. The caller holds its lock."""
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
        error = HostError(
            f"the supervisor failed: {first!r}", remedy="please report it with supervisor.log"
        )
        error.__cause__ = first
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
        self.placement: Placement | None = None
        self.nodes: dict[str, NodeInfo] = {}
        self.logs: dict[str, str] = {}
        self.reports: dict[str, TaskReport] = {}
        self.events = Journal(record.file(wire.EVENTS))
        self.cancel = asyncio.Event()
        self.why_cancelled = "cancelled by request"
        with open(record.file(wire.RESERVE), "wb") as stream:
            stream.write(bytes(_RESERVE_BYTES))

    # -- the story -------------------------------------------------------------------------
    async def tell(self) -> None:
        record, job = self.record, self.job
        self.advance(RunState.PREPARING)
        environment = await self.prepare_environment()
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(hold(environment))
            self.advance(RunState.QUEUED)
            host = self.backend.inventory()
            placement = self.placement = place(job, self.cluster, host)
            board = Switchboard(
                record.file(wire.SOCKET),
                environment_of=lambda node: self.environment_on(node, environment),
                cwd=record.path,
                log_of=lambda node: self.node_log(node),
            )
            await stack.enter_async_context(board.listening())
            request = NodesRequest(
                run_id=record.id,
                run_dir=record.path,
                nodes=placement.nodes,
                socket=record.file(wire.SOCKET),
                shm_bytes=job.shm_size_bytes,
            )
            nodes = stack.enter_async_context(self.backend.nodes(request))
            await self.unless_cancelled(nodes)
            stack.callback(board.dismiss)  # before the backend's own exit: agents end in peace
            hellos = await self.unless_cancelled(self.hellos(board, placement.nodes))
            self.nodes = {name: self.backend.describe(hellos[name]) for name in placement.nodes}
            self.tell_of_nodes(placement)
            head = self.nodes[placement.nodes[0]]
            rank_files.lay_out(record, self.cluster, placement, head)
            plan = plugins.launcher(job.distribution)(
                job, placement, rank_files.tools(record, head)
            )
            self.logs = rank_files.write_launch(
                record, job, self.cluster, placement, plan, self.nodes, environment.python
            )
            self.advance(RunState.RUNNING)
            await self.run_commands(board, plan, placement, environment)

    async def hellos(self, board: Switchboard, nodes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        try:
            return await board.hellos(nodes, min(NODES_DEADLINE_S, self.job.launch_timeout_s))
        except NodeError as error:
            error.evidence = causes.tail(self.record.file(wire.SUPERVISOR_LOG), 10)
            raise

    async def prepare_environment(self) -> BuiltEnvironment:
        """Find or build the environment, in a thread that cancellation ends promptly."""
        log = self.record.file(wire.ARTIFACTS, dialect.BUILD_LOG)
        stop = threading.Event()
        loop = asyncio.get_running_loop()

        def report(text: str) -> None:
            loop.call_soon_threadsafe(lambda: self.log("environment-step", text=text))

        built = asyncio.create_task(
            asyncio.to_thread(
                ensure, self.job.environment, report=report, log_path=log, cancel=stop
            )
        )
        try:
            environment = await self.unless_cancelled(asyncio.shield(built))
        except _Cancelled:
            stop.set()
            await asyncio.gather(built, return_exceptions=True)
            raise
        write_json(self.record.file(wire.ENVIRONMENT), environment.to_json())
        self.log("environment", cached=environment.cached, lock=environment.lock_hash)
        return environment

    async def run_commands(
        self,
        board: Switchboard,
        plan: LaunchPlan,
        placement: Placement,
        environment: BuiltEnvironment,
    ) -> None:
        """Spawn the commands and wait for the decisive ones, or for what ends the run early."""
        oom_kills = causes.oom_kills()
        processes: dict[str, Process] = {}
        for command in plan.commands:
            log = self.node_log(command.node)
            if command.log is not None:
                log = self.record.file(wire.ARTIFACTS, dialect.launcher_log(self.cluster.era))
                self.logs[command.name] = log
                os.makedirs(os.path.dirname(log), exist_ok=True)
            processes[command.name] = board.spawn(
                command.node,
                command.argv,
                {**self.environment_on(command.node, environment), **command.environment},
                name=command.name,
                stdout=log,
            )
        self.log("launched", commands=sorted(processes))
        watchers: set[asyncio.Task[Any]] = {
            asyncio.create_task(self.raise_when_cancelled()),
            asyncio.create_task(self.raise_when_node_is_lost(board)),
        }
        tasks = asyncio.create_task(self.watch_tasks(placement))
        decisive = {
            asyncio.create_task(processes[name].wait(), name=name) for name in plan.decisive
        }
        done: set[asyncio.Task[Any]]
        try:
            if self.job.max_run_s is not None:
                watchers.add(asyncio.create_task(self.raise_when_out_of_time(self.job.max_run_s)))
            waiting: set[asyncio.Task[Any]] = set(decisive)
            while waiting:
                done, _ = await asyncio.wait(
                    waiting | watchers | {tasks}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done & watchers:
                    task.result()  # raises
                waiting -= done
                ended = {task.get_name(): task.result() for task in decisive if task.done()}
                is_over = not waiting
                if tasks in done:
                    tasks.result()  # raises if some did not start
                    is_over = True
                if any(ended.values()) or (
                    is_over and not causes.all_ended_well(self.record, placement)
                ):
                    raise causes.first_cause(
                        self.record, placement, self.logs, ended, oom_kills, board.killed
                    )
                if is_over:
                    break
        finally:
            watchers |= decisive | {tasks}
            for task in watchers:
                task.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await self.end_processes(processes)

    async def end_processes(self, processes: dict[str, Process]) -> None:
        """TERM, grace; what still runs then ends with its node."""
        running = [process for process in processes.values() if not process.has_exited]
        for process in running:
            process.signal(signal.SIGTERM)
        if running:
            waits = [asyncio.ensure_future(process.wait()) for process in running]
            # A launcher that hangs after its last task has nothing left to end in peace.
            busy = any(report.started and not report.ended for report in self.reports.values())
            await asyncio.wait(waits, timeout=GRACE_S if busy else SHORT_GRACE_S)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    # -- what ends a run early -------------------------------------------------------------
    async def watch_for_cancel(self) -> None:
        while not self.record.cancel_requested:
            await asyncio.sleep(_LOOK_S)
        self.cancel.set()

    async def unless_cancelled(self, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        task = asyncio.ensure_future(work)
        cancel = asyncio.create_task(self.raise_when_cancelled())
        await asyncio.wait({task, cancel}, return_when=asyncio.FIRST_COMPLETED)
        try:
            if not task.done():
                cancel.result()
            return await task
        finally:
            for one in (task, cancel):
                one.cancel()
            await asyncio.gather(task, cancel, return_exceptions=True)

    async def raise_when_cancelled(self) -> None:
        await self.cancel.wait()
        self.begin_cancel()

    async def raise_when_out_of_time(self, limit_s: float) -> None:
        await asyncio.sleep(limit_s)
        self.why_cancelled = f"max_run_duration_seconds of {limit_s:g} s exceeded"
        self.begin_cancel()

    def begin_cancel(self) -> None:
        """Raises ``_Cancelled``; once it has, more reasons to cancel change nothing."""
        if self.record.state is RunState.CANCEL_REQUESTED:
            raise _Cancelled(self.why_cancelled)
        self.log("cancel", why=self.why_cancelled)
        self.advance(RunState.CANCEL_REQUESTED, note=self.why_cancelled)
        raise _Cancelled(self.why_cancelled)

    async def raise_when_node_is_lost(self, board: Switchboard) -> None:
        node = await asyncio.shield(board.lost)
        self.log("node-lost", node=node)
        raise NodeError(
            f"{node} went away while its ranks were running: its agent was killed or crashed",
            evidence=causes.tail(self.node_log(node), 5),
            remedy="the kernel's log (`dmesg`) tells whether it ran out of memory; submit again",
        )

    async def watch_tasks(self, placement: Placement) -> bool:
        """Follow the tasks' own reports, since launchers fall silent.

        mpirun 5.0.11 can deadlock in its own clean-up after the ranks have ended (seen after a
        rank failed), so what the tasks report decides once the launcher has had its time.

        Returns:
            True: a task failed ``LINGER_S`` ago; False: all tasks ended well ``LINGER_S`` ago.

        Raises:
            LaunchError: some task has not started in time.
        """
        launched = time.monotonic()
        limit = self.job.launch_timeout_s
        names = [task.name for task in placement.tasks]
        reports = self.reports = {
            name: TaskReport(self.record.file(wire.TASKS, name + ".jsonl")) for name in names
        }
        all_started = False
        decided: float | None = None
        wait_s = 0.01
        while decided is None or time.monotonic() < decided + LINGER_S:
            for report in reports.values():
                report.refresh()
            missing = [name for name, report in reports.items() if not report.started]
            if not missing and not all_started:
                all_started = True
                self.log("all-ranks-started")
            if missing and time.monotonic() > launched + limit:
                raise LaunchError(
                    f"{len(missing)} of {len(names)} ranks did not start within {limit:g} s: "
                    f"{', '.join(missing[:8])}",
                    evidence=causes.tail(next(reversed(self.logs.values()), "")),
                    remedy="`simgrid-ml doctor` checks Open MPI and what nodes need",
                )
            failed = any(report.failed for report in reports.values())
            if decided is None and (failed or all(report.ended for report in reports.values())):
                decided = time.monotonic()
            await asyncio.sleep(wait_s)
            wait_s = min(_LOOK_TASKS_S, wait_s * 1.3)
        self.log("launcher-lingers", after_s=LINGER_S)
        return failed

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
                    run_checks(self.record, {"ranks": ranks_check.check})
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
    def tell_of_nodes(self, placement: Placement) -> None:
        hostnames = {name: node.hostname for name, node in self.nodes.items()}
        nodes = {
            name: {
                "address": node.address,
                "isolation": list(node.isolation),
                "limits": list(node.limits),
            }
            for name, node in self.nodes.items()
        }
        document = {**placement.to_json(), "hostnames": hostnames, "node_info": nodes}
        write_json(self.record.file(wire.PLACEMENT), document)
        for name, node in self.nodes.items():
            has = ", ".join(node.isolation) or "nothing"
            self.write_node(name, "execution", f"{name} is up; of its own it has: {has}")
            for limit in node.limits:
                self.write_node(name, "execution", limit)
            work = rank_files.work_directory(self.record, self.cluster, name)
            self.write_node(name, "job_prep", f"source unpacked to {work}")
        self.log("nodes-up", nodes=sorted(self.nodes))

    def write_node(self, node: str, stage: str, *lines: str) -> None:
        collect.write_node_log(self.record, self.cluster, node, stage, *lines)

    def node_log(self, node: str) -> str:
        name = dialect.node_log(self.cluster.era, "execution", self.cluster, node)
        return self.record.file(wire.ARTIFACTS, name)

    def environment_on(self, node: str, environment: BuiltEnvironment) -> dict[str, str]:
        return rank_files.node_environment(self.record, self.nodes[node], environment.bin)

    def advance(self, state: RunState, **said: Any) -> None:
        self.record.advance(state, **said)

    def log(self, event: str, **fields: Any) -> None:
        self.events.append({"t": time.time(), "event": event, **fields})


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
