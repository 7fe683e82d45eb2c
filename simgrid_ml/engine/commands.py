"""The commands of a launch plan, from their spawn to the end of the last process of theirs.

What decides the run is heard from two sides: the decisive commands end, and the tasks report for
themselves (``node/rank.py``). The second is needed since mpirun 5.0.11 can deadlock in its own
clean-up after a rank has failed: a launcher gets ``LINGER_S``, then the reports decide.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from simgrid_ml import wire
from simgrid_ml.engine import causes
from simgrid_ml.engine.agents import Process, Switchboard, not_answering
from simgrid_ml.engine.reports import TaskReport
from simgrid_ml.engine.waits import Waits
from simgrid_ml.errors import LaunchError, NodeError, RunFailed, SimgridError
from simgrid_ml.launch.plan import LaunchPlan
from simgrid_ml.record.read import tail
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.job import JobSpec, ParameterServer
from simgrid_ml.spec.placement import Placement

__all__ = ["GRACE_S", "LINGER_S", "Commands"]

GRACE_S = 5.0
SHORT_GRACE_S = 0.5
"""Between SIGTERM and SIGKILL, with and without tasks that may want to save something."""
LINGER_S = 3.0
"""What a launcher gets to end by itself after a task failed, or after all have ended."""
_REPORTS_S = 0.3
"""What others that fail at the same time get to say so, where no launcher ends them."""
_LOOK_S = 0.25


class Commands:
    """The commands of ``plan``.

    Args:
        logs: path of the log of each task, and of each command that has one of its own.
        endpoints: ``address:port`` of each task that others expect to listen.
        log: appends to the run's events.
    """

    def __init__(
        self,
        record: RunRecord,
        job: JobSpec,
        plan: LaunchPlan,
        placement: Placement,
        logs: Mapping[str, str],
        endpoints: Mapping[str, str],
        board: Switchboard,
        log: Callable[..., None],
    ) -> None:
        self._record = record
        self._job = job
        self._plan = plan
        self._placement = placement
        self._logs = logs
        self._board = board
        self._log = log
        self._reports = {
            task.name: TaskReport(record.file(wire.TASKS, task.name + ".jsonl"))
            for task in placement.tasks
        }
        self._serving = {task.name for task in placement.tasks if task.serves}
        self._direct = not causes.has_launcher(placement, logs)
        self._deserters: dict[str, float] = {}
        self._linger_s = _REPORTS_S if self._direct else LINGER_S
        self._waits = Waits(placement, endpoints, board, log)

    async def waited_for(self) -> list[str]:
        """For whom the job may be waiting, a sentence each: a run that is ended early tells it."""
        return await self._waits.told()

    async def run(self) -> None:
        """Spawn them and wait until all tasks have ended well; afterwards nothing of them runs.

        Raises:
            RunFailed: a task did not end well.
            LaunchError: the launcher failed, or some task did not start in time.
            NodeError: a node went away.
        """
        memory = causes.MemoryKills(self._board.pids())
        processes = self._spawn()
        lost = asyncio.create_task(self._raise_when_node_is_lost())
        reports = asyncio.create_task(self._until_reports_decide())
        watched = self._plan.decisive | (self._serving if self._direct else set())
        commands = {asyncio.create_task(processes[name].wait(), name=name) for name in watched}
        decisive = {task for task in commands if task.get_name() in self._plan.decisive}
        waiting: set[asyncio.Task[Any]] = {lost, reports, *commands}
        try:
            while decisive & waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if self._direct and any(map(_has_failed, commands)) and not done & {lost, reports}:
                    # Who fails because of another may be seen to end sooner than that one.
                    await asyncio.wait(
                        {lost, reports}, timeout=_REPORTS_S, return_when=asyncio.FIRST_COMPLETED
                    )
                    done |= {task for task in waiting if task.done()}
                    waiting -= done
                if lost in done:
                    lost.result()
                if reports in done:
                    reports.result()
                ended = {task.get_name(): task.result() for task in commands if task.done()}
                if reports in done or not decisive & waiting:
                    well = causes.all_ended_well(self._record, self._placement)
                    if well and not any(task.result() for task in decisive if task.done()):
                        break
                    raise await self._first_cause(ended, memory)
                if any(ended.values()):
                    raise await self._first_cause(ended, memory)
        finally:
            watchers = {lost, reports, *commands}
            for task in watchers:
                task.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await self._end(processes)

    async def _first_cause(
        self, ended: Mapping[str, int], memory: causes.MemoryKills
    ) -> SimgridError:
        error = causes.first_cause(
            self._record, self._placement, self._logs, ended, memory, self._board.killed
        )
        failed = [name for name, report in self._reports.items() if report.failed]
        # Else it failed before it could wait for anybody.
        if isinstance(error, RunFailed) and any(map(self._waits.has_listened, failed)):
            silence = await self._waits.silence()
            error.evidence = "\n".join(filter(None, (error.evidence, silence)))
        return error

    def _spawn(self) -> dict[str, Process]:
        processes = {}
        for command in self._plan.commands:
            log = self._logs.get(command.name) if command.log is not None else None
            if log is not None:
                os.makedirs(os.path.dirname(log), exist_ok=True)
            processes[command.name] = self._board.spawn(
                command.node, command.argv, command.environment, name=command.name, stdout=log
            )
        self._log("launched", commands=sorted(processes))
        return processes

    async def _raise_when_node_is_lost(self) -> None:
        node = await asyncio.shield(self._board.lost)
        self._log("node-lost", node=node)
        if node in self._board.silent:
            raise not_answering(node)
        raise NodeError(
            f"{node} went away while its tasks were running: its agent was killed or crashed",
            evidence=tail(self._board.log_of(node), 5),
            remedy="the kernel's log (`dmesg`) tells whether it ran out of memory; submit again",
        )

    async def _until_reports_decide(self) -> None:
        """Returns a moment after some task failed, or after all have ended that serve no other.

        Raises:
            LaunchError: some task has not started in time.
            RunFailed: a task that serves others has ended well, and they go on.
        """
        reports = self._reports
        deadline = time.monotonic() + self._job.launch_timeout_s
        all_started = False
        decided: float | None = None
        wait_s = 0.01
        while decided is None or time.monotonic() < decided + self._linger_s:
            for name, report in reports.items():
                report.refresh()
                while report.waits:
                    self._log("no-progress", task=name, text=report.waits.pop(0))
            missing = [name for name, report in reports.items() if not report.started]
            if not missing and not all_started:
                all_started = True
                self._log("all-ranks-started")
            if missing and time.monotonic() > deadline:
                raise self._not_started(missing)
            failed = any(report.failed for report in reports.values())
            alive = [name for name, report in reports.items() if not report.ended]
            running = [name for name in alive if name not in self._serving]
            if decided is None and (failed or not running):
                decided = time.monotonic()
            self._look_for_deserters(running)
            self._waits.look(alive)
            await asyncio.sleep(wait_s)
            wait_s = min(_LOOK_S, wait_s * 1.3)
        if not self._direct:
            self._log("launcher-lingers", after_s=LINGER_S)

    def _look_for_deserters(self, running: list[str]) -> None:
        distribution = self._job.distribution
        if not isinstance(distribution, ParameterServer):
            return
        now = time.monotonic()
        for name in sorted(self._serving - self._deserters.keys()):
            report = self._reports[name]
            if report.ended and not report.failed:
                self._deserters[name] = now
                self._log("server-ended", task=name, running=running)
        for name, since in self._deserters.items():
            if running and now > since + distribution.server_grace_s:
                raise causes.deserted_by_server(
                    self._placement, name, self._logs[name], running, distribution.server_grace_s
                )

    def _not_started(self, missing: list[str]) -> LaunchError:
        return LaunchError(
            f"{len(missing)} of {len(self._reports)} tasks did not start within "
            f"{self._job.launch_timeout_s:g} s: {', '.join(missing[:8])}",
            evidence=tail(list(self._logs.values())[-1]),
            remedy="`simgrid-ml doctor` checks Open MPI and what nodes need",
        )

    async def _end(self, processes: dict[str, Process]) -> None:
        """TERM, grace; what still runs then ends with its node."""
        running = [process for process in processes.values() if not process.has_exited]
        for process in running:
            process.signal(signal.SIGTERM)
        if running:
            waits = [asyncio.ensure_future(process.wait()) for process in running]
            # A launcher that hangs after its last task has nothing left to end in peace.
            busy = any(report.started and not report.ended for report in self._reports.values())
            await asyncio.wait(waits, timeout=GRACE_S if busy else SHORT_GRACE_S)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def _has_failed(command: asyncio.Task[int]) -> bool:
    return command.done() and (command.exception() is not None or command.result() != 0)
