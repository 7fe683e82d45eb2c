"""Times Horovod's allreduce over the nodes; rank 0 prints the bus bandwidth of each size.

Bus bandwidth is 2(n-1)/n · S/t: what each rank sends and receives, whatever the algorithm, so it
can be held against the rate of a node's link. Per iteration the slowest rank counts; of the
iterations, the median.
"""

import statistics
import time

import horovod.torch as hvd
import torch
from azureml.core import Run

MIB = 2**20
ITERATIONS = 10

hvd.init()
run = Run.get_context()


def timed(size_bytes):
    """Seconds of one allreduce on this rank, after all have arrived."""
    tensor = torch.ones(size_bytes // 4)
    hvd.barrier()
    begin = time.perf_counter()
    total = hvd.allreduce(tensor, op=hvd.Sum, name=f"size-{size_bytes}")
    taken = time.perf_counter() - begin
    assert total[0] == total[-1] == hvd.size()
    return taken


for size in (1 * MIB, 4 * MIB, 16 * MIB):
    timed(size)
    slowest = []
    for _ in range(ITERATIONS):
        mine = torch.tensor([timed(size)], dtype=torch.float64)
        slowest.append(hvd.allgather(mine, name="times").max().item())
    time_s = statistics.median(slowest)
    busbw = 2 * (hvd.size() - 1) / hvd.size() * size / time_s / 1e9
    if hvd.rank() == 0:
        print(f"{size // MIB:3} MiB  {time_s * 1e3:8.2f} ms  busbw {busbw:.4f} GB/s", flush=True)
        run.log_row("allreduce", size_bytes=size, time_s=time_s, busbw_GBps=busbw)
