"""Experiment E: a NCCL of 2.30 or later, in place of torch's own, lets ranks share a GPU.

``new_nccl.py LIBRARY --n N``; LIBRARY is ``libnccl.so.2`` of a wheel ``nvidia-nccl-cu13``; without
one torch's own is used if it is new enough.
"""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.gpu.experiment import emit, require_gpu

_SINCE = (2, 30)


def main(words: list[str]) -> int:
    require_gpu()
    library = words[0] if words and not words[0].startswith("-") else None
    rest = words[1:] if library else words
    if library is None:
        import torch

        version = tuple(torch.cuda.nccl.version())
        if version < _SINCE:
            emit("E", skipped=f"torch has NCCL {'.'.join(map(str, version))}; give a newer one")
            return 0
    environment = {**os.environ, **({"LD_PRELOAD": library} if library else {})}
    argv = [sys.executable, "-m", "benchmarks.gpu.ranks", "--several", *rest]
    return subprocess.run(argv, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
