"""Times allreduce: ``allreduce.py BUDGET_S SIZE…``; rank 0 prints one line of JSON.

Per iteration: a barrier, then each rank's own time, then the largest of them over the ranks.
Iterations per size: as many as fit into the budget, at least 20, in rounds of 20 that rank 0 calls
for. The first fifth of the budget is not counted: the kernel takes that long to spread the ranks.
"""

import json
import sys
import time

import mpi4py

mpi4py.rc.initialize = False
import numpy  # noqa: E402
from mpi4py import MPI  # noqa: E402

begin = time.perf_counter()
MPI.Init()
init_s = time.perf_counter() - begin
world = MPI.COMM_WORLD
budget_s = float(sys.argv[1])


def once(send, receive):
    world.Barrier()
    begin = time.perf_counter()
    world.Allreduce(send, receive)
    return time.perf_counter() - begin


def rounds(send, receive, budget_s):
    """Own times of all iterations until the budget is used up, the same number on all ranks."""
    times = []
    begin = time.perf_counter()
    while world.bcast(time.perf_counter() - begin < budget_s or not times):
        times += [once(send, receive) for _ in range(20)]
    return times


found = {}
for size in map(int, sys.argv[2:]):
    send = numpy.ones(size // 4, dtype=numpy.float32)
    receive = numpy.empty_like(send)
    rounds(send, receive, budget_s / 5)
    assert receive[0] == world.size and receive[-1] == world.size
    times = numpy.array(rounds(send, receive, budget_s * 4 / 5))
    slowest = numpy.empty_like(times)
    world.Allreduce(times, slowest, op=MPI.MAX)
    found[size] = [round(float(value), 9) for value in slowest]
slowest_init = world.allreduce(init_s, op=MPI.MAX)
if world.rank == 0:
    print(json.dumps({"init_s": slowest_init, "times_s": found}), flush=True)
MPI.Finalize()
