"""What Open MPI runs instead of ssh: ``rsh.py NODE COMMAND…`` asks the node's agent to run it.

mpirun calls it once per remote node, all at a time; it does as little as it can.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from simgrid_ml import wire
from simgrid_ml.node.protocol import connect


def main(argv: "list[str]") -> int:
    run_dir = os.environ[wire.RUN_DIR_VARIABLE]
    words = [word for word in argv if word not in ("-x", "-T", "-n", "-q")]
    try:
        connection = connect(os.path.join(run_dir, wire.SOCKET))
    except OSError as error:
        sys.stderr.write(f"cannot reach the supervisor of {run_dir}: {error.strerror}\n")
        return 255
    answer = connection.ask(op="rsh", node=words[0], argv=["/bin/sh", "-c", " ".join(words[1:])])
    if answer is None:
        return 255
    if "error" in answer:
        sys.stderr.write(answer["error"] + "\n")
    return int(answer["code"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
