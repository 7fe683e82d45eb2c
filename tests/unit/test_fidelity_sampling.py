"""Counters of a kernel written by hand, and of this one: what of their growth is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.engine import cgroups
from simgrid_ml.engine.course import MOST_EVENTS, Course
from simgrid_ml.engine.sampling import Sampler
from simgrid_ml.testing.processes import wait_until

SUPERVISOR, AGENT, RANK, STRANGER = 10, 20, 30, 40
TASKS = {"rank-0": "node0"}


class Kernel:
    """A ``/proc`` and control groups in a folder: one run of one rank, on two cores."""

    def __init__(self, folder: Path, version: int) -> None:
        self.proc = folder / "proc"
        self.groups = folder / "sys" / "fs" / "cgroup"
        self.version = version
        self.time_s = self.born_at = 100.0
        self.cpu = {SUPERVISOR: 0, AGENT: 0, RANK: 0, STRANGER: 5000}  # in hundredths of a second
        self.children = dict.fromkeys(self.cpu, 0)  # what they have waited for
        self.exited = 0
        self.steal = 7
        self.waited_ns = 0
        self.throttled_s = 0.0
        self.hits = 3
        self.stall_us = 1000
        self.swapped = 0
        self.write()
        self.sampler = Sampler(
            TASKS,
            {"node0": AGENT},
            root=SUPERVISOR,
            proc=str(self.proc),
            now=lambda: self.time_s,
        )

    def pass_time(self, seconds: float, **grown: float) -> None:
        """Let some counters grow evenly while ``seconds`` pass, and look twice a second."""
        steps = max(1, round(seconds / 0.5))
        for _ in range(steps):
            self.time_s += seconds / steps
            for name, amount in grown.items():
                if name.startswith("cpu_"):
                    pid = globals()[name[4:].upper()]
                    self.cpu[pid] += round(amount * 100 / steps)
                else:
                    setattr(self, name, getattr(self, name) + type(getattr(self, name))(amount))
            self.write()
            self.sampler.look()

    def write(self) -> None:
        busy = sum(self.cpu.values()) + sum(self.children.values()) + self.exited
        idle = round(self.time_s * 200) - busy
        line = f"{busy - 10} 5 5 {idle} 0 0 3 {self.steal} 0 0"
        self.put(self.proc / "stat", f"cpu  {line}\ncpu0 {line}\ncpu1 {line}\nintr 5\n")
        self.put(self.proc / "uptime", f"{self.time_s - self.born_at + RANK / 100} 9\n")
        self.put(self.proc / "vmstat", f"nr_free 5\npswpin {self.swapped}\npswpout 0\n")
        self.put(
            self.proc / "pressure" / "memory",
            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={self.stall_us}\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        )
        self.process(SUPERVISOR, 1, "python3")
        self.process(AGENT, 1, "agent) of (node")
        self.process(RANK, AGENT, "python3", "SIMGRID_ML_TASK=rank-0")
        self.process(STRANGER, 1, "firefox")
        self.put(self.proc / str(RANK) / "schedstat", f"5 {self.waited_ns} 9\n")
        self.write_groups()

    def process(self, pid: int, parent: int, name: str, *environment: str) -> None:
        times = f"{self.cpu[pid]} 0 {self.children.get(pid, 0)} 0"
        fields = f"S {parent} 1 1 0 -1 4194560 1 1 0 0 {times} 20 0 1 0 {pid} 1 1"
        self.put(self.proc / str(pid) / "stat", f"{pid} ({name}) {fields}\n")
        self.put(self.proc / str(pid) / "environ", "\0".join(("PATH=/bin", *environment)) + "\0")
        group = "/docker/node0" if pid in (AGENT, RANK) else "/user"
        lines = f"4:cpu,cpuacct:{group}\n3:memory:{group}\n1:name=systemd:/\n"
        self.put(self.proc / str(pid) / "cgroup", lines if self.version == 1 else f"0::{group}\n")

    def write_groups(self) -> None:
        if self.version == 1:
            rows = [("cpu,cpuacct", "rw,cpu,cpuacct"), ("memory", "rw,memory")]
            lines = [
                f"30 25 0:26 / {self.groups}/{name} rw,nosuid shared:9 - cgroup cgroup {options}"
                for name, options in rows
            ]
            self.put(
                self.groups / "cpu,cpuacct" / "docker" / "node0" / "cpu.stat",
                f"nr_periods 90\nnr_throttled 8\nthrottled_time {round(self.throttled_s * 1e9)}\n",
            )
            folder = self.groups / "memory" / "docker" / "node0"
            self.put(folder / "memory.failcnt", f"{self.hits}\n")
            self.put(self.groups / "cpu,cpuacct" / "cpu.stat", "nr_periods 0\nnr_throttled 0\n")
        else:
            lines = [f"30 25 0:26 / {self.groups} rw,nosuid - cgroup2 cgroup2 rw"]
            folder = self.groups / "docker" / "node0"
            self.put(
                folder / "cpu.stat",
                "usage_usec 99\nnr_periods 90\nnr_throttled 8\n"
                f"throttled_usec {round(self.throttled_s * 1e6)}\n",
            )
            self.put(folder / "memory.events", f"low 0\nhigh 1\nmax {self.hits}\noom_kill 0\n")
            self.put(folder / "memory.pressure", f"some avg10=0.00 total={self.stall_us}\n")
        self.put(self.proc / "self" / "mountinfo", "\n".join(lines) + "\n")

    @staticmethod
    def put(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def seen(self) -> dict[str, Any]:
        return self.sampler.summary()


@pytest.fixture(params=[1, 2])
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> Kernel:
    return Kernel(tmp_path, request.param)


def test_other_processes_are_told_from_the_run_s_own(kernel: Kernel) -> None:
    kernel.sampler.look()
    kernel.pass_time(4.0, cpu_rank=4.0, cpu_agent=0.5, cpu_supervisor=0.1, cpu_stranger=2.0)
    foreign = kernel.seen()["host"]["foreign"]
    assert foreign["mean"] == pytest.approx(2.0 / 8.0, abs=0.01)
    assert foreign["above_s"] == pytest.approx(4.0)
    assert foreign["window_s"] == pytest.approx(4.0)


def test_processes_that_have_ended_between_two_looks_count_as_foreign(kernel: Kernel) -> None:
    kernel.sampler.look()
    kernel.pass_time(2.0, cpu_rank=2.0, exited=50)
    assert kernel.seen()["host"]["foreign"]["mean"] == pytest.approx(2.0 / 4.0, abs=0.01)


def ends(kernel: Kernel, pid: int) -> None:
    for path in (kernel.proc / str(pid)).iterdir():
        path.unlink()
    (kernel.proc / str(pid)).rmdir()


def worker(kernel: Kernel, pid: int, hundredths: int) -> None:
    """A child of the rank that has used so much CPU time."""
    kernel.cpu[pid] = hundredths
    kernel.write()
    kernel.process(pid, RANK, "worker", "SIMGRID_ML_TASK=rank-0")
    kernel.put(kernel.proc / str(pid) / "schedstat", "5 100000000 9\n")


@pytest.mark.parametrize("waited_for", [True, False])
def test_children_that_end_are_the_run_s_own_whether_waited_for_or_not(
    kernel: Kernel, waited_for: bool
) -> None:
    """The kernel drops the time of children whose parent ignores SIGCHLD."""
    kernel.sampler.look()
    for number in range(4):
        kernel.time_s += 1.0
        worker(kernel, 31, 100 * (number + 1))
        kernel.sampler.look()
    busy = kernel.cpu.pop(31)
    ends(kernel, 31)
    if waited_for:
        kernel.children[RANK] = busy
    else:
        kernel.exited += busy
    kernel.pass_time(2.0, cpu_stranger=0.2)
    foreign = kernel.seen()["host"]["foreign"]
    assert foreign["mean"] == pytest.approx(0.2 / 12.0, abs=0.001)
    assert foreign["worst"] <= 0.06


def test_others_never_have_more_than_all_cores(kernel: Kernel) -> None:
    kernel.sampler.look()
    kernel.pass_time(1.0, cpu_stranger=9.0)
    foreign = kernel.seen()["host"]["foreign"]
    assert foreign["mean"] == foreign["worst"] == 1.0


def test_of_processes_that_have_ended_one_per_task_is_remembered(kernel: Kernel) -> None:
    kernel.sampler.look()
    for pid in range(1000, 1100):
        kernel.time_s += 0.1
        worker(kernel, pid, 1)
        kernel.sampler.look()
        del kernel.cpu[pid]
        kernel.exited += 1
        ends(kernel, pid)
    kernel.pass_time(1.0)
    kept = vars(kernel.sampler)
    assert len(kept["_ranks"]) == 1 and len(kept["_known"]) == 3
    waits = [where for what, where in kept["_courses"] if what == "waiting"]
    assert sorted(waits) == [f"rank-0 {RANK}", "rank-0 ended"]


def test_a_quiet_kernel_has_nothing_to_tell(kernel: Kernel) -> None:
    kernel.sampler.look()
    kernel.pass_time(3.0, cpu_rank=3.0)
    seen = kernel.seen()
    assert seen["events"] == [] and seen["unseen"] == []
    assert seen["ranks"]["rank-0"]["waiting"]["mean"] == 0.0
    for measures in (seen["host"], seen["nodes"]["node0"]):
        means = [one["mean"] for one in measures.values() if isinstance(one, dict)]
        assert means and max(means) < 0.001


def test_what_was_taken_is_told_of_whom_it_was_taken_from(kernel: Kernel) -> None:
    kernel.sampler.look()
    kernel.pass_time(
        4.0, waited_ns=0.1e9, throttled_s=0.2, hits=10, steal=20, stall_us=50_000, swapped=128
    )
    seen = kernel.seen()
    node = seen["nodes"]["node0"]
    assert seen["ranks"]["rank-0"]["waiting"]["mean"] == pytest.approx(0.2)
    assert node["throttled"]["mean"] == pytest.approx(0.4)
    assert node["limited"]["mean"] == pytest.approx(20.0)
    assert seen["host"]["steal"]["mean"] == pytest.approx(0.2)
    assert seen["host"]["stalled"]["mean"] == pytest.approx(0.1)
    assert seen["host"]["swapped"]["mean"] == pytest.approx(256 * os.sysconf("SC_PAGE_SIZE"))
    if kernel.version == 2:
        assert node["stalled"]["mean"] == pytest.approx(0.1)


def test_of_a_task_s_processes_the_one_that_waited_most_tells(kernel: Kernel) -> None:
    """The rank's wrapper has the rank's variables, too, and sleeps."""
    wrapper = 29
    kernel.cpu[wrapper] = 0
    kernel.process(wrapper, AGENT, "rank", "SIMGRID_ML_TASK=rank-0")
    kernel.put(kernel.proc / str(wrapper) / "schedstat", "5 0 9\n")
    kernel.sampler.look()
    kernel.pass_time(4.0, waited_ns=0.1e9)
    waiting = kernel.seen()["ranks"]["rank-0"]["waiting"]
    assert waiting["mean"] == pytest.approx(0.2)


def test_a_rank_that_is_seen_once_has_waited_since_its_birth(kernel: Kernel) -> None:
    kernel.time_s += 2.0
    kernel.waited_ns = int(0.5e9)
    kernel.write()
    kernel.sampler.look()
    waiting = kernel.seen()["ranks"]["rank-0"]["waiting"]
    assert (waiting["mean"], waiting["window_s"]) == (0.25, 2.0)


def test_events_say_when_it_was_too_much_and_for_how_long(kernel: Kernel) -> None:
    kernel.sampler.look()
    kernel.pass_time(2.0)
    kernel.pass_time(1.0, cpu_stranger=2.0)
    kernel.pass_time(3.0)
    seen = kernel.seen()
    (event,) = seen["events"]
    assert (event["what"], event["where"]) == ("foreign", "the host")
    assert (event["from_s"], event["to_s"]) == (2.0, 3.0)
    assert event["worst"] == pytest.approx(1.0, abs=0.02)
    assert seen["host"]["foreign"]["above_s"] == pytest.approx(1.0)


def test_a_run_shorter_than_an_interval_is_judged_by_its_start_and_end(kernel: Kernel) -> None:
    kernel.sampler.look()
    kernel.time_s += 0.3
    kernel.cpu[STRANGER] += 60
    kernel.write()
    kernel.sampler.look()
    foreign = kernel.seen()["host"]["foreign"]
    assert foreign["mean"] == foreign["worst"] == pytest.approx(1.0, abs=0.02)
    assert foreign["above_s"] == foreign["window_s"] == pytest.approx(0.3)


def test_where_the_agents_cannot_be_seen_nobody_is_called_foreign(kernel: Kernel) -> None:
    kernel.sampler = Sampler(
        TASKS, {"node0": 0}, root=SUPERVISOR, proc=str(kernel.proc), now=lambda: kernel.time_s
    )
    kernel.sampler.look()
    kernel.pass_time(2.0, cpu_rank=2.0)
    seen = kernel.seen()
    assert "foreign" not in seen["host"]
    assert seen["unseen"]


def test_a_process_may_end_while_it_is_looked_at(kernel: Kernel) -> None:
    kernel.sampler.look()
    kernel.pass_time(1.0)
    for path in (kernel.proc / str(RANK)).iterdir():
        path.unlink()
    kernel.time_s += 1.0
    kernel.sampler.look()
    assert kernel.seen()["ranks"]["rank-0"]["waiting"]["window_s"] == pytest.approx(1.0)


def test_a_host_without_any_of_this_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    sampler = Sampler(TASKS, {"node0": 5}, proc=str(tmp_path / "proc"))
    sampler.look()
    sampler.look()
    seen = sampler.summary()
    assert "foreign" not in seen["host"] and seen["nodes"] == {"node0": {}}


def test_a_course_knows_its_mean_its_worst_and_its_stretches() -> None:
    course = Course(0.0, 10.0, 0.1, 0.5)
    for time_s, value in ((1.0, 10.0), (2.0, 10.2), (3.0, 11.2), (4.0, 11.2), (5.0, 11.8)):
        course.see(time_s, value)
    assert course.to_json() == {"mean": 0.36, "worst": 1.0, "window_s": 5.0, "above_s": 2.0}
    assert [(begin, end) for begin, end, _ in course.events] == [(1.0, 3.0), (4.0, 5.0)]


def test_the_worst_of_a_course_is_never_below_its_mean() -> None:
    course = Course(0.0, 0.0, 0.1, 0.5)
    course.see(1.0, 0.5)
    course.see(1.3, 0.9)  # too short to be judged by itself
    told = course.to_json()
    assert told["worst"] >= told["mean"] > 0.5


def test_a_course_keeps_its_first_stretches() -> None:
    course = Course(0.0, 0.0, 0.1, 0.5)
    for number in range(1, 400):
        course.see(float(number), float(number // 2))
    assert len(course.events) == MOST_EVENTS and course.events[0][0] < 3


# -- control groups --------------------------------------------------------------------------
def test_the_groups_of_a_process_are_found_from_its_own_upwards(kernel: Kernel) -> None:
    where = cgroups.mounts(str(kernel.proc))
    found = cgroups.folders("cpu", RANK, where, str(kernel.proc))
    top = kernel.groups / ("cpu,cpuacct" if kernel.version == 1 else "")
    assert found == (f"{top}/docker/node0", f"{top}/docker", str(top))


def test_in_a_container_the_groups_are_those_that_are_mounted(tmp_path: Path) -> None:
    proc = tmp_path / "proc" / "5"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("4:cpu:/docker/abc/inner\n")
    inside = {"cpu": cgroups.Mount("/docker/abc", "/cg/cpu")}
    assert cgroups.folders("cpu", 5, inside, str(tmp_path / "proc")) == ("/cg/cpu/inner", "/cg/cpu")
    outside = {"cpu": cgroups.Mount("/docker/other", "/cg/cpu")}
    assert cgroups.folders("cpu", 5, outside, str(tmp_path / "proc")) == ("/cg/cpu",)
    assert cgroups.folders("memory", 5, inside, str(tmp_path / "proc")) == ()


def test_mounts_with_spaces_in_their_names_are_found(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    line = r"30 25 0:26 / /with\040space rw - cgroup2 cgroup2 rw"
    (tmp_path / "self" / "mountinfo").write_text(line + "\n")
    assert cgroups.mounts(str(tmp_path)) == {"": cgroups.Mount("/", "/with space")}


# -- this very kernel ------------------------------------------------------------------------
def test_a_child_s_time_is_the_run_s_own_also_when_it_has_ended() -> None:
    """The same second of CPU time: ours if the sampler's root started it, else a stranger's."""
    ours = Sampler({}, {})
    theirs = Sampler({}, {}, root=-1)
    for sampler in (ours, theirs):
        sampler.look()
    second = "import time\nwhile time.process_time() < 1: pass"
    subprocess.run([sys.executable, "-c", second], check=True)
    for sampler in (ours, theirs):
        sampler.look()
    seen = [sampler.summary()["host"] for sampler in (ours, theirs)]
    counted = [one["foreign"]["mean"] * one["foreign"]["window_s"] * one["cores"] for one in seen]
    assert counted[1] - counted[0] > 0.5


def test_a_child_s_time_is_the_run_s_own_also_if_nobody_waited_for_it() -> None:
    """Only looks while it lives can tell; the kernel keeps nothing of it."""
    ours = Sampler({}, {})
    theirs = Sampler({}, {}, root=-1)
    second = "import time\nwhile time.process_time() < 1: pass"
    program = f"""
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", {second!r}])
try:
    os.waitpid(child, 0)  # fails when it has ended
except ChildProcessError:
    pass
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as parent:
        try:
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
            wait_until(lambda: children.read_text(), "the child has started")
            while children.read_text():
                for sampler in (ours, theirs):
                    sampler.look()
                time.sleep(0.05)  # looking all the time would take a second by itself
            for sampler in (ours, theirs):
                sampler.look()
        finally:
            parent.communicate()
    seen = [sampler.summary()["host"] for sampler in (ours, theirs)]
    counted = [one["foreign"]["mean"] * one["foreign"]["window_s"] * one["cores"] for one in seen]
    assert counted[1] - counted[0] > 0.5
