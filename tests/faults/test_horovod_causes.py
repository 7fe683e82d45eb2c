"""Which rank of a Horovod job failed first, although all of them fail in the end."""

from __future__ import annotations

import pytest

from simgrid_ml.testing.runs import Runs, cause, story


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise ValueError('on purpose')", "exited with code 1"),
        ("os._exit(7)", "exited with code 7"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    ],
)
def test_the_rank_that_failed_first_is_named(workspace: Runs, how: str, said: str) -> None:
    record = workspace.failed(
        f"""
        import os
        import horovod.torch as hvd
        import torch
        hvd.init()
        hvd.allreduce(torch.ones(1), name="together")
        if hvd.rank() == 1:
            {how}
        hvd.allreduce(torch.ones(1), name="alone")
        """,
        mpi=(2, 1),
    )
    assert cause(record).startswith(f"rank 1 on node1 {said}"), story(record)
