"""Which GPUs a node really has, as a process on it finds out: ``gpu_check.py [device] [context]``.

Run on every node before its first rank starts; prints one JSON object::

    ledger    what the node's ledger says: a list of uuid, name, memory_bytes, sms
    devices   what the CUDA driver says: a list of uuid, memory_bytes, sms (with ``device``)
    driver    the CUDA version that the driver serves, 12040 for 12.4
    variables what of CUDA's variables the process was given
    error     why one of the first two is not there

With ``context`` each device also says ``free_bytes`` and ``total_bytes`` as a program has them:
limits of the Multi-Process Service show there and nowhere else, and a wrong directory of it is not
an error but a whole GPU without limits.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False  # see agent.py
if TYPE_CHECKING:
    from typing import Any, Dict, List, Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

_SHOWN = ("CUDA_", "NVIDIA_VISIBLE_DEVICES")


def main(argv: Sequence[str]) -> int:
    """Look, and print what is there."""
    said: Dict[str, Any] = {
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(_SHOWN)
        }
    }
    try:
        from simgrid_ml import wire

        said["ledger"] = from_ledger(os.environ.get(wire.GPU_LEDGER_VARIABLE, ""))
        if "device" in argv:
            from simgrid_ml.node.cuda_driver import Driver

            driver = Driver()
            said["driver"] = driver.version
            said["devices"] = driver.devices(context="context" in argv)
    except (AttributeError, OSError, ValueError) as error:  # a driver may lack a function
        said["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(said))
    return 0


def from_ledger(path: str) -> List[Dict[str, Any]]:
    """The node's GPUs by its ledger.

    Raises:
        OSError, ValueError: there is none.
    """
    from simgrid_ml.node.gpu_ledger import Ledger

    ledger = Ledger(path)
    try:
        return [
            {
                "uuid": gpu.uuid,
                "name": gpu.name,
                "memory_bytes": gpu.memory_bytes,
                "sms": gpu.sms,
            }
            for gpu in ledger.gpus
        ]
    finally:
        ledger.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
