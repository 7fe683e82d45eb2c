"""Ray on one node: ``ray_task.py ROLE HEAD ADDRESS NODES CPUS TIMEOUT [OPTION...] -- COMMAND...``.

As ``worker`` it waits for Ray's head and serves it until it is ended. As ``head`` it starts Ray's
head, waits until all nodes have joined, runs the command, which finds them by ``RAY_ADDRESS``, and
ends with its code. Every port but the head's is left to the kernel: nodes may share a network.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Dict, List, Optional

_LOOK_S = 0.1


def main(argv: List[str]) -> int:
    role, head, address, nodes, cpus, timeout = argv[:6]
    split = argv.index("--", 6)
    options, command = argv[6:split], argv[split + 1 :]
    if shutil.which("ray") is None:
        raise SystemExit("the job's environment has no program `ray`: add ray to its packages")
    deadline = time.monotonic() + float(timeout)
    host, _, port = head.rpartition(":")
    common = ["--node-ip-address", address, "--num-cpus", cpus, "--disable-usage-stats", "--block"]
    common += ["--min-worker-port", "0", "--max-worker-port", "0"]
    common += ["--object-store-memory", str(_object_store_bytes())]
    # Its state is the node's own; the default, /tmp/ray, nodes without own mounts would share.
    os.environ["RAY_TMPDIR"] = os.environ.get("TMPDIR", "/tmp")
    # A token that somebody has made in $HOME would be asked for, and the nodes may not share it.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    if role == "worker":
        _until_answers(host, int(port), deadline)
        os.execvp("ray", ["ray", "start", "--address", head, *common])
    started = ["ray", "start", "--head", "--port", port, "--include-dashboard", "false"]
    ray = subprocess.Popen([*started, *common, *options])
    try:
        _until_answers(host, int(port), deadline, ray)
        environment = {**os.environ, "RAY_ADDRESS": head}
        _until_joined(int(nodes), head, address, deadline)
        return _run(command, environment)
    finally:
        ray.terminate()
        try:
            ray.wait(10)
        except subprocess.TimeoutExpired:
            ray.kill()


def _object_store_bytes() -> int:
    """What Ray keeps of objects on this node: it should fit into the node's shared memory."""
    shm = os.statvfs("/dev/shm")
    return max(100 * 2**20, min(2 * 2**30, shm.f_bavail * shm.f_frsize * 8 // 10))


def _until_answers(
    host: str, port: int, deadline: float, ray: "Optional[subprocess.Popen[bytes]]" = None
) -> None:
    while True:
        try:
            socket.create_connection((host, port), 1).close()
            return
        except OSError as error:
            why = str(error)
        if ray is not None and ray.poll() is not None:
            raise SystemExit("Ray's head ended with code %d" % ray.returncode)
        if time.monotonic() > deadline:
            raise SystemExit("Ray's head at %s:%d did not answer: %s" % (host, port, why))
        time.sleep(_LOOK_S)


def _until_joined(nodes: int, head: str, address: str, deadline: float) -> None:
    import ray  # of the job's environment

    ray.init(address=head, _node_ip_address=address, log_to_driver=False)
    try:
        while True:
            alive = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
            if len(alive) >= nodes:
                return
            if time.monotonic() > deadline:
                raise SystemExit(
                    "%d of %d Ray nodes have joined in time: %s"
                    % (len(alive), nodes, ", ".join(sorted(alive)))
                )
            time.sleep(_LOOK_S)
    finally:
        ray.shutdown()


def _run(command: List[str], environment: Dict[str, str]) -> int:
    child = subprocess.Popen(command, env=environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: child.send_signal(number))
    code = child.wait()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
