"""The agents of virtual nodes: dial back to the supervisor, spawn, reap, end with the connection.

``python -I -S agent.py CONFIG`` (JSON; see ``config.py``) forks an agent per node: 64 nodes start
as fast as one interpreter plus 64 forks, and share its memory. In a container it is the one agent.

An agent ends when its connection closes, whatever the reason, and takes its node along: as
PID 1 of the node by the kernel's rule, elsewhere by hunting down its descendants.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # without typing, agents start 8 ms sooner and are 1 MiB smaller
if TYPE_CHECKING:
    from typing import Any, Dict, List, NoReturn, Optional, Tuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from simgrid_ml.node import isolation, privileges, renewal
from simgrid_ml.node.config import Config
from simgrid_ml.node.protocol import Connection, connect, hand_over

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LAST_RESORT_S = 1.0
"""Agents end by themselves when the supervisor is gone, unless they are stopped."""
_NO_MOUNTS = 77
"""Exit code of an agent that got its namespaces and may not mount in them."""


def main(argv: List[str]) -> int:
    """Start the agents and wait until the last one is gone."""
    config = Config.decode(argv[0])
    if config.contained:
        return _serve_alone(config)
    rungs = tuple(config.isolation)
    _become_subreaper()
    _end_with_supervisor()
    network = None if config.relay else _network()  # held open until the last agent is gone
    alive_read, alive_write = os.pipe2(os.O_CLOEXEC)  # its closing ends the agents
    limits: List[str] = []
    while True:
        for node in config.nodes:
            if os.fork() == 0:
                os.close(alive_write)
                _start(config, node, rungs, limits, alive_read)
        if _outlive_agents(rungs, config.nodes) != _NO_MOUNTS:
            break
        rungs = isolation.HOSTNAME
        limits = ["no own mounts, and so no own processes: the host refuses them"]
    if network is not None:
        os.close(network)
    import shutil  # not for the agents

    shutil.rmtree(config.shared, ignore_errors=True)
    return 0


def _serve_alone(config: Config) -> int:
    """In a container, as its PID 1: the engine has made all that makes a node."""
    try:
        log = os.open(config.log, os.O_WRONLY | os.O_APPEND)  # made here it would be root's
        os.dup2(log, 2)
        os.close(log)
    except FileNotFoundError:
        pass
    node = config.nodes[0]
    have = (*isolation.FULL, "network")
    if config.unshare:
        isolation.unshare_network(tun=False)
    if config.relay:
        _join_relay(config, node)
    privileges.drop_privileges(config.uid, config.gid)
    if config.unshare:
        privileges.forbid_namespaces()
    os.umask(0o022)
    nursery, held = os.pipe2(os.O_CLOEXEC)  # nobody starts us but the engine, which ends us itself
    about = {"tmp": "/tmp", "shm": None, **_place(config, node, have)}
    own = ("/tmp", "/dev/shm", "/run", "/var/tmp")
    Agent(connect(config.socket), node, have, [], about, own).serve(nursery)
    os.close(held)
    return 0


def _join_relay(config: Config, node: str) -> None:
    """Make the node's interface and give the relay its other end."""
    assert config.relay is not None
    tun = isolation.open_tun(
        config.interface, config.addresses[node], config.netmask, config.mtu, relay=True
    )
    hand_over(config.relay, node, tun)
    os.close(tun)  # the relay's end keeps it up


def _place(config: Config, node: str, have: Tuple[str, ...]) -> Dict[str, Optional[str]]:
    """Where the other nodes reach it; without an own network the backend gives out addresses."""
    if "network" not in have:
        return {"address": None, "interface": "lo"}
    return {"address": config.addresses[node], "interface": config.interface}


def _outlive_agents(rungs: Tuple[str, ...], nodes: List[str]) -> int:
    """Wait for the agents, and without own process ids also for what a killed one left behind.

    Returns:
        0, when all have ended; ``_NO_MOUNTS``, when all have, as they can have no mounts; or the
        code of the first that failed: it said why, and without the nursery the others end as well.
    """
    code = 0
    while True:
        try:
            _, status = os.wait()
        except ChildProcessError:
            return code
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
            code = os.WEXITSTATUS(status)
            if code != _NO_MOUNTS:
                return code
        if "pid" not in rungs:
            _end_orphans(nodes)


def _network() -> Optional[int]:
    if isolation.has_network():
        return None
    try:
        return isolation.enter_network()
    except OSError as error:
        sys.stderr.write(
            f"the host has no network but loopback, and allows no own one: {error}; "
            "Open MPI will refuse to span nodes\n"
        )
        return None


def _start(
    config: Config, node: str, wanted: Tuple[str, ...], limits: List[str], nursery: int
) -> NoReturn:
    """In a child of the nursery: become the agent of ``node``. Never returns."""
    code = 1
    try:
        connection = connect(config.socket)  # from the host's namespaces: /proc is about to change
        have, refused = isolation.enter(wanted)
        if config.relay:
            if "mount" not in have:
                raise PermissionError("links need nodes with own namespaces: " + "; ".join(refused))
            isolation.unshare_network()
            _join_relay(config, node)
            have = (*have, "network")
        if "pid" in have and os.fork() != 0:
            os._exit(0)  # the child is PID 1 of the node; the nursery adopts it
        if "hostname" in have:
            isolation.set_hostname(node)
        tmp = os.path.join(os.path.dirname(config.hosts), node)
        os.makedirs(tmp, exist_ok=True)
        if "mount" in have:
            try:
                isolation.enter_mounts(config.shm_bytes, config.hosts, tmp)
            except OSError:  # a container that hides parts of /proc: no way back from here
                os._exit(_NO_MOUNTS)
            folders = {"tmp": isolation.TMP, "shm": None}
        else:
            folders = isolation.shared_folders(config.shared, tmp)
        about = {**folders, **_place(config, node, have)}
        own = (str(folders["tmp"]), *(("/dev/shm",) if "mount" in have else ()))
        Agent(connection, node, have, limits + refused, about, own).serve(nursery)
        code = 0
    except BaseException as error:
        sys.stderr.write(f"agent of {node}: {error!r}\n")
        sys.stderr.flush()
    os._exit(code)


class Agent:
    """Serves one connection until it closes or says bye."""

    def __init__(
        self,
        connection: Connection,
        node: str,
        have: Tuple[str, ...],
        refused: List[str],
        about: Dict[str, Optional[str]],
        own_folders: Tuple[str, ...] = (),
    ) -> None:
        self.connection = connection
        self.node = node
        self.have = have
        self.refused = refused
        self.about = about
        self.own_folders = own_folders  # emptied between runs
        self.commands: Dict[int, int] = {}  # pid → id of the spawn request
        self.lent: Dict[int, Tuple[int, int]] = {}  # pid of a run's stand-in → request, its life

    def serve(self, nursery: int) -> None:
        """Until the connection closes, or the nursery's pipe: no agent outlives either."""
        if "pid" not in self.have:
            _become_subreaper()
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)  # the connection alone decides
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        poll.register(nursery, 0)  # only its hanging up
        self.connection.send(
            op="hello",
            node=self.node,
            hostname=os.uname().nodename,
            isolation=list(self.have),
            limits=self.refused,
            **self.about,
        )
        try:
            while True:
                for fd, _ in poll.poll():
                    if fd == wake_read:
                        _drain(wake_read)
                    elif fd == nursery:
                        return
                    else:
                        for message in self.connection.receive():
                            if message["op"] == "bye":
                                return
                            getattr(self, "on_" + message["op"])(message)
                self.reap()
        except (EOFError, BrokenPipeError):
            return  # the supervisor is gone, whatever the reason
        finally:
            if "pid" not in self.have:
                _end_descendants()

    def on_spawn(self, message: Dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            _exec(message)
        self.commands[pid] = message["id"]
        self.connection.send(op="spawned", id=message["id"], pid=pid)

    def on_ping(self, message: Dict[str, Any]) -> None:
        self.connection.send(op="pong")

    def on_listening(self, message: Dict[str, Any]) -> None:
        from simgrid_ml.node.listening import listening_ports

        self.connection.send(op="listening", ports=listening_ports())

    def on_signal(self, message: Dict[str, Any]) -> None:
        for pid, command in self.commands.items():
            if command == message["id"]:
                try:
                    os.killpg(pid, message["signal"])
                except ProcessLookupError:
                    pass

    def on_attach(self, message: Dict[str, Any]) -> None:
        """Lend the node to a run: a child serves its supervisor as this process would."""
        alive_read, alive_write = os.pipe2(os.O_CLOEXEC)  # its closing ends the child
        pid = os.fork()
        if pid == 0:
            os.close(alive_write)
            self.stand_in(message["socket"], alive_read)
        os.close(alive_read)
        self.lent[pid] = (message["id"], alive_write)

    def stand_in(self, path: str, alive: int) -> NoReturn:
        """In a child: serve the run that listens at ``path`` until it lets go. Never returns."""
        code = 1
        try:
            self.connection.close()
            connection = connect(path)
            Agent(connection, self.node, self.have, self.refused, self.about).serve(alive)
            code = 0
        except BaseException as error:  # a run that was cancelled meanwhile no longer listens
            sys.stderr.write(f"{self.node}: {path}: {error!r}\n")
            sys.stderr.flush()
        os._exit(code)

    def renew(self) -> None:
        """End all that a run left in the node, and empty the folders that are the node's own."""
        if "pid" in self.have:
            renewal.end_all()
        else:
            _end_descendants()
        for folder in self.own_folders:
            renewal.empty(folder)
        if "ipc" in self.have:
            renewal.remove_ipc()
        if "hostname" in self.have and os.uname().nodename != self.node:
            isolation.set_hostname(self.node)

    def reap(self) -> None:
        """Report the ended commands; orphans of the node are reaped along with them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.lent:
                request, alive = self.lent.pop(pid)
                os.close(alive)
                self.renew()
                self.connection.send(op="exited", id=request, code=exit_code(status))
            command = self.commands.pop(pid, None)
            if command is not None:
                self.connection.send(op="exited", id=command, code=exit_code(status))


def exit_code(status: int) -> int:
    """Exit status of ``wait`` as a code; negative: ended by that signal."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _exec(message: Dict[str, Any]) -> NoReturn:
    """In the forked child: become the command, leader of its own session and group."""
    try:
        os.setsid()
        _go_first()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for target, path, flags in (
            (0, message.get("stdin") or os.devnull, os.O_RDONLY),
            (1, message["stdout"], append),
            (2, message.get("stderr") or message["stdout"], append),
        ):
            fd = os.open(path, flags, 0o644)
            os.dup2(fd, target)
            if fd > 2:
                os.close(fd)
        os.chdir(message["cwd"])
        os.execvpe(message["argv"][0], message["argv"], message["env"])
    except OSError as error:
        os.write(2, f"{message['argv'][0]}: {error.strerror}\n".encode())
        os._exit(126 if error.errno == errno.EACCES else 127)
    os._exit(127)


def _go_first() -> None:
    """Where memory runs out the kernel takes this process before the agent, and so the node."""
    try:
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, b"500")
        os.close(score)
    except OSError:
        pass


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass


def _become_subreaper() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_with_supervisor() -> None:
    """In the nursery: when its parent is gone, what does not end by itself is killed."""

    def kill_agents(*_: object) -> None:
        time.sleep(_LAST_RESORT_S)
        for pid in _children(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    signal.signal(signal.SIGTERM, kill_agents)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _children(parent: int) -> List[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stream:
                    fields = stream.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != b"Z":
                found.append(int(entry))
    return found


def _end_descendants() -> None:
    """SIGKILL all that descends from this process; as their subreaper it inherits the orphans."""
    while True:
        children = _children(os.getpid())
        if not children:
            return
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            pass


def _end_orphans(nodes: List[str]) -> None:
    """In the nursery: SIGKILL what a killed agent left, and nothing else."""
    for pid in _children(os.getpid()):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                is_agent = os.path.abspath(__file__).encode() in stream.read().split(b"\0")
        except OSError:
            continue
        if not is_agent:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
